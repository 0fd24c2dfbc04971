"""Which meter is loaded: the one in C only if it belongs to the package and to the sources beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from openrtc_introspect_core import _native
from openrtc_introspect_core._base.gil import FREE_THREADED_BUILD
from openrtc_introspect_core._native.sources import checksum

PACKAGE = Path(_native.__file__).parents[1]
SOURCES = Path(__file__).parents[2] / "src/openrtc_introspect_core/_native"
"""In the repository: wheels have none."""
SHOWN = "from openrtc_introspect_core._native import meter, trouble; print(meter, trouble, sep='|')"
FREE_THREADED = "import sysconfig; sysconfig.get_config_vars()['Py_GIL_DISABLED'] = 1; "
loads = pytest.mark.skipif(FREE_THREADED_BUILD, reason="the meter in C is not loaded on a free-threaded Python")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The package with what chooses the meter and nothing else; its sources in C are one line, and none is compiled."""
    copy = tmp_path / "openrtc_introspect_core"
    for folder in ("_base", "_native"):
        (copy / folder).mkdir(parents=True)
    (copy / "__init__.py").touch()
    for name in ("_version.py", "_base/__init__.py", "_base/gil.py", "_native/__init__.py", "_native/sources.py"):
        shutil.copy(PACKAGE / name, copy / name)
    (copy / "_native/meter.c").write_text("/* a meter */\n", encoding="utf-8")
    return copy


def compiled(package: Path, *, version: str | None = None, sources: str | None = None) -> None:
    """Let a module in Python take the place of the compiled one, with what is compiled into that."""
    version = version or _native.__version__
    sources = sources or str(checksum(package / "_native"))
    (package / "_native/_meter.py").write_text(
        f"VERSION, SOURCES = {version!r}, {sources!r}\n"
        "def __getattr__(name):\n"  # it has all that the package takes from it
        "    if name.startswith('__'):\n"
        "        raise AttributeError(name)\n",
        encoding="utf-8",
    )


def loaded(package: Path, meter: str = "", before: str = "") -> tuple[int, str, str]:
    """Return the exit code, what was printed, and the last line on stderr, of a process that imports the package.

    before: statements that the process runs first.
    """
    done = subprocess.run(
        [sys.executable, "-S", "-c", before + SHOWN],
        env={**os.environ, "PYTHONPATH": str(package.parent), "OPENRTC_INTROSPECT_METER": meter},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout.strip(), done.stderr.strip().rpartition("\n")[2]


@loads
def test_the_one_in_c_is_used_if_it_is_there(package: Path) -> None:
    """It is of this version, and of these sources."""
    compiled(package)
    assert loaded(package) == (0, "C|None", "")


@loads
def test_in_a_wheel_there_are_no_sources_to_compare(package: Path) -> None:
    """The version is compared still."""
    compiled(package, sources="of another machine")
    (package / "_native/meter.c").unlink()
    assert loaded(package) == (0, "C|None", "")


def test_the_one_in_python_is_used_if_no_other_is_installed(package: Path) -> None:
    """This is no trouble."""
    assert loaded(package) == (0, "Python|None", "")


def test_the_one_in_python_is_used_if_the_environment_asks_for_it(package: Path) -> None:
    """Then the one in C is not even looked at."""
    compiled(package, version="0.0.1")
    assert loaded(package, "python") == (0, "Python|None", "")


def test_the_one_in_c_is_not_loaded_on_a_free_threaded_python(package: Path) -> None:
    """3.13t looks for modules of the stable ABI, too, and would crash."""
    compiled(package)
    assert loaded(package, before=FREE_THREADED) == (0, "Python|None", "")


@loads
def test_one_of_another_version_is_an_error_at_import(package: Path) -> None:
    """The error names both versions and what to do."""
    compiled(package, version="0.0.1")
    code, _, error = loaded(package)
    assert code == 1
    assert error == (
        f"ImportError: openrtc-introspect-core is {_native.__version__} and its meter in C is 0.0.1: "
        "install openrtc-introspect-core again"
    )


@loads
def test_one_of_other_sources_is_not_used(package: Path) -> None:
    """The trouble says what to do: someone has changed the sources, and not compiled them."""
    compiled(package)
    with (package / "_native/meter.c").open("a", encoding="utf-8") as source:
        source.write("/* changed */\n")
    code, shown, _ = loaded(package)
    assert code == 0
    assert shown.startswith("Python|the meter in C was compiled from other sources than those beside it")
    assert shown.endswith("install openrtc-introspect-core again")


@loads
def test_one_that_cannot_be_loaded_is_not_used(package: Path) -> None:
    """The trouble has Python's own words."""
    (package / "_native/_meter.py").write_text("raise ImportError('undefined symbol: x')\n", encoding="utf-8")
    assert loaded(package) == (
        0,
        "Python|the meter in C cannot be loaded, the one in Python is used: undefined symbol: x",
        "",
    )


def test_these_tests_run_with_the_meter_that_is_installed() -> None:
    """If this fails, the sources in C have changed since it was compiled: install core again."""
    assert _native.trouble is None
    if _native.native is not None:
        assert checksum(SOURCES) == _native.native.SOURCES
