"""The examples without other libraries show the session that blocks, and end by themselves."""

from __future__ import annotations

import subprocess
import sys

import pytest
from example_runs import EXAMPLES, run_example

from openrtc_introspect_core import Snapshot

pytestmark = [pytest.mark.slow, pytest.mark.program]

DEADLINE_S = 120.0


def test_the_attach_example_shows_who_makes_reports() -> None:
    """It has four callers, the one that computes is slow, and it ends by itself."""

    def all_are_there(snapshot: Snapshot) -> bool:
        statuses = {row.session_id: row.status for row in snapshot.sessions}
        return len(statuses) == 4 and statuses.get("call-2") in ("slow", "blocked")

    run = run_example("attach.py", "--seconds", "6", worker="attached", within_s=DEADLINE_S, until=all_are_there)
    rows = {row.session_id: row for row in run.snapshot.sessions}
    assert rows.keys() == {"call-1", "call-2", "call-3", "call-4"}
    assert rows["call-2"].status in ("slow", "blocked")
    assert run.returncode == 0
    assert "answers; the loop was blocked" in run.output
    assert "[slow-session] session_id=call-2 blocked event loop for" in run.errors
    assert "Traceback" not in run.errors


def test_the_threads_example_blocks_one_of_its_loops() -> None:
    """Only the loop of the caller that asks for reports is blocked, and the log names that session."""
    command = [sys.executable, str(EXAMPLES / "threads.py"), "--seconds", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0].partition(" in ")[2] for line in lines].count("desk-2") == 1
    assert len(lines) == 4
    assert any("in desk-2: 2 sessions, blocked" in line and "blocked 0 times" not in line for line in lines)
    assert "[slow-session] session_id=call-2b blocked event loop for" in done.stderr
    assert "Traceback" not in done.stderr
