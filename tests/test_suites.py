"""Run the comparison of `nox -s suites` on a suite of three tests."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

INSTALLED = any(entry.name == "openrtc_introspect" for entry in entry_points(group="pytest11"))
pytestmark = [
    pytest.mark.program,
    pytest.mark.skipif(not INSTALLED, reason="the packages are not installed"),
]

HERE = Path(__file__).with_name("suites")

ALIKE = """
import asyncio

def test_ends_alike():
    asyncio.run(asyncio.sleep(0))
"""
DIFFERENT = """
import asyncio

async def a_method_is_replaced():
    return "create_task" in vars(asyncio.get_running_loop())

def test_knows_that_it_is_watched():
    assert not asyncio.run(a_method_is_replaced())
"""
FAILING = """
def test_fails_alike():
    assert False
"""


def compared(folder: Path) -> subprocess.CompletedProcess[str]:
    """Compare the tests in `folder` with the settings for Starlette's."""
    command = [sys.executable, str(HERE / "compare.py"), "starlette", str(folder), "-p", "no:anyio", "."]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, stdin=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_test_that_ends_alike_is_not_reported(tmp_path: Path) -> None:
    """A test that fails with metering and without does not differ, and each way sees the loops."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (tmp_path / "test_it.py").write_text(ALIKE + ALIKE.replace("alike", "so_too") + FAILING, encoding="utf-8")
    done = compared(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "plain: 2 passed, 1 failed" in done.stdout
    assert set(re.findall(r": (\d+) loops, (\d+) tests differ", done.stdout)) == {("2", "0")}


@pytest.mark.slow
def test_a_test_that_ends_otherwise_with_metering_is_reported(tmp_path: Path) -> None:
    """The report names its node id and both outcomes, for each way."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (tmp_path / "test_it.py").write_text(ALIKE + DIFFERENT, encoding="utf-8")
    done = compared(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    for way in ("Python meter", "pytest plugin"):
        assert f"{way}: test_it.py::test_knows_that_it_is_watched: passed, metered failed" in done.stdout
    assert "test_ends_alike" not in done.stdout


@pytest.mark.slow
def test_a_suite_that_cannot_run_is_a_failure(tmp_path: Path) -> None:
    """A comparison of nothing is not a comparison without differences."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (tmp_path / "test_it.py").write_text("import a_module_that_is_not_there\n", encoding="utf-8")
    done = compared(tmp_path)
    assert done.returncode == 1
    assert "nothing to compare" in done.stdout


def test_each_suite_is_pinned_and_gives_reasons_for_differences() -> None:
    """Two runs of a suite are comparable, and no difference is accepted without a reason."""
    for name, suite in tomllib.loads((HERE / "suites.toml").read_text(encoding="utf-8")).items():
        assert re.fullmatch(r"[a-z-]+ == [\d.]+", suite["package"]), name
        assert suite["pytest"], name
        assert all(suite.get("differs", {"-": "-"}).values()), name
