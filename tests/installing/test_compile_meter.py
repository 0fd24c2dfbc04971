"""Compiling the meter in C: what is refused, what fails, and what stands in the source tree afterwards."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

MakeCompiler = Callable[[str], Path]


def script_in(tree: Path) -> Any:
    """Return compile_meter.py of the tree as a module."""
    spec = importlib.util.spec_from_file_location("compile_meter", tree / "compile_meter.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_compiler_the_names_looked_for_are_given(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PATH has none of them."""
    monkeypatch.setenv("PATH", str(tree))
    script = script_in(tree)
    with pytest.raises(script.CompilerFailed, match="there is no C compiler, cc, gcc, clang are not on PATH"):
        script.install()


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [("/bin/false", r"C compiler /bin/false failed \(exit 1\)"), ("/no/cc", "C compiler /no/cc does not run")],
)
def test_a_compiler_that_does_nothing_is_named(
    tree: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, reason: str
) -> None:
    """It fails, or is not there."""
    monkeypatch.setenv("CC", compiler)
    script = script_in(tree)
    with pytest.raises(script.CompilerFailed, match=reason):
        script.install()


def test_flags_that_cannot_be_read_are_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quotation has no end."""
    monkeypatch.setenv("CFLAGS", "-D'x")
    script = script_in(tree)
    with pytest.raises(script.CannotCompile, match="CFLAGS cannot be read"):
        script.install()


def test_a_compiler_that_fails_in_the_middle_leaves_nothing(
    tree: Path, make_compiler: MakeCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first error is given in one line; the half of a module that it has written is not in the tree."""
    failing = make_compiler(
        'echo half >"$output"; echo note >&2; echo "select.c:1: fatal error: no memory" >&2; exit 1'
    )
    monkeypatch.setenv("CC", str(failing))
    module = script_in(tree)
    with pytest.raises(module.CompilerFailed) as caught:
        module.install()
    assert str(caught.value) == f"the C compiler {failing} failed (select.c:1: fatal error: no memory)"
    assert [*tree.rglob("*.so*")] == []


def test_a_module_that_cannot_be_loaded_is_not_taken(
    tree: Path, make_compiler: MakeCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler ended without an error, as one for another platform does."""
    monkeypatch.setenv("CC", str(make_compiler('echo garbage >"$output"')))
    script = script_in(tree)
    with pytest.raises(script.CompilerFailed, match="this Python cannot load it"):
        script.install()
    assert [*tree.rglob("*.so*")] == []


@pytest.mark.usefixtures("compiler")
def test_without_headers_the_missing_one_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python without its package of headers has no Python.h."""
    script = script_in(tree)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tree))
    with pytest.raises(script.CompilerFailed, match=r"Python\.h"):
        script.install()


@pytest.mark.parametrize(
    ("owner", "name", "value", "reason"),
    [
        (os, "name", "nt", "Windows"),
        (sys.implementation, "name", "pypy", "there is no meter in C for "),
        (sysconfig, "get_config_var", lambda name: name == "Py_GIL_DISABLED", "a free-threaded Python"),
    ],
)
def test_where_the_module_cannot_run_it_is_not_compiled(
    tree: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, value: Any, reason: str
) -> None:
    """The error says so. It is not the compiler's: none would help."""
    script = script_in(tree)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, value)
        with pytest.raises(script.CannotCompile, match=reason) as caught:
            script.check_platform()
    assert not isinstance(caught.value, script.CompilerFailed)


@pytest.mark.usefixtures("compiler")
def test_the_same_sources_in_another_place_give_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    """So no path of the machine is in a wheel, and who compiles again can compare."""
    elsewhere = tmp_path / "a" / "longer" / "path"
    shutil.copytree(tree, elsewhere)
    modules = []
    for each in (tree, elsewhere):
        out = each / "out"
        out.mkdir()
        modules.append(script_in(each).compile_into(out).read_bytes())
    assert modules[0] == modules[1]
    assert str(tmp_path).encode() not in modules[0]


@pytest.mark.usefixtures("compiler")
def test_a_module_is_compiled_again_once_its_sources_have_changed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then a second install leaves it alone, whether or not there is still a compiler."""
    script = script_in(tree)
    script.install()
    (module,) = tree.rglob("*.so")
    first = module.stat().st_ino
    with monkeypatch.context() as patch:
        patch.setenv("CC", "/bin/false")
        script.install()
        assert module.stat().st_ino == first
    with (module.parent / "clock.c").open("a", encoding="utf-8") as source:
        source.write("/* changed */\n")
    script.install()
    assert module.stat().st_ino != first
    assert script.found_in(module) == script.expected()


def test_on_macos_a_bundle_is_made_for_the_processors_that_are_asked_for(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's own symbols are found when it is loaded."""
    monkeypatch.setenv("ARCHFLAGS", "-arch x86_64 -arch arm64")
    monkeypatch.setenv("CC", "clang")
    script = script_in(tree)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "darwin")
        command = " ".join(script.command(Path("out.so")))
    assert command.startswith("clang ")
    assert "-bundle -undefined dynamic_lookup" in command
    assert "-arch x86_64 -arch arm64" in command
    assert "-shared" not in command
    assert "-ldl" not in command
