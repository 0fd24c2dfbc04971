"""What Hatch builds of core: with the meter in C where it can be compiled, and otherwise without it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

MODULE = "openrtc_introspect_core/_native/_meter.abi3.so"
BUILD = "import os, sys, hatchling.build; os.makedirs('out'); getattr(hatchling.build, 'build_' + sys.argv[1])('out')"


def build(tree: Path, kind: str, **variables: str) -> tuple[int, str, Path | None]:
    """Build in the tree as installers do. Return the exit code, what was said on stderr, and what was made."""
    shutil.rmtree(tree / "out", ignore_errors=True)
    command, environment = [sys.executable, "-c", BUILD, kind], {**os.environ, **variables}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stderr, next((tree / "out").glob("*"), None)


def names_in(wheel: Path | None) -> set[str]:
    assert wheel is not None
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def module_in(tree: Path) -> Path:
    return tree / "src" / MODULE


@pytest.mark.usefixtures("compiler")
def test_a_wheel_has_the_meter_in_c_for_all_later_pythons(tree: Path) -> None:
    """It is for this platform and the stable ABI, and has no sources in C."""
    code, said, wheel = build(tree, "wheel")
    assert (code, said) == (0, "")
    assert wheel is not None
    assert "-cp311-abi3-" in wheel.name
    assert MODULE in names_in(wheel)
    assert [name for name in names_in(wheel) if name.endswith((".c", ".h"))] == []


def test_a_wheel_for_another_processor_is_tagged_so(tree: Path, make_compiler: Callable[[str], Path]) -> None:
    """_PYTHON_HOST_PLATFORM names the platform. What a compiler has made for it is not loaded here."""
    compiler = make_compiler('echo "of another processor" >"$output"')
    code, said, wheel = build(tree, "wheel", CC=str(compiler), _PYTHON_HOST_PLATFORM="linux-another")
    assert (code, said) == (0, "")
    assert wheel is not None
    assert wheel.name.endswith("-cp311-abi3-linux_another.whl")
    assert MODULE in names_in(wheel)


def test_a_wheel_is_pure_where_nothing_can_be_compiled(tree: Path) -> None:
    """One line says why. A module that stands in the source tree is not taken instead."""
    module_in(tree).write_bytes(b"of another machine")
    code, said, wheel = build(tree, "wheel", CC="/bin/false")
    assert code == 0
    assert len(said.splitlines()) == 1
    assert "the meter in Python is installed" in said
    assert wheel is not None
    assert wheel.name.endswith("-py3-none-any.whl")
    assert MODULE not in names_in(wheel)


def test_a_wheel_is_pure_if_the_environment_asks_for_it(tree: Path) -> None:
    """Nothing is said, since it was asked for."""
    code, said, wheel = build(tree, "wheel", OPENRTC_INTROSPECT_COMPILED="0")
    assert (code, said) == (0, "")
    assert wheel is not None
    assert wheel.name.endswith("-py3-none-any.whl")


def test_a_meter_that_must_be_compiled_and_cannot_be_is_an_error(tree: Path) -> None:
    """One line says what failed and what to do, and there is no wheel."""
    code, said, wheel = build(tree, "wheel", OPENRTC_INTROSPECT_COMPILED="1", CC="/bin/false")
    assert code != 0
    assert wheel is None
    assert len(said.splitlines()) == 1
    assert "do not set OPENRTC_INTROSPECT_COMPILED" in said


def test_another_value_is_an_error_that_names_what_is_accepted(tree: Path) -> None:
    """Whoever writes "no" must not get a compiled one."""
    code, said, wheel = build(tree, "wheel", OPENRTC_INTROSPECT_COMPILED="no")
    assert code != 0
    assert wheel is None
    assert said == "OPENRTC_INTROSPECT_COMPILED=no is not accepted: set it to 0, 1, or not at all\n"


@pytest.mark.usefixtures("compiler")
def test_an_editable_install_compiles_into_the_source_tree_and_takes_it_away(tree: Path) -> None:
    """All Pythons that import from the tree share it."""
    assert build(tree, "editable")[0] == 0
    assert module_in(tree).exists()
    assert build(tree, "editable", OPENRTC_INTROSPECT_COMPILED="0")[0] == 0
    assert not module_in(tree).exists()


def test_an_editable_install_succeeds_where_nothing_can_be_compiled(tree: Path) -> None:
    """One line says why."""
    code, said, wheel = build(tree, "editable", CC="/bin/false")
    assert code == 0
    assert wheel is not None
    assert len(said.splitlines()) == 1
    assert not module_in(tree).exists()


def test_an_sdist_has_all_that_is_compiled_and_nothing_compiled(tree: Path) -> None:
    """It was not unpacked from a repository: there is no .gitignore. Other files of the folder are left out."""
    module_in(tree).write_bytes(b"of this machine")
    (tree / "notes.txt").write_text("of nobody else's interest", encoding="utf-8")
    code, _, sdist = build(tree, "sdist")
    assert code == 0
    assert sdist is not None
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folder = Path("src/openrtc_introspect_core/_native")
    sources = {file.relative_to(tree).as_posix() for file in (tree / folder).glob("*.[ch]")}
    assert sources | {"hatch_build.py", "compile_meter.py", f"{folder}/sources.py"} <= names
    assert [name for name in names if name.endswith(".so")] == []
    assert {name.partition("/")[0] for name in names} == {
        *("LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "compile_meter.py", "hatch_build.py", "src")
    }
