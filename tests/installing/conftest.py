"""A copy of core's source tree, and compilers that fail."""

from __future__ import annotations

import shutil
import stat
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parents[2] / "packages/openrtc-introspect-core"
VARIABLES = ("OPENRTC_INTROSPECT_COMPILED", "OPENRTC_INTROSPECT_METER", "CC", "CFLAGS", "LDFLAGS", "ARCHFLAGS")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Core's source tree with what a build of the meter reads, in an environment that chooses nothing."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CFLAGS", "-O0")  # which takes a second less
    root = tmp_path / "tree"
    shutil.copytree(CORE / "src", root / "src", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("pyproject.toml", "hatch_build.py", "compile_meter.py", "README.md", "LICENSE"):
        shutil.copy(CORE / name, root)
    return root


@pytest.fixture
def compiler() -> None:
    """Skip the test if this Python's meter cannot be compiled."""
    if (
        not any(map(shutil.which, ("cc", "gcc", "clang")))
        or not Path(sysconfig.get_path("include"), "Python.h").exists()
        or sysconfig.get_config_var("Py_GIL_DISABLED")
    ):
        pytest.skip("needs a C compiler, this Python's headers and a GIL")


@pytest.fixture
def make_compiler(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that makes a compiler of a shell script, in which $output is the file to write."""

    def make(script: str) -> Path:
        compiler = tmp_path / "fake-cc"
        compiler.write_text(
            '#!/bin/sh\nfor word; do [ "$before" = -o ] && output=$word; before=$word; done\n' + script,
            encoding="utf-8",
        )
        compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
        return compiler

    return make
