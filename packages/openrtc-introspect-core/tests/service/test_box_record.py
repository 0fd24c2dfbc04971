from __future__ import annotations

import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
from ticking import Ticking

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._native import native
from openrtc_introspect_core._service import box_record
from openrtc_introspect_core.black_box import Box, LoopState, read_box
from openrtc_introspect_core.wire import Location
from openrtc_introspect_testing._loops.backends import Backend, in_task
from openrtc_introspect_testing._loops.fake_clock import FakeClock

if sys.platform == "win32":
    pytest.skip("has no boxes", allow_module_level=True)


def box_of(introspector: Introspector) -> Box:
    """Return what the introspector's black box says."""
    box = parts_of(introspector).shared.box
    assert box is not None
    return read_box(box.path)


def records(ticking: Ticking) -> list[float]:
    """Return the list that the clock readings of records are added to."""
    written: list[float] = []
    box = parts_of(ticking.introspector).shared.box
    assert box is not None
    write = box.write_worker

    def noted(record: bytes) -> None:
        written.append(round(ticking.backend.clock(), 3))
        write(record)

    box.write_worker = noted  # type: ignore[method-assign]
    return written


async def tick_for(ticking: Ticking, seconds: float, every: float = 1.0) -> None:
    for _ in range(round(seconds / every)):
        await anyio.sleep(every)
        ticking.tick()


# --- what it has ---------------------------------------------------------------------------------


def test_it_has_the_snapshot_of_its_moment(virtually: Backend, runtime_dir: Path) -> None:
    """Its rows, the worker, and the memory of now."""

    async def main() -> Any:
        async with Ticking(virtually, name="voice-a") as ticking:
            with ticking.introspector.session("job-1", agent_name="a", metadata={"tenant": "acme"}):
                await anyio.sleep(1)
                ticking.tick()
                return box_of(ticking.introspector), ticking.snapshot()

    box, snapshot = virtually(main())
    assert box.snapshot.sessions == snapshot.sessions
    assert box.snapshot.seq == snapshot.seq - 1
    assert box.snapshot.taken_at == box.recorded_at == pytest.approx(snapshot.taken_at)
    assert (
        (box.snapshot.worker.name, box.snapshot.worker.epoch)
        == ("voice-a", snapshot.worker.epoch)
        == (
            box.worker,
            box.epoch,
        )
    )
    assert (box.memory[-1].rss_mb, box.memory[-1].at) == (snapshot.worker.rss_mb, box.recorded_at)


def test_it_has_the_latest_blocks(virtually: Backend, runtime_dir: Path) -> None:
    """At most 32, oldest first."""

    async def main() -> list[list[int]]:
        async with Ticking(virtually) as ticking:
            seen = []
            with ticking.introspector.session("job-1", agent_name="a"):
                for count in (0, 1, 40):
                    for _ in range(count):
                        parts_of(ticking.introspector).shared.history.record(None, 0.0, 1.0, logged=False)
                    await tick_for(ticking, 1)
                    seen.append([block.seq for block in box_of(ticking.introspector).blocks])
            return seen

    assert virtually(main()) == [[], [1], list(range(10, 42))]


def test_it_has_the_block_in_progress(on_any_loop: Backend, runtime_dir: Path) -> None:
    """And the session that holds the loop shows as blocked."""

    async def main() -> Any:
        clock = FakeClock()
        introspector = Introspector(socket_path=False, clock=clock)
        tick = parts_of(introspector).tick
        parts_of(introspector).tick = lambda now: None  # type: ignore[method-assign]
        async with introspector:

            async def hold() -> Box:
                clock.advance(3.0)
                ticked = threading.Thread(target=tick, args=[clock()])
                ticked.start()
                ticked.join()
                return box_of(introspector)

            with introspector.session("job-1", agent_name="a"):
                return await in_task(hold)

    box = on_any_loop(main())
    assert [row.status for row in box.snapshot.sessions] == ["blocked"]
    assert [block.session_id for block in box.snapshot.blocks_in_progress] == ["job-1"]


def test_rows_that_do_not_fit_are_left_out(virtually: Backend, runtime_dir: Path) -> None:
    """And counted; what is live comes before what has failed."""

    async def main() -> Any:
        async with Ticking(virtually) as ticking:
            with pytest.raises(ZeroDivisionError), ticking.introspector.session("failed", agent_name="a"):
                raise ZeroDivisionError
            with ExitStack() as stack:
                for number in range(4000):
                    stack.enter_context(ticking.introspector.session(f"job-{number}", agent_name="restaurant"))
                await tick_for(ticking, 1)
                return box_of(ticking.introspector)

    box = virtually(main())
    rows = box.snapshot.sessions
    assert 2000 < len(rows) < 4000
    assert (len(rows) + box.rows_left_out, box.snapshot.worker.sessions) == (4001, 4000)
    assert [row.session_id for row in rows] == [f"job-{number}" for number in range(len(rows))]


def test_the_session_that_holds_a_loop_has_the_first_row(virtually: Backend, runtime_dir: Path) -> None:
    """So it is not left out."""

    async def main() -> Any:
        async with Ticking(virtually) as ticking:
            with ExitStack() as stack:
                for number in range(70):
                    stack.enter_context(ticking.introspector.session(f"job-{number}", agent_name="a"))
                builder = parts_of(ticking.introspector).check_started()
                reading = builder.read()
                reading.rows.blocked = {"job-69", None}
                portions = list(box_record._portions(reading))
                return [row.session_id for rows in portions for row in rows], [len(rows) for rows in portions]

    ids, sizes = virtually(main())
    assert ids == ["job-69", *(f"job-{number}" for number in range(69))]
    assert sizes == [64, 6]


def test_a_session_that_has_failed_has_a_row(virtually: Backend, runtime_dir: Path) -> None:
    """As in a snapshot."""

    async def main() -> Any:
        async with Ticking(virtually) as ticking:
            with pytest.raises(ZeroDivisionError), ticking.introspector.session("failed", agent_name="a"):
                raise ZeroDivisionError
            ticking.tick()
            return box_of(ticking.introspector)

    box = virtually(main())
    assert [(row.session_id, row.status) for row in box.snapshot.sessions] == [("failed", "errored")]


def test_what_is_too_long_is_left_out(virtually: Backend, runtime_dir: Path) -> None:
    """The host's notes, and the older ones of long blocks; the rows are still there."""

    async def main() -> Any:
        async with Ticking(virtually) as ticking:
            ticking.introspector.note("topic", "x" * 2_000_000)
            stack = [Location(file="/srv/" + "x" * 1000, line=1, function="f")] * 64
            for _ in range(32):
                parts_of(ticking.introspector).shared.history.record(None, 0.0, 1.0, stack=stack, logged=False)
            with ticking.introspector.session("job-1", agent_name="a"):
                ticking.tick()
                return box_of(ticking.introspector)

    box = virtually(main())
    assert box.snapshot.worker.notes == []
    assert [row.session_id for row in box.snapshot.sessions] == ["job-1"]
    assert (len(box.blocks), box.blocks[-1].seq) == (7, 32)


def test_memory_is_kept_once_a_minute_for_an_hour(virtually: Backend, runtime_dir: Path) -> None:
    """And last that of now."""

    async def main() -> Any:
        async with Ticking(virtually, memory_interval_s=600) as ticking:
            ticking.tick()
            seen = [box_of(ticking.introspector)]
            for minutes in (2, 90):
                await tick_for(ticking, 60 * minutes, every=30)
                seen.append(box_of(ticking.introspector))
            return seen

    first, early, late = virtually(main())
    assert [len(box.memory) for box in (first, early, late)] == [2, 4, 61]
    steps = [round(after.at - before.at) for before, after in zip(late.memory[:-1], late.memory[1:], strict=True)]
    assert set(steps[:-1]) == {60}
    assert all(point.rss_mb > 1 for point in late.memory)


def test_loops_have_sections(runtime_dir: Path, on_any_loop: Backend) -> None:
    """The record says which thread runs each, and its name; a loop that is detached gives its section back."""

    async def main() -> Any:
        async with Ticking(on_any_loop) as ticking:
            parts = parts_of(ticking.introspector)
            box = parts.shared.box
            assert box is not None
            (loop,) = parts.loops
            index, thread, name = loop.box_index, loop.hook.thread_id, loop.name
            assert index is not None
            ticking.tick()
            before = read_box(box.path)
            box.write_loop(index, LoopState(state="held", since=1.0))
            ticking.introspector.detach()
            detached = loop.box_index
            ticking.tick()
            return (index, thread, name), before.threads, read_box(box.path), detached

    (index, thread, _), threads, after, detached = on_any_loop(main())
    assert (index, threads) == (0, [thread])
    assert (after.loops, detached) == ([], None)


# --- when it is written --------------------------------------------------------------------------


def test_it_is_written_once_a_second_while_sessions_live(virtually: Backend, runtime_dir: Path) -> None:
    """Whatever the interval of memory's samples is."""

    async def main() -> list[float]:
        async with Ticking(virtually, memory_interval_s=0.1) as ticking:
            written = records(ticking)
            start = virtually.clock()
            with ticking.introspector.session("job-1", agent_name="a"):
                await tick_for(ticking, 3.05, every=0.1)
            return [round(at - start, 1) for at in written]

    assert virtually(main()) == [0.1, 1.1, 2.1]


def test_while_idle_it_is_written_once_a_minute(virtually: Backend, runtime_dir: Path) -> None:
    """At first, and once more after the last session has ended, also if it was too short for a tick."""

    async def main() -> list[list[float]]:
        async with Ticking(virtually) as ticking:
            written = records(ticking)
            seen = []
            for step in range(4):
                start = virtually.clock()
                if step in (1, 2):
                    with ticking.introspector.session("job-1", agent_name="a"):
                        await tick_for(ticking, 2 if step == 1 else 0)
                await tick_for(ticking, 120, every=2)
                seen.append([round(at - start) for at in written])
                written.clear()
            return seen

    assert virtually(main()) == [[2, 62], [1, 2, 4, 64], [2, 62], [2, 62]]


def test_it_takes_a_hundredth_of_a_core_at_most(
    virtually: Backend, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that took 50 ms is followed by the next one after five seconds."""
    spent, read, own = iter(range(100_000)), time.thread_time, threading.get_ident()
    monkeypatch.setattr(time, "thread_time", lambda: 0.05 * next(spent) if threading.get_ident() == own else read())

    async def main() -> list[float]:
        async with Ticking(virtually) as ticking:
            written = records(ticking)
            start = virtually.clock()
            with ticking.introspector.session("job-1", agent_name="a"):
                await tick_for(ticking, 12)
            return [round(at - start) for at in written]

    assert virtually(main()) == [1, 6, 11]


def test_a_hold_that_is_seen_is_written_soon(virtually: Backend, runtime_dir: Path) -> None:
    """At the next tick, at most five times a second."""

    async def main() -> tuple[list[bool], list[float]]:
        async with Ticking(virtually) as ticking:
            ticking.tick()
            written = records(ticking)
            record = parts_of(ticking.introspector)._box_record
            assert record is not None
            start = virtually.clock()
            asked = []
            for _ in range(7):
                await anyio.sleep(0.09)
                asked.append(record.hold_seen(virtually.clock()))
                ticking.tick()
            return asked, [round(at - start, 2) for at in written]

    assert virtually(main()) == ([False, False, True, False, False, True, False], [0.27, 0.54])


@pytest.mark.slow
@pytest.mark.gil
@pytest.mark.skipif(native is not None, reason="the loop's own record has it")
def test_what_holds_an_idle_worker_s_loop_is_recorded_meanwhile(on_timed_loops: Backend, runtime_dir: Path) -> None:
    """Though its next record is not due for a minute; and that it is over is recorded, too."""

    async def main() -> None:
        async with Introspector(socket_path=False) as introspector:
            deadline = time.monotonic() + 40.0
            while box_of(introspector).snapshot is None:
                await anyio.sleep(0.01)
                assert time.monotonic() < deadline
            while not box_of(introspector).snapshot.blocks_in_progress:  # type: ignore[union-attr]
                assert time.monotonic() < deadline
            while box_of(introspector).snapshot.blocks_in_progress:  # type: ignore[union-attr]
                await anyio.sleep(0.01)
                assert time.monotonic() < deadline

    on_timed_loops(main())


# --- faults --------------------------------------------------------------------------------------


def test_a_fault_switches_it_off_and_is_noted_once(
    virtually: Backend, runtime_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All else goes on, and what was written stays."""

    async def main() -> Any:
        async with Ticking(virtually) as ticking:
            with ticking.introspector.session("job-1", agent_name="a"):
                ticking.tick()
                before = box_of(ticking.introspector)
                calls: list[float] = []

                def fails(self: Any, now: float) -> bytes:
                    calls.append(now)
                    raise ZeroDivisionError("oh")

                monkeypatch.setattr(box_record.BoxRecord, "_record", fails)
                await tick_for(ticking, 5)
                return before, box_of(ticking.introspector), ticking.snapshot(), len(calls)

    before, after, snapshot, calls = virtually(main())
    assert (after.snapshot, calls) == (before.snapshot, 1)
    assert snapshot.worker.notes == [
        "the black box is no longer written, it keeps what it has: ZeroDivisionError('oh')"
    ]
    (logged,) = [each for each in caplog.records if "black box" in each.getMessage()]
    assert logged.exc_info is not None


def test_old_boxes_are_removed_at_the_first_record(
    virtually: Backend, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on the loop's thread, and a directory that cannot be read does no harm."""
    asked: list[Path] = []

    def fails(directory: Path) -> None:
        asked.append(directory)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(box_record, "remove_old", fails)

    async def main() -> Any:
        async with Ticking(virtually) as ticking:
            at_start = len(asked)
            await tick_for(ticking, 130)
            return at_start, ticking.snapshot().worker.notes, box_of(ticking.introspector).recorded_at

    at_start, notes, recorded_at = virtually(main())
    assert (at_start, asked, notes) == (0, [runtime_dir], [])
    assert recorded_at is not None
