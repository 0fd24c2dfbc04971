"""The diagnosis in the live view, by the rules of `openrtc diagnose`."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from openrtc_introspect_core.wire import LeftBehind, SessionRow, Snapshot
from openrtc_top._model.diagnosis import MAX_SESSIONS, MAX_SNAPSHOTS, Diagnosis
from openrtc_top._model.events import Frame
from openrtc_top._model.reducer import reduce
from openrtc_top._model.state import State
from openrtc_top._view.alert import alert
from openrtc_top._view.text import line_to_text

MakeSession = Callable[..., SessionRow]
MakeSnapshot = Callable[..., Snapshot]


def growing(make_snapshot: MakeSnapshot, make_session: MakeSession, seconds: int) -> list[Snapshot]:
    """A worker whose one session begins twenty tasks a second and ends none."""
    frames = []
    for second in range(seconds):
        row = make_session("job-1", tasks=10 + 20 * second, duration_s=600.0 + second)
        frames.append(msgspec.structs.replace(make_snapshot(row), taken_at=1000.0 + second))
    return frames


def test_what_is_wrong_is_found_after_some_snapshots(make_snapshot: MakeSnapshot, make_session: MakeSession) -> None:
    """By the same rules as `openrtc diagnose`."""
    diagnosis = Diagnosis()
    for frame in growing(make_snapshot, make_session, 6):
        diagnosis = diagnosis.after(frame, ())
    assert [found.code for found in diagnosis.findings] == ["tasks-grow"]


def test_the_live_view_shows_the_worst_of_it(make_snapshot: MakeSnapshot, make_session: MakeSession) -> None:
    """The line of what is wrong now shows it, if nothing is more urgent."""
    state = State()
    for frame in growing(make_snapshot, make_session, 6):
        state = reduce(state, Frame("w", frame))
    (line,) = alert(state, 120)
    assert line_to_text(line, 120, color=False).startswith(" WARNING  the tasks of job-1 only grow")
    assert "openrtc runbook memory-pressure" in line_to_text(line, 120, color=False)
    blocked = make_snapshot(make_session("job-1", status="slow", blocks=1, worst_block_ms=80.0))
    (line,) = alert(reduce(state, Frame("w", msgspec.structs.replace(blocked, taken_at=1010.0))), 120)
    assert line_to_text(line, 120, color=False).startswith(" SLOW")


def test_the_live_view_shows_what_an_ended_session_holds(make_snapshot: MakeSnapshot) -> None:
    """Its row is gone: how much, and how long after its end."""
    left = LeftBehind(session_id="job-7", agent_name="dental", ended_at=940.0, heap_mb=21.0, at_least_mb=20.0)
    empty = make_snapshot()
    worker = msgspec.structs.replace(empty.worker, left_behind=[left])
    state = State()
    for taken_at in (999.0, 1000.0):
        state = reduce(state, Frame("w", msgspec.structs.replace(empty, worker=worker, taken_at=taken_at)))
    (line,) = alert(state, 120)
    assert line_to_text(line, 120, color=False).startswith(" WARNING  job-7 still holds 20 MB, 60 s after its end")


def test_only_the_last_snapshots_are_kept(make_snapshot: MakeSnapshot, make_session: MakeSession) -> None:
    """However long the view is open, and however often it is drawn."""
    diagnosis = Diagnosis()
    for frame in growing(make_snapshot, make_session, 20):
        diagnosis = diagnosis.after(frame, ())
        diagnosis = diagnosis.after(msgspec.structs.replace(frame, taken_at=frame.taken_at + 0.1), ())
    assert [frame.taken_at for frame in diagnosis.snapshots] == [
        1000.0 + second for second in range(20 - MAX_SNAPSHOTS, 20)
    ]


def test_a_clock_that_goes_back_begins_anew(make_snapshot: MakeSnapshot, make_session: MakeSession) -> None:
    """A replay is wound back."""
    frames = growing(make_snapshot, make_session, 6)
    diagnosis = Diagnosis()
    for frame in (*frames, frames[1]):
        diagnosis = diagnosis.after(frame, ())
    assert [frame.taken_at for frame in diagnosis.snapshots] == [1000.0, 1001.0]


def test_a_worker_of_many_sessions_is_not_diagnosed(make_snapshot: MakeSnapshot, make_session: MakeSession) -> None:
    """The view would have to keep too much of it."""
    rows = [make_session(f"job-{number}") for number in range(MAX_SESSIONS + 1)]
    assert Diagnosis().after(make_snapshot(*rows), ()) == Diagnosis()


def test_of_many_workers_each_is_diagnosed_less_often(make_snapshot: MakeSnapshot) -> None:
    """So that all of them together cost as much as ten."""
    diagnosis = Diagnosis()
    for second in range(40):
        diagnosis = diagnosis.after(make_snapshot(taken_at=1000.0 + second), (), workers=200)
    assert [snapshot.taken_at for snapshot in diagnosis.snapshots] == [1000.0, 1018.0, 1036.0]
