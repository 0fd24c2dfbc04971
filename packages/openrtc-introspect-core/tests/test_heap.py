from __future__ import annotations

import asyncio
import collections
import gc
import random
import sys
import tracemalloc
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import ArgumentError, Introspector
from openrtc_introspect_core import _heap as heap_module
from openrtc_introspect_core._gil import FREE_THREADED_BUILD
from openrtc_introspect_core._heap import Heap
from openrtc_introspect_core._ledger import Ledger
from openrtc_introspect_core._sessions import MIB, Account, Session
from openrtc_introspect_core.wire import LeftBehind, SessionRow, Snapshot
from openrtc_introspect_testing._backends import Backend, in_task
from openrtc_introspect_testing._clock import FakeClock

Run = Callable[[Coroutine[Any, Any, Any]], Any]
Pattern = Callable[[asyncio.Event, asyncio.Event], Awaitable[None]]

glibc = pytest.mark.skipif(sys.platform != "linux" or FREE_THREADED_BUILD, reason="Python's memory in glibc's malloc")
METHODS = [pytest.param("heap", marks=glibc), "traced"]


@pytest.fixture
def tidy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step is read, whatever the tests before have made of the heap; what they left is not freed now."""
    gc.collect()
    monkeypatch.setattr(Heap, "keep_to_budget", lambda self, now: None)


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


# --- what reading may cost ---------------------------------------------------------------------------


class Dear(Heap):
    """Each reading takes its time on the clock; what is in use is what the test says."""

    blind_to = "much"
    cost = 0.0
    in_use = 0

    def read(self) -> int:
        self.clock.advance(self.cost)  # type: ignore[attr-defined]
        return self.in_use


class Worker:
    """A loop's ledger with such a heap, on a clock that its steps and their readings move on."""

    def __init__(self, cost: float = 0.0, in_steps: float = 0.0) -> None:
        self.clock = FakeClock(0.0)
        self.heap = Dear(self.clock)
        self.ledger = Ledger(ContextVar("binding"), self.clock, limit=60.0)
        self.ledger.in_use = self.reader = self.heap.reader()
        self.reader._random = random.Random(7).random
        self.heap.cost = cost

    def step(self, holder: Account, allocates: int = 0) -> bool:
        """Whether it was read."""
        outside, start = self.ledger.begin(holder)
        self.heap.in_use += allocates
        self.ledger.end(outside, start)
        return self.reader.drawn

    def run(self, seconds: int, steps_a_second: int, *, allocates: int = 0, holder: Account | None = None) -> None:
        """So many steps in each second, evenly or as fast as readings let them, and what happens once a second."""
        holder = holder or Account()
        for _ in range(seconds):
            ends = self.clock() + 1.0
            for _ in range(steps_a_second):
                self.step(holder, allocates)
            self.clock.advance_to(ends)
            self.heap.keep_to_budget(self.clock())


def test_where_reading_is_cheap_every_step_is_read() -> None:
    """A thousand steps with two readings of 9 µs are within the budget: nothing is said."""
    worker = Worker(cost=9e-6)
    worker.run(20, 1000)
    assert (worker.heap.one_in, worker.heap.exact, worker.heap.told()) == (1, True, None)


def test_where_reading_is_dear_so_few_steps_are_read_as_the_budget_allows() -> None:
    """A thousand times two readings of 100 µs are a fifth of the loop: one in 16 is 1.25 %. It is said."""
    worker = Worker(cost=100e-6)
    worker.run(20, 1000)
    began, due = worker.clock(), worker.reader.due
    read = sum(worker.step(Account()) for _ in range(1000))
    assert worker.heap.one_in == 16
    assert worker.clock() - began == pytest.approx(read * 200e-6)
    assert 0 < read < 100
    assert worker.reader.due - due == 2000
    assert worker.heap.told() == (
        "one step in 16, drawn at random, has the bytes in use read, which takes 100 µs: "
        "heap_mb is an estimate, and leaves out calls in threads"
    )


def test_what_is_read_counts_for_what_is_not() -> None:
    """What a session holds is estimated without bias, and what nobody reads is put on nobody else."""
    worker = Worker()
    worker.heap.one_in = 16
    estimates = []
    for _ in range(100):
        session, idler = Account(), Account()
        for _ in range(200):
            worker.step(session, allocates=1000)
            worker.step(idler)
        estimates.append(session.heap)
        assert idler.heap == 0
    mean = sum(estimates) / len(estimates)
    assert mean == pytest.approx(200_000, rel=0.1)  # its standard error is 2.7 %
    assert len(set(estimates)) > 10


def test_all_of_a_step_is_read_or_nothing_of_it() -> None:
    """Those that take over in its middle count for as much as the one that began it."""
    worker = Worker()
    worker.heap.one_in = 4
    drawn = set()
    for _ in range(50):
        outer, inner, scope = Account(), Account(), Account()
        outside, start = worker.ledger.begin(outer)
        worker.heap.in_use += 1
        nested_outside, nested_start = worker.ledger.begin(inner)
        worker.heap.in_use += 10
        worker.ledger.end(nested_outside, nested_start)
        worker.ledger.switch(scope)
        worker.heap.in_use += 100
        worker.ledger.end(outside, start)
        times = 4 if worker.reader.drawn else 0
        assert (outer.heap, inner.heap, scope.heap) == (times, 10 * times, 100 * times)
        drawn.add(times)
    assert drawn == {0, 4}


def test_one_busy_second_does_not_decide() -> None:
    """A burst of steps among quiet seconds is within what five seconds may cost; one that lasts is not."""
    worker = Worker(cost=9e-6)
    worker.run(10, 100)
    worker.run(1, 4000)
    assert worker.heap.one_in == 1
    worker.run(4, 4000)
    assert worker.heap.one_in == 4


def test_readings_that_the_host_interrupts_do_not_decide() -> None:
    """A third of them takes a hundred times as long, as on a machine that is crowded."""
    worker = Worker()
    worker.run(5, 100)
    for _ in range(20):
        for step in range(1000):
            worker.heap.cost = 0.0005 if step % 3 == 0 else 1e-6
            worker.step(Account())
        worker.clock.advance(0.1)
        worker.heap.keep_to_budget(worker.clock())
    assert worker.heap.one_in == 1


def test_a_loop_that_readings_hold_does_not_wait_for_the_next_second() -> None:
    """It reads less at once: nobody else may get to say so while it is held."""
    worker = Worker(cost=0.004)
    for _ in range(500):
        worker.step(Account())
    assert worker.heap.one_in > 1
    assert worker.clock() < 1.0  # for a thousand readings of 4 ms


def test_it_comes_back_once_readings_have_been_cheap_for_a_while() -> None:
    """Ten seconds; then nothing is said any more, and what began before is known by estimates."""
    worker = Worker(cost=100e-6)
    worker.run(10, 1000)
    before = Session("before", "test", {}, worker.clock())
    worker.heap.cost = 1e-6
    worker.run(8, 1000)
    assert (worker.heap.one_in, worker.heap.exact_since) == (16, float("inf"))
    worker.run(20, 1000)
    after = Session("after", "test", {}, worker.clock())
    assert (worker.heap.one_in, worker.heap.told()) == (1, None)
    assert [worker.heap.knows(each) for each in (before, after)] == [True, True]
    assert [worker.heap.knows_exactly(each) for each in (before, after)] == [False, True]


def test_while_one_reading_takes_too_long_no_step_is_read() -> None:
    """It is tried once a minute; of sessions that were there meanwhile nothing is told."""
    worker = Worker(cost=0.02)
    before = Session("before", "test", {}, worker.clock())
    worker.run(5, 10)
    assert (worker.heap.on, worker.heap.knows(before)) == (False, False)
    assert worker.heap.told() == "reading the bytes in use takes 20 ms: heap_mb is not told for now"
    began = worker.clock()
    assert not any(worker.step(Account()) for _ in range(1000))
    assert worker.clock() == began
    worker.run(120, 10)
    assert worker.clock() - began == pytest.approx(120.04, abs=0.03)  # two tries
    worker.heap.cost = 1e-6
    worker.run(80, 10)
    after = Session("after", "test", {}, worker.clock())
    assert (worker.heap.on, worker.heap.one_in, worker.heap.told()) == (True, 1, None)
    assert [worker.heap.knows(each) for each in (before, after)] == [False, True]
    assert worker.heap.knows_exactly(after)


def test_the_loop_that_pays_most_decides_and_one_that_is_gone_does_not() -> None:
    """Each loop has the budget for itself; the heap is one, and so is the factor."""
    worker = Worker(cost=50e-6)
    quiet = worker.heap.reader()
    worker.run(10, 1000)
    assert worker.heap.one_in == 8
    assert not all(quiet.draw() for _ in range(100))
    worker.heap.retire(worker.reader)
    for _ in range(20):
        worker.clock.advance(1.0)
        worker.heap.keep_to_budget(worker.clock())
    assert worker.heap.one_in == 1


def test_what_is_given_back_is_worth_no_reading_where_nothing_is_certain() -> None:
    """Sessions' ends and snapshots cost a dear heap nothing."""
    worker = Worker(cost=0.001)
    worker.heap.one_in = 4
    began = worker.clock()
    assert worker.heap.given_back() == 0
    assert worker.clock() == began


@pytest.mark.parametrize("during", ["all of it", "its middle"])
def test_calls_in_threads_are_nobodys_while_not_every_step_is_read(run: Run, during: str) -> None:
    """What they take cannot be told from what unread steps do: not where that was so for a part of the call, either."""

    async def main() -> Any:
        async with Introspector(memory="traced", socket_path=False, slow_session_threshold_ms=60_000) as introspector:
            heap: Any = introspector._heap
            heap.keep_to_budget = lambda now: None

            def thin(one_in: int) -> None:
                heap.one_in = one_in
                heap.exact_since = float("inf") if one_in > 1 else introspector._clock()

            def call() -> bytearray:
                if during == "its middle":
                    thin(10**9)
                    thin(1)
                return bytearray(MIB)

            async def work() -> list[bytearray]:
                return [await asyncio.to_thread(call) for _ in range(5)]

            if during == "all of it":
                thin(10**9)
            with introspector.session("job-1", agent_name="test") as session:
                kept = await asyncio.create_task(work())
                return session.thread_heap, len(kept)

    assert run(main()) == (0, 5)


def test_the_snapshot_says_so_while_it_lasts(run_virtually: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """And tells of what ended sessions left only what is certain. Loops that are attached later read as few."""
    monkeypatch.setattr(heap_module, "Traced", Dear)

    async def main(introspector: Introspector, loop: Any) -> Any:
        heap: Any = introspector._heap
        snapshots: list[Snapshot] = []

        async def steps(seconds: int) -> None:
            for _ in range(seconds):
                for _ in range(100):
                    await asyncio.sleep(0.01)
                introspector._tick(loop.clock())
            snapshots.append(introspector.snapshot())

        async def leaves() -> None:
            with introspector.session("left", agent_name="test"):
                await asyncio.sleep(0)
                heap.in_use += 64 * MIB

        with introspector.session("job-1", agent_name="test"):
            await asyncio.create_task(steps(2))
            heap.cost = 0.001
            await asyncio.create_task(steps(8))
            later = heap.reader()
            drawn = [later.draw() for _ in range(200)]
            heap.retire(later)
            heap.one_in = 1  # this session's is read by chance only
            await asyncio.create_task(leaves())
            await asyncio.create_task(steps(1))
            heap.cost = 0.0
            await asyncio.create_task(steps(40))
            await asyncio.create_task(leaves())
            await asyncio.create_task(steps(1))
        return snapshots, any(drawn), all(drawn)

    (cheap, dear, left, back, last), some, every = virtually(run_virtually, main)
    said = "one step in 16, drawn at random, has the bytes in use read"
    assert [note.partition(", which")[0] for note in dear.worker.notes] == [said, "much"]
    assert [snapshot.worker.notes for snapshot in (cheap, back, last)] == [["much"]] * 3
    assert all(snapshot.sessions[0].heap_mb is not None for snapshot in (cheap, dear, left, back, last))
    assert (some, every) == (True, False)
    assert [len(snapshot.worker.left_behind) for snapshot in (dear, left, back, last)] == [0, 0, 0, 1]


def test_a_reading_that_takes_too_long_is_told_and_no_figure_is(
    run_virtually: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Null, not what it was before: nobody knows what it is now."""
    monkeypatch.setattr(heap_module, "Traced", Dear)

    async def main(introspector: Introspector, loop: Any) -> Any:
        heap: Any = introspector._heap
        heap.cost = 0.03
        with introspector.session("job-1", agent_name="test"):

            async def steps() -> None:
                for _ in range(3):
                    for _ in range(10):
                        await asyncio.sleep(0.1)
                    introspector._tick(loop.clock())

            before: Snapshot = introspector.snapshot()
            await asyncio.create_task(steps())
            return before, introspector.snapshot()

    before, after = virtually(run_virtually, main)
    assert (before.sessions[0].heap_mb, after.sessions[0].heap_mb) == (0.0, None)
    assert after.worker.notes == ["reading the bytes in use takes 30 ms: heap_mb is not told for now", "much"]


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
