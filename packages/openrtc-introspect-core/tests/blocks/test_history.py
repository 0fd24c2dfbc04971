from __future__ import annotations

import pytest

from openrtc_introspect_core import Location
from openrtc_introspect_core._base.clock import WallTime
from openrtc_introspect_core._base.log import flush
from openrtc_introspect_core._blocks.history import MAX_KEPT, BlockHistory
from openrtc_introspect_core._sessions.session import Session
from openrtc_introspect_testing._loops.fake_clock import FakeClock


def log() -> BlockHistory:
    return BlockHistory(WallTime(FakeClock()), slow_status_s=5.0)


def session(session_id: str = "job-c1d550") -> Session:
    return Session(session_id, "restaurant", {"tenant": "acme"}, started=0.0)


def test_a_block_carries_its_session_and_the_session_its_block() -> None:
    """The block has the session; the session has its count, its worst block and until when it shows as slow."""
    blocks, one = log(), session()
    block = blocks.record(one, 1.0, 1.32, task_name="lookup")
    blocks.record(one, 2.0, 2.1)
    assert (block.seq, block.session_id, block.agent_name, block.tenant) == (
        1,
        "job-c1d550",
        "restaurant",
        "acme",
    )
    assert (block.task_name, round(block.duration_ms), block.in_progress) == ("lookup", 320, False)
    assert (one.blocks, round(one.worst_block, 9), one.slow_until) == (2, 0.32, 7.1)


def test_the_log_line_starts_like_the_documented_one(caplog: pytest.LogCaptureFixture) -> None:
    """`[slow-session] session_id=… blocked event loop for …ms`, WARNING, on openrtc.introspect."""
    log().record(session(), 1.0, 1.32)
    assert flush(60.0)
    (record,) = caplog.records
    assert record.getMessage() == "[slow-session] session_id=job-c1d550 blocked event loop for 320ms"
    assert (record.name, record.levelname) == ("openrtc.introspect", "WARNING")


def test_the_log_line_goes_on_with_where_and_why(caplog: pytest.LogCaptureFixture) -> None:
    """`at file:line in function (cause)`, and what more there is to say of the cause."""
    blocks = log()
    where = Location("agents/restaurant.py", 42, "lookup_menu")
    blocks.record(session(), 1.0, 1.32, cause="sync-call", location=where)
    blocks.record(session("other"), 1.0, 1.32, cause="import", detail="numpy")
    assert flush(60.0)
    assert [record.getMessage() for record in caplog.records] == [
        "[slow-session] session_id=job-c1d550 blocked event loop for 320ms"
        " at agents/restaurant.py:42 in lookup_menu (sync-call)",
        "[slow-session] session_id=other blocked event loop for 320ms (import: numpy)",
    ]


def test_a_block_of_no_session_names_none(caplog: pytest.LogCaptureFixture) -> None:
    """Its line has another start, so that a search for culprits does not find it."""
    block = log().record(None, 1.0, 1.1)
    assert (block.session_id, block.agent_name, block.tenant) == (None, None, None)
    assert flush(60.0)
    assert caplog.records[0].getMessage() == "[slow-loop] event loop blocked for 100ms by no session"


def test_lines_are_limited_per_session_and_the_next_counts_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    """One session's flood hides neither itself nor another's line."""
    blocks, one = log(), session()
    for n in range(5):
        blocks.record(one, 1.0 + n / 10, 1.1 + n / 10)
    blocks.record(session("other"), 1.5, 1.6)
    blocks.record(one, 3.0, 3.1)
    assert flush(60.0)
    assert [record.getMessage() for record in caplog.records] == [
        "[slow-session] session_id=job-c1d550 blocked event loop for 100ms",
        "[slow-session] session_id=other blocked event loop for 100ms",
        "[slow-session] session_id=job-c1d550 blocked event loop for 100ms (and 4 more since the last line)",
    ]


def test_the_history_is_bounded_and_numbers_go_on() -> None:
    """The last 256 are kept; `since` gives the newer ones, oldest first."""
    blocks, one = log(), session()
    for n in range(MAX_KEPT + 10):
        blocks.record(one, float(n), n + 0.1)
    kept = blocks.since(0)
    assert (len(kept), kept[0].seq, kept[-1].seq, blocks.last_seq) == (MAX_KEPT, 11, MAX_KEPT + 10, MAX_KEPT + 10)
    assert [block.seq for block in blocks.since(MAX_KEPT + 8)] == [MAX_KEPT + 9, MAX_KEPT + 10]


def test_ids_of_sessions_long_gone_are_forgotten() -> None:
    """The memory of when a session was logged does not grow with the number of past sessions."""
    blocks = log()
    for n in range(3 * MAX_KEPT):
        blocks.record(session(f"job-{n}"), n * 10.0, n * 10.0 + 0.1)
    assert len(blocks._lines) <= MAX_KEPT


def test_what_a_terminal_would_act_upon_is_written_out(caplog: pytest.LogCaptureFixture) -> None:
    """An id with an escape in it does not reach the log raw."""
    log().record(session("a\x1b[31mb"), 1.0, 1.1)
    assert flush(60.0)
    assert caplog.records[0].getMessage() == "[slow-session] session_id=a\\x1b[31mb blocked event loop for 100ms"
