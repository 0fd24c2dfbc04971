"""Fixtures of all suites: workers serve in a directory of the run, and the caller's shell has no influence."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SHELL_VARIABLES = (
    *("CI", "BUILD_NUMBER", "GITHUB_ACTIONS", "COLUMNS", "LINES"),
    *("FORCE_COLOR", "PY_COLORS", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"),
    "PYTHONDONTWRITEBYTECODE",
)
"""Environment variables that would change results or running time.

pytest, typer and rich choose colours and widths by all but the last. COLUMNS and LINES are set in the workers of
pytest-xdist: readline sets them in the process that starts these. With the last, each of the hundreds of processes that
the tests start would compile every module that it imports.
"""

ROOT = Path(__file__).parent
LONGEST = (
    "tests/runbooks/test_runbooks.py",
    "tests/waiting/test_findings.py",
    "packages/openrtc-introspect-core/tests/test_fault_injection.py",
    "packages/openrtc-top/tests/tui/test_live.py",
    "tests/test_conformance.py",
    "tests/test_adversaries.py",
    "packages/openrtc-introspect-core/tests/native/test_stall_thread.py",
    "packages/openrtc-introspect-core/tests/blocks/test_rival_threads.py",
    "packages/openrtc-introspect-core/tests/blocks/test_real_steps.py",
    "tests/test_soak.py",
    "packages/openrtc-top/tests/cli/test_frozen.py",
    "packages/openrtc-introspect-testing/tests/suite/test_plugin.py",
    "packages/openrtc-top/tests/cli/test_diagnose.py",
    "packages/openrtc-introspect-core/tests/test_host_faults.py",
    "packages/openrtc-introspect-core/tests/blocks/test_watchdog.py",
    "packages/openrtc-top/tests/relay/test_near_side.py",
    "packages/openrtc-introspect-core/tests/service/test_attached_loops.py",
    "packages/openrtc-top/tests/cli/test_dev.py",
    "packages/openrtc-introspect-core/tests/run/test_same_as_plain.py",
    "packages/openrtc-introspect-testing/tests/blockers/test_blockers.py",
)
"""The files whose tests take ten seconds or more, longest first. In several processes these files begin first."""

if os.name == "posix":
    # Tests put sockets below tmp_path and tempfile's folders, and a socket's path has 107 bytes at most. The caller's
    # $TMPDIR may be longer than that, so neither pytest nor the processes that tests start are told of it.
    tempfile.tempdir = os.environ["TMPDIR"] = "/tmp"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first in the processes of pytest-xdist, so that none is left over at the end."""
    ranks = {(ROOT / name).resolve(strict=True): rank for rank, name in enumerate(LONGEST)}
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Have collections of garbage visit what tests make, not the half million objects of the tests themselves.

    Hypothesis asks `gc.get_referrers`, which sees no frozen objects, for those of each generator of random numbers that
    it is to manage. It finds them in its first run, so that one comes before.
    """
    if "hypothesis" in sys.modules:
        draw_once()
    gc.collect()
    gc.freeze()


def draw_once() -> None:
    """Run Hypothesis once."""
    from hypothesis import given, strategies

    @given(strategies.none())
    def draw(_: None) -> None: ...

    draw()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """Let `gc.get_referrers` see them again: Hypothesis may ask for those of Trio's when the run ends."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def independent_of_the_shell() -> Iterator[None]:
    """Remove the variables of the shell that would change the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in SHELL_VARIABLES:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def runtime_dir_of_the_run() -> Iterator[None]:
    """Set the directory that workers serve in."""
    with tempfile.TemporaryDirectory(prefix="ort") as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENRTC_RUNTIME_DIR", directory)
        yield
