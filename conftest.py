"""What all suites share: their workers have a place of their own, and the shell they are run from changes nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pytest

OF_THE_SHELL = (
    *("CI", "BUILD_NUMBER", "GITHUB_ACTIONS", "COLUMNS", "LINES"),
    *("FORCE_COLOR", "PY_COLORS", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"),
    "PYTHONDONTWRITEBYTECODE",
)
"""By these pytest, typer and rich tell what they write to: a CI's log is coloured otherwise, and not cut. With
pytest-xdist, COLUMNS and LINES are set in its workers, as readline sets them in the process that starts these.

By the last, each of the hundreds of processes that the tests start would compile all that it imports."""


@pytest.fixture(scope="session", autouse=True)
def nothing_of_the_shell() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in OF_THE_SHELL:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def runtime_dir_of_the_run() -> Iterator[None]:
    """Where workers serve, and are looked for first. Not in $TMPDIR: it may be too long for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="ort", dir="/tmp") as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENRTC_RUNTIME_DIR", directory)
        yield
