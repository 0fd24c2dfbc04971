"""The server examples: each connection is a session, and the session that blocks is found."""

from __future__ import annotations

import re

import pytest
from example_runs import run_example

from openrtc_introspect_core import Snapshot

pytestmark = pytest.mark.slow

WITHIN_S = 60.0


def test_the_fastapi_example_needs_two_lines() -> None:
    """Each connection is a session with an id of its own, and the one that reads the archive is named."""

    def all_are_there(snapshot: Snapshot) -> bool:
        return len(snapshot.sessions) == 8 and any(row.worst_block_ms >= 300 for row in snapshot.sessions)

    run = run_example("fastapi_server.py", "--seconds", "8", worker="fastapi", within_s=WITHIN_S, until=all_are_there)
    rows = run.snapshot.sessions
    assert {row.agent_name for row in rows} == {"/calls/*"}
    assert len(rows) == 8
    assert run.returncode == 0
    assert "answers to 8 callers" in run.output
    culprits = set(re.findall(r"session_id=(\S+) blocked event loop for .* in read_archive", run.errors))
    assert len(culprits) == 1
    assert culprits <= {row.session_id for row in rows}
    assert "Traceback" not in run.errors


@pytest.mark.parametrize("library", ["aiohttp", "websockets"])
def test_each_connection_is_a_session(library: str) -> None:
    """There are eight. The third one asks for reports, and the log names it."""
    pytest.importorskip(library)

    def all_are_there(snapshot: Snapshot) -> bool:
        blocks = {row.session_id: row.blocks for row in snapshot.sessions}
        return len(blocks) == 8 and blocks.get("call-3", 0) > 0

    run = run_example(f"{library}_server.py", "--seconds", "6", worker=library, within_s=WITHIN_S, until=all_are_there)
    assert {row.session_id for row in run.snapshot.sessions} == {f"call-{number}" for number in range(8)}
    assert run.returncode == 0
    assert "answers to 8 callers" in run.output
    assert "[slow-session] session_id=call-3 blocked event loop for" in run.errors
    assert "read_archive" in run.errors
    assert "Traceback" not in run.errors
