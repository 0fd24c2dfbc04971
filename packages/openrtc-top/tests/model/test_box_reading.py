"""What follows from the reading of a black box."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from openrtc_introspect_core.black_box import LoopState, MemoryPoint
from openrtc_introspect_core.wire import Block, SessionRow, Snapshot
from openrtc_top._model.box_reading import BoxReading, dead_worker, overlaid

MakeSession = Callable[..., SessionRow]
MakeSnapshot = Callable[..., Snapshot]
MakeBlock = Callable[..., Block]


def reading(snapshot: Snapshot, **fields: Any) -> BoxReading:
    given = {
        "box": "/b",
        "worker": "w",
        "pid": 7,
        "alive": True,
        "now": 1009.0,
        "at": 1008.0,
        "loops": [LoopState()],
        **fields,
    }
    return BoxReading(snapshot=snapshot, **given)


@pytest.mark.parametrize(
    ("points", "trend"),
    [
        ([], 12.2),
        ([(0, 100)], 12.2),
        ([(0, 100), (29, 200)], 12.2),
        ([(0, 100), (60, 160)], 60.0),
        ([(0, 5000), (600, 100), (1200, 300)], 20.0),
    ],
)
def test_trend(points: list[tuple[float, float]], trend: float, make_snapshot: MakeSnapshot) -> None:
    """It is that of the last ten minutes; of less than half a minute it is the worker's own figure."""
    memory = [MemoryPoint(at=at, rss_mb=mb) for at, mb in points]
    assert reading(make_snapshot(), memory=memory).trend_mb_per_min == pytest.approx(trend)


def test_the_memory_is_that_of_the_last_record(make_snapshot: MakeSnapshot) -> None:
    """Without a record of its own it is the snapshot's."""
    assert reading(make_snapshot(), memory=[MemoryPoint(at=1.0, rss_mb=2.0)]).rss_mb == 2.0
    assert reading(make_snapshot()).rss_mb == 1945.0


def test_the_longest_block_counts(make_snapshot: MakeSnapshot, make_block: MakeBlock) -> None:
    """Of several loops that are held."""
    blocks = [make_block(duration_ms=10.0), make_block(duration_ms=20.0)]
    held = reading(make_snapshot(blocks=blocks)).held
    assert held is not None
    assert held.duration_ms == 20.0
    assert reading(make_snapshot()).held is None


def test_the_gil_is_kept(make_snapshot: MakeSnapshot) -> None:
    """By a held loop's own thread or another one, and not by a loop that is free again."""

    def kept(**state: Any) -> bool:
        return reading(make_snapshot(), loops=[LoopState(), LoopState(**state)]).gil_kept

    assert kept(state="held", keeper=1)
    assert kept(state="held", keeper=2)
    assert not kept(state="held", keeper=0)
    assert not kept(state="free", keeper=1)


def test_the_age_is_that_of_the_snapshot(make_snapshot: MakeSnapshot) -> None:
    """Not that of the last record, which may be a loop's; never negative."""
    assert reading(make_snapshot(taken_at=1000.0)).age_s == 9.0
    assert reading(make_snapshot(taken_at=1010.0)).age_s == 0.0


def test_a_dead_worker_in_a_list(make_snapshot: MakeSnapshot, make_block: MakeBlock) -> None:
    """It has what held its loop, without the stack, and how long ago the last record was."""
    held = make_snapshot(blocks=[make_block(stack=[make_block().location])])
    dead = dead_worker(reading(held, alive=False), "alice")
    assert (dead.name, dead.pid, dead.user, dead.age_s, dead.box) == ("w", 7, "alice", 1.0, "/b")
    assert dead.held is not None
    assert (dead.held.session_id, dead.held.stack, dead.held.delayed) == ("job-c1d550", [], None)
    assert dead_worker(reading(held, alive=False, loops=[])).held is None  # that was its last look, and not the end


# --- over what is shown --------------------------------------------------------------------------


def statuses(snapshot: Snapshot) -> dict[str, str]:
    return {row.session_id: row.status for row in snapshot.sessions}


def test_an_older_snapshot_adds_nothing_if_nothing_could_look_since(
    make_snapshot: MakeSnapshot, make_session: MakeSession, make_block: MakeBlock
) -> None:
    """What held the loop then may have ended before the snapshot that is shown."""
    shown = make_snapshot(make_session("job-c1d550"), taken_at=1001.0)
    told = make_snapshot(make_session("job-c1d550"), taken_at=1000.0, blocks=[make_block()])
    assert overlaid(shown, reading(told, loops=[])) is shown
    assert overlaid(shown, reading(told)).blocks_in_progress == [make_block()]


def test_a_newer_snapshot_is_shown_as_it_is(make_snapshot: MakeSnapshot, make_session: MakeSession) -> None:
    """Its rows are newer, too."""
    told = make_snapshot(make_session("new"), taken_at=1001.0)
    assert overlaid(make_snapshot(make_session("old")), reading(told)) is told
    assert overlaid(None, reading(told)) is told


def test_another_start_of_the_worker_is_shown_as_it_is(make_snapshot: MakeSnapshot) -> None:
    """Its rows have nothing to do with those before."""
    told = make_snapshot(taken_at=900.0, epoch="second")
    assert overlaid(make_snapshot(), reading(told)) is told


@pytest.mark.parametrize(("taken_at", "left_out"), [(999.0, 0), (1001.0, 3)])
def test_the_rows_that_are_shown_stay(
    taken_at: float, left_out: int, make_snapshot: MakeSnapshot, make_session: MakeSession, make_block: MakeBlock
) -> None:
    """If they are newer, or the box has no room for all: only what holds the loop is taken from the box."""
    shown = make_snapshot(make_session("a"), make_session("b", status="blocked"))
    block = make_block(session_id="new")
    told = make_snapshot(make_session("a"), make_session("new", status="blocked"), taken_at=taken_at, blocks=[block])
    result = overlaid(shown, reading(told, rows_left_out=left_out))
    assert statuses(result) == {"a": "active", "b": "slow", "new": "blocked"}
    assert (result.taken_at, result.blocks_in_progress) == (1000.0, [block])
