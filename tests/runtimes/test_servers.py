"""The server examples: each connection is a session, and the one that blocks is found."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from openrtc_introspect_core import Snapshot, read_snapshot
from openrtc_introspect_core.wire import discover

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
WITHIN_S = 60.0


def snapshot_of(name: str) -> Snapshot | None:
    found = [worker for worker in discover() if worker.name == name]
    return read_snapshot(found[0].path) if found else None


@pytest.mark.parametrize("library", ["aiohttp", "websockets"])
def test_each_connection_is_a_session(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight of them; the reports are the third one's, and its line is in the log."""
    pytest.importorskip(library)
    with tempfile.TemporaryDirectory(prefix="rt") as directory:
        monkeypatch.setenv("OPENRTC_RUNTIME_DIR", directory)
        command = [sys.executable, str(EXAMPLES / f"{library}_server.py"), "--seconds", "6"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + WITHIN_S
            snapshot = None
            while process.poll() is None and time.monotonic() < deadline:
                snapshot = snapshot_of(library) or snapshot
                if snapshot is not None and any(row.blocks for row in snapshot.sessions):
                    break
                time.sleep(0.05)
            output, errors = process.communicate(timeout=WITHIN_S)
    assert snapshot is not None
    assert {row.session_id for row in snapshot.sessions} == {f"call-{number}" for number in range(8)}
    assert process.returncode == 0
    assert "answers to 8 callers" in output
    assert "[slow-session] session_id=call-3 blocked event loop for" in errors
    assert "read_archive" in errors
    assert "Traceback" not in errors
