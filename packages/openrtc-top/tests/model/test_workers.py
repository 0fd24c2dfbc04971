"""Workers that are found, heard, lost, started anew and forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from openrtc_introspect_core.black_box import LoopState
from openrtc_introspect_core.wire import Block, SessionRow, Snapshot
from openrtc_top._model import workers as fleet
from openrtc_top._model.box_reading import BoxReading
from openrtc_top._model.history import HISTORY_S, of_session
from openrtc_top._model.workers import Worker, Workers

MakeSession = Callable[..., SessionRow]
MakeSnapshot = Callable[..., Snapshot]


def keys(workers: Workers) -> list[str]:
    return [worker.key for worker in workers]


def test_when_it_is_tried_again(make_snapshot: MakeSnapshot) -> None:
    """By the view's clock; a worker that is heard again is not gone."""
    workers = fleet.with_snapshot((), "w", make_snapshot(), 1.0)
    workers = fleet.with_lost(workers, "w", "no connection", 2.0, 10.0)
    assert (workers[0].gone_at, workers[0].retry_at) == (10.0, 12.0)
    workers = fleet.with_lost(workers, "w", "no connection", 4.0, 12.0)
    assert (workers[0].gone_at, workers[0].retry_at) == (10.0, 16.0)
    (worker,) = fleet.with_snapshot(workers, "w", make_snapshot(), 16.0)
    assert (worker.gone, worker.gone_at, worker.retry_at) == (None, None, None)


@pytest.mark.parametrize(
    ("name", "started_at", "left"),
    [("voice-a", 1001.0, ["new"]), ("voice-a", 900.0, ["new", "old"]), ("voice-b", 1001.0, ["old", "new"])],
)
def test_a_worker_started_anew(name: str, started_at: float, left: list[str], make_snapshot: MakeSnapshot) -> None:
    """It stands for the one that is gone: it has its name, and began after the other was last heard."""
    workers = fleet.with_snapshot((), "old", make_snapshot(pid=9), 0.0)
    workers = fleet.with_lost(workers, "old", "no connection", None, 1.0)
    newcomer = make_snapshot(name=name, pid=8, started_at=started_at, taken_at=1002.0)
    assert keys(fleet.with_snapshot(workers, "new", newcomer, 2.0)) == left


def test_one_newcomer_stands_for_one(make_snapshot: MakeSnapshot) -> None:
    """Of two that are gone the second stays in sight; one that lives is never replaced."""
    workers: Workers = ()
    for pid, key in enumerate("abc", start=1):
        workers = fleet.with_snapshot(workers, key, make_snapshot(pid=pid), 0.0)
    workers = fleet.with_lost(workers, "b", "no connection", None, 2.0)
    workers = fleet.with_lost(workers, "a", "no connection", None, 3.0)
    newcomer = make_snapshot(pid=4, started_at=1001.0, taken_at=1002.0)
    workers = fleet.with_snapshot(workers, "d", newcomer, 4.0)
    assert keys(workers) == ["a", "c", "d"]
    assert keys(fleet.with_snapshot(workers, "d", newcomer, 5.0)) == ["a", "c", "d"]


def test_the_host_stays_known(make_snapshot: MakeSnapshot) -> None:
    """It comes with the finding, and a snapshot does not hold it."""
    workers = fleet.with_found((), "w", "voice", 7, "voice-3")
    assert fleet.with_snapshot(workers, "w", make_snapshot(), 0.0)[0].host == "voice-3"


def test_a_sessions_last_minute(make_snapshot: MakeSnapshot, make_session: MakeSession) -> None:
    """One value a second, the first of it; unknown ones are left out, and a restart begins anew."""

    def frame(taken_at: float, cpu: float | None, epoch: str = "first") -> Snapshot:
        rows = [make_session("other"), make_session("b", cpu_pct=cpu, mem_mb=taken_at / 100)]
        return make_snapshot(*rows[taken_at > 1050 :], taken_at=taken_at, epoch=epoch)

    workers: Workers = ()
    for step in range(200):
        workers = fleet.with_snapshot(workers, "w", frame(1000.0 + step / 2, None if step == 199 else step), 0.0)
    cpu, mem = of_session(workers[0].trail, "b")
    assert len(mem) == len(workers[0].trail) == HISTORY_S
    assert cpu[-1] == (1099, 198.0)
    assert mem[0] == (1040, pytest.approx(10.4))
    assert of_session(workers[0].trail, "other")[0][-1][0] == 1050
    assert of_session(workers[0].trail, "nobody") == ((), ())
    unknown = fleet.with_snapshot(workers, "w", frame(1100.0, None, "second"), 0.0)[0].trail
    assert of_session(unknown, "b") == ((), ((1100, pytest.approx(11.0)),))


def test_seconds_share_their_ids(make_snapshot: MakeSnapshot, make_session: MakeSession) -> None:
    """Of ten thousand sessions sixty lists of names would be much."""
    workers: Workers = ()
    for second in range(3):
        rows = [make_session("a"), make_session("b")][: 2 - second // 2]
        workers = fleet.with_snapshot(workers, "w", make_snapshot(*rows, taken_at=1000.0 + second), 0.0)
    first, other, third = workers[0].trail
    assert first.ids is other.ids
    assert third.ids == ("a",)


# --- workers that do not answer ------------------------------------------------------------------


def boxed(snapshot: Snapshot, **fields: Any) -> BoxReading:
    given = {
        "box": "/b",
        "worker": "w",
        "pid": 7,
        "alive": True,
        "now": 1009.0,
        "at": 1009.0,
        "loops": [LoopState()],
        **fields,
    }
    return BoxReading(snapshot=snapshot, **given)


def only(workers: Workers) -> Worker:
    (worker,) = workers
    return worker


def test_a_free_loop_changes_nothing(make_snapshot: MakeSnapshot) -> None:
    """A worker that is slow to answer keeps its last frame: the view does not flicker."""
    before = fleet.with_snapshot((), "w", make_snapshot(taken_at=1000.0), 100.0)
    assert fleet.with_reading(before, "w", boxed(make_snapshot(taken_at=1001.9)), 100.3) is before
    assert fleet.with_reading(before, "w", boxed(make_snapshot(taken_at=900.0)), 100.3) is before


def test_a_much_newer_snapshot_is_shown(make_snapshot: MakeSnapshot) -> None:
    """With its age, and not as that of a frozen worker."""
    before = fleet.with_snapshot((), "w", make_snapshot(taken_at=1000.0), 100.0)
    worker = only(fleet.with_reading(before, "w", boxed(make_snapshot(taken_at=1008.0)), 110.0))
    assert worker.snapshot is not None
    assert (worker.snapshot.taken_at, worker.heard_at, worker.frozen) == (1008.0, 109.0, False)


def test_a_first_reading_is_shown(make_snapshot: MakeSnapshot, make_past: Callable[..., Block]) -> None:
    """There is nothing better; the blocks that it has are known then."""
    found = fleet.with_found((), "w", "w", 7, None)
    worker = only(fleet.with_reading(found, "w", boxed(make_snapshot(taken_at=1000.0), blocks=[make_past(3)]), 50.0))
    assert (worker.heard_at, worker.frozen) == (41.0, False)
    assert [block.seq for block in worker.blocks] == [3]


def test_a_held_loop_is_shown(make_snapshot: MakeSnapshot, make_block: Callable[..., Block]) -> None:
    """The worker is frozen, also if it was taken for gone; its frame keeps its age."""
    before = fleet.with_snapshot((), "w", make_snapshot(taken_at=1000.0), 100.0)
    gone = fleet.with_lost(before, "w", "it does not answer", 1.0, 108.0)
    worker = only(fleet.with_reading(gone, "w", boxed(make_snapshot(taken_at=999.5, blocks=[make_block()])), 109.0))
    assert worker.snapshot is not None
    assert (worker.gone, worker.frozen, worker.heard_at) == (None, True, 100.0)
    assert len(worker.snapshot.blocks_in_progress) == 1
    assert only(fleet.with_lost((worker,), "w", "it closed the connection", 1.0, 110.0)).frozen is False
    assert only(fleet.with_snapshot((worker,), "w", make_snapshot(taken_at=1010.0), 110.0)).frozen is False


def test_a_loop_that_is_free_again(make_snapshot: MakeSnapshot, make_block: Callable[..., Block]) -> None:
    """The block is over by the box, before the worker answers."""
    held = fleet.with_reading((), "w", boxed(make_snapshot(blocks=[make_block()])), 100.0)
    worker = only(fleet.with_reading(held, "w", boxed(make_snapshot()), 100.5))
    assert worker.snapshot is not None
    assert (worker.frozen, worker.snapshot.blocks_in_progress) == (False, [])
