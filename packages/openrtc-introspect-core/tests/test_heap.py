from __future__ import annotations

import asyncio
import collections
import gc
import sys
import tracemalloc
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import ArgumentError, Introspector
from openrtc_introspect_core import _heap as heap_module
from openrtc_introspect_core._gil import FREE_THREADED_BUILD
from openrtc_introspect_core._heap import Heap, Malloc
from openrtc_introspect_core._log import flush
from openrtc_introspect_core._sessions import MIB
from openrtc_introspect_core.wire import LeftBehind, SessionRow, Snapshot
from openrtc_introspect_testing._backends import Backend, in_task
from openrtc_introspect_testing._clock import FakeClock

Run = Callable[[Coroutine[Any, Any, Any]], Any]
Pattern = Callable[[asyncio.Event, asyncio.Event], Awaitable[None]]

glibc = pytest.mark.skipif(sys.platform != "linux" or FREE_THREADED_BUILD, reason="Python's memory in glibc's malloc")
METHODS = [pytest.param("heap", marks=glibc), "traced"]


@pytest.fixture
def tidy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading is never too dear, whatever the tests before have made of the heap; what they left is not freed now."""
    gc.collect()
    monkeypatch.setattr(Heap, "too_dear", lambda self, reads_per_s: None)


def rows_while_held(run: Run, method: Any, **patterns: Pattern) -> dict[str, SessionRow]:
    """Each session's row once all of them hold what they hold."""

    async def main() -> dict[str, SessionRow]:
        async with Introspector(memory=method, socket_path=False, slow_session_threshold_ms=60_000) as introspector:
            let_go = asyncio.Event()
            held = {name: asyncio.Event() for name in patterns}

            async def session(name: str) -> None:
                with introspector.session(name, agent_name="test"):
                    await patterns[name](held[name], let_go)

            tasks = [asyncio.create_task(session(name)) for name in patterns]
            for event in held.values():
                await event.wait()
            rows = {row.session_id: row for row in introspector.snapshot().sessions}
            let_go.set()
            await asyncio.gather(*tasks)
        return rows

    return run(main())  # type: ignore[no-any-return]


async def at_once(held: asyncio.Event, let_go: asyncio.Event) -> None:
    kept = [bytearray(64 * 1024) for _ in range(20 * 16)]
    held.set()
    await let_go.wait()
    del kept


async def little_by_little(held: asyncio.Event, let_go: asyncio.Event) -> None:
    kept = []
    for _ in range(40):
        kept.append(bytearray(MIB // 4))
        await asyncio.sleep(0)
    held.set()
    await let_go.wait()
    del kept


async def churning(held: asyncio.Event, let_go: asyncio.Event) -> None:
    for _ in range(40):
        passing = [bytearray(100_000) for _ in range(10)]
        await asyncio.sleep(0)
        del passing
    held.set()
    await let_go.wait()


async def in_a_ring(held: asyncio.Event, let_go: asyncio.Event) -> None:
    ring: collections.deque[bytearray] = collections.deque(maxlen=64)
    for _ in range(200):
        ring.append(bytearray(128 * 1024))
        await asyncio.sleep(0)
    held.set()
    await let_go.wait()


async def in_children(held: asyncio.Event, let_go: asyncio.Event) -> None:
    async def child() -> bytearray:
        await asyncio.sleep(0)
        return bytearray(MIB)

    kept = await asyncio.gather(*(child() for _ in range(10)))
    held.set()
    await let_go.wait()
    del kept


async def in_a_thread(held: asyncio.Event, let_go: asyncio.Event) -> None:
    kept = [await asyncio.to_thread(bytearray, MIB) for _ in range(10)]
    held.set()
    await let_go.wait()
    del kept


@pytest.mark.parametrize("method", METHODS)
def test_each_session_is_told_what_it_holds(run: Run, tidy: None, method: str) -> None:
    """Whatever others take and give back meanwhile, in steps and in child tasks."""
    rows = rows_while_held(
        run, method, at_once=at_once, little_by_little=little_by_little, churning=churning,
        in_a_ring=in_a_ring, in_children=in_children,
    )  # fmt: skip
    heap = {name: row.heap_mb for name, row in rows.items()}
    assert heap == {
        "at_once": pytest.approx(20, rel=0.1),
        "little_by_little": pytest.approx(10, rel=0.1),
        "churning": pytest.approx(0, abs=0.5),
        "in_a_ring": pytest.approx(8, rel=0.1),
        "in_children": pytest.approx(10, rel=0.1),
    }


@pytest.mark.parametrize("method", METHODS)
def test_what_a_call_in_a_thread_takes_is_its_session_s(run: Run, tidy: None, method: str) -> None:
    """Where nobody else is in the middle of a step meanwhile, which could not be told apart."""
    rows = rows_while_held(run, method, in_a_thread=in_a_thread)
    assert rows["in_a_thread"].heap_mb == pytest.approx(10, rel=0.15)


@pytest.mark.parametrize("method", METHODS)
def test_the_share_means_what_it_means_without(run: Run, tidy: None, method: str) -> None:
    """RSS in equal parts."""
    rows = rows_while_held(run, method, large=at_once, small=churning)
    assert rows["large"].mem_mb == rows["small"].mem_mb > 0


def test_without_a_method_there_is_no_figure(run: Run) -> None:
    """Null, not 0."""
    rows = rows_while_held(run, "share", one=at_once)
    assert (rows["one"].heap_mb, rows["one"].heap_growth_mb_per_min) == (None, None)


def virtually(run_virtually: Run, main: Callable[[Introspector, Any], Coroutine[Any, Any, Any]]) -> Any:
    async def whole() -> Any:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(memory="traced", socket_path=False, clock=loop.clock) as introspector:
            return await main(introspector, loop)

    return run_virtually(whole())


def test_growth_is_told_by_the_minute(run_virtually: Run, tidy: None) -> None:
    """Once there are ten seconds to tell from."""

    async def main(introspector: Introspector, loop: Any) -> Any:
        kept, rates = [], []
        with introspector.session("grows", agent_name="test"):

            async def grow() -> None:
                for _ in range(30):
                    await asyncio.sleep(1)
                    kept.append(bytearray(MIB))
                    introspector._tick(loop.clock())
                    rates.append(introspector.snapshot().sessions[0].heap_growth_mb_per_min)

            await asyncio.create_task(grow())
        return rates

    rates = virtually(run_virtually, main)
    assert rates[:9] == [None] * 9
    assert rates[-1] == pytest.approx(60, rel=0.1)


def test_a_session_that_gave_nothing_back_is_told_after_its_end(run_virtually: Run, tidy: None) -> None:
    """With what it held when it ended, for ten minutes; one that gave it back is not."""

    async def main(introspector: Introspector, loop: Any) -> Any:
        leaked: list[bytearray] = []

        async def session(name: str, kept: list[bytearray]) -> None:
            with introspector.session(name, agent_name="test", metadata={"tenant": "acme"}):
                kept.extend(bytearray(MIB) for _ in range(5))
                await asyncio.sleep(1)

        await asyncio.create_task(session("leaks", leaked))
        await asyncio.create_task(session("tidy", []))
        told = []
        for _ in range(2):
            introspector._tick(loop.clock())
            told.append((introspector.snapshot().worker.left_behind, introspector.snapshot().taken_at))
            await asyncio.sleep(599)
        return told

    (first, taken_at), (later, _) = virtually(run_virtually, main)
    (left,) = first
    assert (left.session_id, left.agent_name, left.tenant) == ("leaks", "test", "acme")
    assert left.heap_mb == pytest.approx(5, rel=0.05)
    assert taken_at - left.ended_at == pytest.approx(1.0)  # since when the other one ran
    assert later == []


Kept = dict[str, Any]


def left_by(
    run_virtually: Run, leave: Callable[[Kept], Awaitable[None]], then: Callable[[Kept], None] = lambda kept: None
) -> list[LeftBehind]:
    """What is told of a session that ran `leave`, right after its end and after a later step has run `then`."""

    async def main(introspector: Introspector, loop: Any) -> list[LeftBehind]:
        kept: Kept = {}

        async def session() -> None:
            with introspector.session("job-1", agent_name="test"):
                await leave(kept)

        async def later() -> None:
            then(kept)

        await asyncio.create_task(session())
        told = introspector.snapshot().worker.left_behind
        await asyncio.create_task(later())
        await asyncio.sleep(1)
        told += introspector.snapshot().worker.left_behind
        for task in kept.get("tasks", ()):
            task.cancel()
        return told

    return virtually(run_virtually, main)  # type: ignore[no-any-return]


async def five_and_twenty(kept: Kept) -> None:
    kept["five"] = bytearray(5 * MIB)
    await asyncio.sleep(0)
    kept["twenty"] = bytearray(20 * MIB)


def test_what_nobody_gave_back_is_held_for_certain(run_virtually: Run, tidy: None) -> None:
    """Less what small things others have let go of meanwhile."""
    at_end, later = left_by(run_virtually, five_and_twenty)
    assert at_end.heap_mb == later.heap_mb == pytest.approx(25, rel=0.05)
    assert at_end.at_least_mb == pytest.approx(25, rel=0.05)
    assert later.at_least_mb == pytest.approx(25, rel=0.1)


def test_what_others_give_back_may_have_been_its(run_virtually: Run, tidy: None) -> None:
    """So much less is certain, whosever it was; what was booked stays."""
    _, later = left_by(run_virtually, five_and_twenty, lambda kept: kept.pop("twenty"))
    assert later.heap_mb == pytest.approx(25, rel=0.05)
    assert later.at_least_mb == pytest.approx(5, rel=0.3)
    _, later = left_by(run_virtually, five_and_twenty, lambda kept: kept.clear())
    assert (later.heap_mb > 20, later.at_least_mb < 1) == (True, True)


def test_what_its_own_tasks_give_back_after_its_end_is_booked(run_virtually: Run, tidy: None) -> None:
    """And leaves the rest as certain as it was."""

    async def leave(kept: Kept) -> None:
        await five_and_twenty(kept)

        async def let_go() -> None:
            await asyncio.sleep(0.5)
            del kept["twenty"]

        kept["tasks"] = [asyncio.create_task(let_go())]

    at_end, later = left_by(run_virtually, leave)
    assert (at_end.tasks, later.tasks) == (1, 0)
    assert at_end.heap_mb == pytest.approx(25, rel=0.05)
    assert later.heap_mb == pytest.approx(5, rel=0.05)
    assert later.at_least_mb == pytest.approx(5, rel=0.3)


async def a_running_task(kept: Kept) -> None:
    kept["tasks"] = [asyncio.create_task(asyncio.sleep(3600))]


async def a_task_that_is_done(kept: Kept) -> None:
    kept["done"] = asyncio.create_task(asyncio.sleep(0))
    await kept["done"]


async def a_timer(kept: Kept) -> None:
    kept["timer"] = asyncio.get_running_loop().call_later(3600, len, "")


async def nothing(kept: Kept) -> None:
    await asyncio.create_task(asyncio.sleep(0))


@pytest.mark.parametrize("leave", [a_running_task, a_task_that_is_done, a_timer])
def test_it_is_told_that_what_a_session_made_is_referenced(run_virtually: Run, tidy: None, leave: Any) -> None:
    """A task, running or done, or a timer; once it is let go of, it is told no more."""

    async def kept_on(kept: Kept) -> None:
        kept["data"] = bytearray(5 * MIB)
        await leave(kept)

    def let_go(kept: Kept) -> None:
        for task in kept.pop("tasks", ()):
            task.cancel()
        if "timer" in kept:
            kept.pop("timer").cancel()
        kept.pop("done", None)

    assert [left.referenced for left in left_by(run_virtually, kept_on)] == [True, True]
    if leave is not a_timer:  # a cancelled one stays in the loop's heap until it is due
        assert [left.referenced for left in left_by(run_virtually, kept_on, let_go)] == [True, False]


def test_plain_data_references_nothing_of_its_session(run_virtually: Run, tidy: None) -> None:
    """Its tasks are gone, so it is elsewhere that one has to look."""

    async def kept_on(kept: Kept) -> None:
        kept["data"] = bytearray(5 * MIB)
        await nothing(kept)

    assert [left.referenced for left in left_by(run_virtually, kept_on)] == [False, False]


@pytest.mark.parametrize("cpu", ["sampled", "off"])
def test_it_needs_metered_steps(cpu: Any) -> None:
    """Nothing else tells whose an allocation is."""
    with pytest.raises(
        ArgumentError, match=f"memory='traced' is booked with each step and needs cpu='exact', got cpu='{cpu}'"
    ):
        Introspector(memory="traced", cpu=cpu)


@pytest.mark.gil
def test_a_platform_without_it_is_a_clear_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, and nothing is left."""

    class Libc:
        def __init__(self, name: None) -> None:
            pass

    monkeypatch.setattr(heap_module.ctypes, "PyDLL", Libc)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        introspector = Introspector(memory="heap", socket_path=False)
        with pytest.raises(ArgumentError, match=r"memory='heap' needs glibc 2\.33 or newer"):
            introspector.attach()
        assert loop.get_task_factory() is None

    run(main())


class Dear(Heap):
    blind_to = "much"

    def read(self) -> int:
        return 0

    def _time_to_read(self) -> float:
        return 0.001


def test_what_is_too_dear_to_read_is_switched_off(
    run_virtually: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And said, once; the sessions go on, with null for a figure."""
    monkeypatch.setattr(heap_module, "Traced", Dear)

    async def main(introspector: Introspector, loop: Any) -> Any:
        with introspector.session("job-1", agent_name="test"):
            before: Snapshot = introspector.snapshot()
            await asyncio.sleep(1)
            introspector._tick(loop.clock())
            await asyncio.create_task(asyncio.sleep(1))
            introspector._tick(loop.clock())
            return before, introspector.snapshot()

    before, after = virtually(run_virtually, main)
    assert (before.sessions[0].heap_mb, after.sessions[0].heap_mb) == (0.0, None)
    assert before.worker.notes == ["much"]
    assert [note for note in after.worker.notes if "heap_mb is switched off" in note] == after.worker.notes
    assert flush(60.0)
    assert sum("heap_mb is switched off" in record.message for record in caplog.records) == 1


def test_what_is_switched_off_stays_off_on_later_loops(run_on_asyncio: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that is attached afterwards does not read at each step what nobody shows."""
    monkeypatch.setattr(heap_module, "Traced", Dear)

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(memory="traced", socket_path=False, clock=clock) as introspector:
            on_before = introspector._loops[0].ledger.in_use is not None
            clock.advance(1.0)
            introspector._tick(clock())
            while introspector._loops[0].ledger.in_use is not None:  # the service thread is at it
                await asyncio.sleep(0.001)

            async def attached_later() -> bool:
                introspector.attach()
                return introspector._loops[-1].ledger.in_use is not None

            on_later = await asyncio.to_thread(lambda: asyncio.run(attached_later()))
            return on_before, introspector._loops[0].ledger.in_use is not None, on_later

    assert run_on_asyncio(main()) == (True, False, False)


@glibc
def test_a_tidy_heap_is_cheap_to_read() -> None:
    """A thousand reads a second are within the budget of a read that takes 20 µs."""
    heap = Malloc()
    heap._time_to_read = lambda: 20e-6  # type: ignore[method-assign]
    assert heap.too_dear(1000) is None
    assert heap.too_dear(1001) is not None


def test_tracing_is_left_as_it_was_found(run: Run) -> None:
    """Ended if it was begun, and left on if it was on."""

    async def main() -> None:
        async with Introspector(memory="traced", socket_path=False):
            assert tracemalloc.is_tracing()

    run(main())
    assert not tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        run(main())
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


def test_it_is_booked_on_any_loop(on_any_loop: Backend, tidy: None) -> None:
    """What a session's steps take and give back, and no other's, beside what our threads allocate meanwhile."""

    async def main() -> list[float | None]:
        kept: list[bytearray] = []
        told = []
        async with Introspector(memory="traced", socket_path=False, slow_session_threshold_ms=60_000) as introspector:

            def heap_mb(session_id: str) -> float | None:
                return next(row.heap_mb for row in introspector.snapshot().sessions if row.session_id == session_id)

            async def work() -> None:
                kept.extend(bytearray(MIB) for _ in range(50))
                await anyio.sleep(0)
                told.append(heap_mb("job-1"))
                kept.clear()
                await anyio.sleep(0)

            async def other() -> None:
                kept.extend(bytearray(MIB) for _ in range(30))

            with introspector.session("job-1", agent_name="test"):
                await in_task(work)
                with introspector.session("job-2", agent_name="test"):
                    await in_task(other)
                    told.append(heap_mb("job-2"))
                told.append(heap_mb("job-1"))
        return told

    held, others, given_back = on_any_loop(main())
    assert held == pytest.approx(50, abs=2)
    assert others == pytest.approx(30, abs=2)
    assert given_back == pytest.approx(0, abs=2)
