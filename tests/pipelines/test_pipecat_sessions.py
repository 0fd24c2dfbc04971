"""The pipecat example: ten sessions, and the one that blocks is found."""

from __future__ import annotations

import re

import pytest
from example_runs import run_example

from openrtc_introspect_core import Snapshot

pytestmark = pytest.mark.slow

WITHIN_S = 120.0
"""Long enough to import pipecat on a busy machine."""


def test_the_example_needs_two_lines() -> None:
    """Each pipeline is a session, and the one that reads the archive is named, with the line."""

    def all_are_there(snapshot: Snapshot) -> bool:
        rows = {row.session_id: row for row in snapshot.sessions}
        return len(rows) == 10 and all(row.tasks for row in rows.values()) and rows["call-3"].worst_block_ms >= 300

    run = run_example("pipecat_sessions.py", "--seconds", "8", worker="pipecat", within_s=WITHIN_S, until=all_are_there)
    rows = {row.session_id: row for row in run.snapshot.sessions}
    assert rows.keys() == {f"call-{number}" for number in range(10)}
    assert {row.tenant for row in rows.values()} == {"acme", "globex"}
    assert all(row.tasks for row in rows.values())
    assert run.returncode == 0
    assert re.fullmatch(r"\d+ words to 10 callers\n", run.output)
    assert re.search(
        r"\[slow-session\] session_id=call-3 blocked event loop for .* at .*pipecat_sessions.py:\d+ in read_archive",
        run.errors,
    )
    assert "Traceback" not in run.errors
