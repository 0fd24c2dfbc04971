from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from openrtc_introspect_core import Snapshot, read_snapshot
from openrtc_introspect_core.wire import discover

EXAMPLES = Path(__file__).parent.parent / "examples"
DEADLINE_S = 30.0


def snapshot_of(name: str) -> Snapshot | None:
    found = [worker for worker in discover() if worker.name == name]
    return read_snapshot(found[0].path) if found else None


@pytest.mark.slow
def test_the_attach_example_shows_who_makes_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its four callers are there, the one that computes is slow by name, and it ends by itself."""
    with tempfile.TemporaryDirectory(prefix="rt") as directory:
        monkeypatch.setenv("OPENRTC_RUNTIME_DIR", directory)
        command = [sys.executable, str(EXAMPLES / "attach.py"), "--seconds", "4"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + DEADLINE_S
            snapshot = None
            while process.poll() is None and time.monotonic() < deadline:
                snapshot = snapshot_of("attached") or snapshot
                if snapshot is not None and any(row.blocks for row in snapshot.sessions):
                    break
                time.sleep(0.05)
            output, errors = process.communicate(timeout=DEADLINE_S)
    assert snapshot is not None
    assert {row.session_id for row in snapshot.sessions} == {"call-1", "call-2", "call-3", "call-4"}
    worst = max(snapshot.sessions, key=lambda row: row.worst_block_ms)
    assert (worst.session_id, worst.status in ("slow", "blocked")) == ("call-2", True)
    assert process.returncode == 0
    assert "answers; the loop was blocked" in output
    assert "[slow-session] session_id=call-2 blocked event loop for" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_the_threads_example_tells_the_loops_apart() -> None:
    """Only the loop whose caller asks for reports is blocked, and the log says by whom."""
    command = [sys.executable, str(EXAMPLES / "threads.py"), "--seconds", "4"]
    with tempfile.TemporaryDirectory(prefix="rt") as directory:
        done = subprocess.run(
            command,
            env=os.environ | {"OPENRTC_RUNTIME_DIR": directory},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=True,
        )
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0].partition(" in ")[2] for line in lines].count("desk-2") == 1
    assert len(lines) == 4
    assert any("in desk-2: 2 sessions, blocked" in line and "blocked 0 times" not in line for line in lines)
    assert "[slow-session] session_id=call-2b blocked event loop for" in done.stderr
    assert "Traceback" not in done.stderr
