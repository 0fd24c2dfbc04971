"""The example of LiveKit jobs: four sessions, and the one that blocks is found."""

from __future__ import annotations

import re

import pytest
from example_runs import run_example

from openrtc_introspect_core import Snapshot

pytestmark = pytest.mark.slow

WITHIN_S = 120.0
"""Long enough to import livekit-agents on a busy machine."""


def test_the_example_needs_two_lines() -> None:
    """Each job is a session, on the loop of its thread, and the one that reads the menu is named, with the line."""

    def all_are_there(snapshot: Snapshot) -> bool:
        rows = snapshot.sessions
        return len(rows) == 4 and all(row.tasks for row in rows) and any(row.worst_block_ms >= 300 for row in rows)

    run = run_example(
        "livekit_jobs.py", "--seconds", "15", worker="livekit-jobs", within_s=WITHIN_S, until=all_are_there
    )
    rows = run.snapshot.sessions
    assert len({row.loop for row in rows}) == 4
    culprits = set(re.findall(r"session_id=(\S+) blocked .* at .*livekit_jobs\.py:\d+ in lookup_menu", run.errors))
    assert len(culprits & {row.session_id for row in rows}) == 1
    assert run.returncode == 0
    assert run.output == "4 callers were served\n"
    assert "Traceback" not in run.errors
