"""What all suites share: their workers have a place of their own, and see no others of this user."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def runtime_dir_of_the_run() -> Iterator[None]:
    """Where workers serve, and are looked for first. Not in $TMPDIR: it may be too long for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="ort", dir="/tmp") as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENRTC_RUNTIME_DIR", directory)
        yield
