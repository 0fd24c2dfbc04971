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

from openrtc_introspect_core import AgentPool, ArgumentError, Introspector
from openrtc_introspect_core._accounting import heap_methods
from openrtc_introspect_core._accounting.account import Account
from openrtc_introspect_core._accounting.heap import Heap
from openrtc_introspect_core._accounting.ledger import Ledger
from openrtc_introspect_core._accounting.step_heap import StepHeap, StepHeapInPython
from openrtc_introspect_core._base.gil import FREE_THREADED_BUILD
from openrtc_introspect_core._base.units import MIB
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._os.allocators import LARGE, Allocator
from openrtc_introspect_core._sessions.session import Session
from openrtc_introspect_core.wire import LeftBehind, SessionRow, Snapshot
from openrtc_introspect_testing._loops.backends import Backend, in_task
from openrtc_introspect_testing._loops.fake_clock import FakeClock

Run = Callable[[Coroutine[Any, Any, Any]], Any]
Pattern = Callable[[asyncio.Event, asyncio.Event], Awaitable[None]]

glibc = pytest.mark.skipif(sys.platform != "linux" or FREE_THREADED_BUILD, reason="Python's memory in glibc's malloc")
METHODS = [pytest.param("heap", marks=glibc), "traced"]


@pytest.fixture
def tidy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each step read, however fragmented the heap is after other tests.

    Garbage of other tests is collected first, so that no step frees it.
    """
    gc.collect()
    monkeypatch.setattr(Heap, "adjust_sampling", lambda self, now: None)


def rows_while_held(run: Run, method: Any, **patterns: Pattern) -> dict[str, SessionRow]:
    """Return each session's row, taken while all of them hold what they hold."""

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
def test_each_session_shows_what_it_holds(run: Run, tidy: None, method: str) -> None:
    """Others take and give back memory meanwhile, in steps and in child tasks."""
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
    """No other session is in mid-step: its memory could not be separated."""
    rows = rows_while_held(run, method, in_a_thread=in_a_thread)
    assert rows["in_a_thread"].heap_mb == pytest.approx(10, rel=0.15)


@pytest.mark.parametrize("method", METHODS)
def test_the_share_means_what_it_means_without(run: Run, tidy: None, method: str) -> None:
    """It is RSS in equal parts, with any method."""
    rows = rows_while_held(run, method, large=at_once, small=churning)
    assert rows["large"].mem_mb == rows["small"].mem_mb > 0


def test_without_a_method_there_is_no_figure(run: Run) -> None:
    """The fields are null, not 0."""
    rows = rows_while_held(run, "share", one=at_once)
    assert (rows["one"].heap_mb, rows["one"].heap_growth_mb_per_min) == (None, None)


def virtually(run_virtually: Run, main: Callable[[Introspector, Any], Coroutine[Any, Any, Any]]) -> Any:
    async def whole() -> Any:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(memory="traced", socket_path=False, clock=loop.clock) as introspector:
            return await main(introspector, loop)

    return run_virtually(whole())


def test_growth_is_reported_by_the_minute(run_virtually: Run, tidy: None) -> None:
    """The rate is known after ten seconds."""

    async def main(introspector: Introspector, loop: Any) -> Any:
        kept, rates = [], []
        with introspector.session("grows", agent_name="test"):

            async def grow() -> None:
                for _ in range(30):
                    await asyncio.sleep(1)
                    kept.append(bytearray(MIB))
                    parts_of(introspector).tick(loop.clock())
                    rates.append(introspector.snapshot().sessions[0].heap_growth_mb_per_min)

            await asyncio.create_task(grow())
        return rates

    rates = virtually(run_virtually, main)
    assert rates[:9] == [None] * 9
    assert rates[-1] == pytest.approx(60, rel=0.1)


def test_a_session_that_gave_nothing_back_is_reported_after_its_end(run_virtually: Run, tidy: None) -> None:
    """It is reported for ten minutes, with what it held at its end.

    A session that gave its memory back is not reported.
    """

    async def main(introspector: Introspector, loop: Any) -> Any:
        leaked: list[bytearray] = []

        async def session(name: str, kept: list[bytearray]) -> None:
            with introspector.session(name, agent_name="test", metadata={"tenant": "acme"}):
                kept.extend(bytearray(MIB) for _ in range(5))
                await asyncio.sleep(1)

        await asyncio.create_task(session("leaks", leaked))
        await asyncio.create_task(session("tidy", []))
        reported = []
        for _ in range(2):
            parts_of(introspector).tick(loop.clock())
            reported.append((introspector.snapshot().worker.left_behind, introspector.snapshot().taken_at))
            await asyncio.sleep(599)
        return reported

    (first, taken_at), (later, _) = virtually(run_virtually, main)
    (left,) = first
    assert (left.session_id, left.agent_name, left.tenant) == ("leaks", "test", "acme")
    assert left.heap_mb == pytest.approx(5, rel=0.05)
    assert taken_at - left.ended_at == pytest.approx(1.0)  # the other session ran since then
    assert later == []


Kept = dict[str, Any]


def left_by(
    run_virtually: Run, leave: Callable[[Kept], Awaitable[None]], then: Callable[[Kept], None] = lambda kept: None
) -> list[LeftBehind]:
    """Return what a session that ran `leave` has left behind.

    Once right after its end, and once after a later step has run `then`.
    """

    async def main(introspector: Introspector, loop: Any) -> list[LeftBehind]:
        kept: Kept = {}

        async def session() -> None:
            with introspector.session("job-1", agent_name="test"):
                await leave(kept)

        async def later() -> None:
            then(kept)

        await asyncio.create_task(session())
        reported = introspector.snapshot().worker.left_behind
        await asyncio.create_task(later())
        await asyncio.sleep(1)
        reported += introspector.snapshot().worker.left_behind
        for task in kept.get("tasks", ()):
            task.cancel()
        return reported

    return virtually(run_virtually, main)  # type: ignore[no-any-return]


async def five_and_twenty(kept: Kept) -> None:
    kept["five"] = bytearray(5 * MIB)
    await asyncio.sleep(0)
    kept["twenty"] = bytearray(20 * MIB)


def test_what_nobody_gave_back_is_held_for_certain(run_virtually: Run, tidy: None) -> None:
    """Small things that others have freed meanwhile are subtracted."""
    at_end, later = left_by(run_virtually, five_and_twenty)
    assert at_end.heap_mb == later.heap_mb == pytest.approx(25, rel=0.05)
    assert at_end.at_least_mb == pytest.approx(25, rel=0.05)
    assert later.at_least_mb == pytest.approx(25, rel=0.1)


def test_what_others_give_back_may_have_been_its(run_virtually: Run, tidy: None) -> None:
    """Any memory that others give back makes so much less certain.

    The estimate of what the session holds stays.
    """
    _, later = left_by(run_virtually, five_and_twenty, lambda kept: kept.pop("twenty"))
    assert later.heap_mb == pytest.approx(25, rel=0.05)
    assert later.at_least_mb == pytest.approx(5, rel=0.3)
    _, later = left_by(run_virtually, five_and_twenty, lambda kept: kept.clear())
    assert (later.heap_mb > 20, later.at_least_mb < 1) == (True, True)


def test_what_its_own_tasks_give_back_after_its_end_is_credited(run_virtually: Run, tidy: None) -> None:
    """The rest stays as certain as it was."""

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
def test_what_a_session_made_is_reported_while_it_is_referenced(run_virtually: Run, tidy: None, leave: Any) -> None:
    """This holds for a task, running or done, and for a timer, until it is released."""

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
    if leave is not a_timer:  # a cancelled timer stays in the loop's heap until it is due
        assert [left.referenced for left in left_by(run_virtually, kept_on, let_go)] == [True, False]


def test_plain_data_references_nothing_of_its_session(run_virtually: Run, tidy: None) -> None:
    """The tasks of the session are gone, so the data is held somewhere else."""

    async def kept_on(kept: Kept) -> None:
        kept["data"] = bytearray(5 * MIB)
        await nothing(kept)

    assert [left.referenced for left in left_by(run_virtually, kept_on)] == [False, False]


@pytest.mark.parametrize("cpu", ["sampled", "off"])
def test_it_needs_metered_steps(cpu: Any) -> None:
    """Nothing else shows whose an allocation is."""
    with pytest.raises(
        ArgumentError, match=f"memory='traced' is charged with each step and needs cpu='exact', got cpu='{cpu}'"
    ):
        Introspector(memory="traced", cpu=cpu)


def reads_nothing() -> int:
    """Return what glibc's account says while another allocator is in use."""
    return 0


@pytest.mark.parametrize(
    ("found", "environment", "why"),
    [
        ([], {}, r"this process has none of them: use 'traced' or 'share'$"),
        (["glibc"], {}, r"this process allocates elsewhere: use 'traced' or 'share'$"),
        (
            ["glibc"],
            {"PYTHONMALLOC": "mimalloc_debug"},
            r"Python allocates elsewhere with PYTHONMALLOC=mimalloc_debug: start without it, or use 'traced'",
        ),
    ],
)
@pytest.mark.gil
def test_a_worker_whose_memory_is_in_no_account_is_a_clear_error(
    run: Run, monkeypatch: pytest.MonkeyPatch, found: list[str], environment: dict[str, str], why: str
) -> None:
    """`attach` raises it in one line, and leaves nothing behind."""
    monkeypatch.delenv("PYTHONMALLOC", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        heap_methods, "allocators", lambda: [Allocator(name, "mallinfo2", reads_nothing) for name in found]
    )

    async def main() -> None:
        loop = asyncio.get_running_loop()
        introspector = Introspector(memory="heap", socket_path=False)
        accepted = r"^memory='heap' reads the account of glibc \(2\.33 or newer\), jemalloc .* or tcmalloc, and "
        with pytest.raises(ArgumentError, match=accepted + why):
            introspector.attach()
        assert loop.get_task_factory() is None

    run(main())


@glibc
def test_a_pool_of_such_a_worker_ends_with_that_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool's sessions do not run unmeasured."""
    monkeypatch.setattr(heap_methods, "allocators", list)

    async def main() -> None:
        await AgentPool(introspection={"memory": "heap", "socket_path": False}).serve()

    with pytest.raises(ArgumentError, match=r"^memory='heap' reads the account of glibc"):
        run(main())


@glibc
@pytest.mark.parametrize("small", [False, True])
def test_a_note_names_the_account_and_what_is_not_in_it(run: Run, monkeypatch: pytest.MonkeyPatch, small: bool) -> None:
    """Python's small objects are, if Python takes them from malloc too."""
    monkeypatch.setattr(Allocator, "counts", lambda self, *trial: trial == LARGE or small)

    async def main() -> list[str]:
        async with Introspector(memory="heap", socket_path=False) as introspector:
            return introspector.snapshot().worker.notes

    unseen = "" if small else " and, without PYTHONMALLOC=malloc, small objects of Python (up to 512 bytes)"
    assert run(main()) == [
        f"heap_mb, read from glibc (mallinfo2), leaves out mapped memory (mmap){unseen}, "
        "and credits what is freed to whoever held the loop then"
    ]


# --- what reading may cost ---------------------------------------------------------------------------


class ExpensiveHeap(Heap):
    """A heap whose readings take time on the clock. The test sets the bytes in use."""

    blind_to = "much"
    cost = 0.0
    in_use = 0

    def read(self) -> int:
        self.clock.advance(self.cost)  # type: ignore[attr-defined]
        return self.in_use


class Worker:
    """A loop's ledger with such a heap. Steps and their readings advance its clock."""

    def __init__(self, cost: float = 0.0, in_steps: float = 0.0) -> None:
        self.clock = FakeClock(0.0)
        self.heap = ExpensiveHeap(self.clock)
        self.ledger = Ledger(ContextVar("binding"), self.clock, limit=60.0)
        self.reader = self.heap.reader()
        self.ledger.measure_heap(self.reader)
        self.reader.random = random.Random(7).random
        self.heap.cost = cost

    def step(self, holder: Account, allocates: int = 0) -> bool:
        """Run one step. Return whether it was read."""
        outside, start = self.ledger.begin(holder)
        self.heap.in_use += allocates
        self.ledger.end(outside, start)
        return self.reader.sampled

    def run(self, seconds: int, steps_a_second: int, *, allocates: int = 0, holder: Account | None = None) -> None:
        """Run so many steps in each second, and adjust the sampling once a second.

        The steps are as fast as their readings allow.
        """
        holder = holder or Account()
        for _ in range(seconds):
            ends = self.clock() + 1.0
            for _ in range(steps_a_second):
                self.step(holder, allocates)
            self.clock.advance_to(ends)
            self.heap.adjust_sampling(self.clock())


def test_if_reading_is_cheap_every_step_is_read() -> None:
    """A thousand steps with two readings of 9 µs are within the budget: no note."""
    worker = Worker(cost=9e-6)
    worker.run(20, 1000)
    assert (worker.heap.sampling_period, worker.heap.exact, worker.heap.note()) == (1, True, None)


def test_if_reading_is_expensive_only_so_many_steps_are_read_as_the_budget_allows() -> None:
    """A thousand times two readings of 100 µs are a fifth of the loop.

    For one step in 16 this is 1.25 %. A note describes it.
    """
    worker = Worker(cost=100e-6)
    worker.run(20, 1000)
    began, due = worker.clock(), worker.reader.due
    read = sum(worker.step(Account()) for _ in range(1000))
    assert worker.heap.sampling_period == 16
    assert worker.clock() - began == pytest.approx(read * 200e-6)
    assert 0 < read < 100
    assert worker.reader.due - due == 2000
    assert worker.heap.note() == (
        "one step in 16, drawn at random, has the bytes in use read, which takes 100 µs: "
        "heap_mb is an estimate, and leaves out calls in threads"
    )


def test_what_is_read_counts_for_what_is_not() -> None:
    """The estimates are without bias, and no other session is charged."""
    worker = Worker()
    worker.heap.sampling_period = 16
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
    """Holders that take over in mid-step count for as much as the first one."""
    worker = Worker()
    worker.heap.sampling_period = 4
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
        times = 4 if worker.reader.sampled else 0
        assert (outer.heap, inner.heap, scope.heap) == (times, 10 * times, 100 * times)
        drawn.add(times)
    assert drawn == {0, 4}


def test_one_busy_second_does_not_decide() -> None:
    """A burst among quiet seconds is within the budget of five. A longer one is not."""
    worker = Worker(cost=9e-6)
    worker.run(10, 100)
    worker.run(1, 4000)
    assert worker.heap.sampling_period == 1
    worker.run(4, 4000)
    assert worker.heap.sampling_period == 4


def test_readings_that_the_host_interrupts_do_not_decide() -> None:
    """A third of the readings takes a hundred times as long, as on a crowded machine."""
    worker = Worker()
    worker.run(5, 100)
    for _ in range(20):
        for step in range(1000):
            worker.heap.cost = 0.0005 if step % 3 == 0 else 1e-6
            worker.step(Account())
        worker.clock.advance(0.1)
        worker.heap.adjust_sampling(worker.clock())
    assert worker.heap.sampling_period == 1


def test_a_loop_that_readings_hold_does_not_wait_for_the_next_second() -> None:
    """It reads less at once: the service thread may not run while the loop is held."""
    worker = Worker(cost=0.004)
    for _ in range(500):
        worker.step(Account())
    assert worker.heap.sampling_period > 1
    assert worker.clock() < 1.0  # for a thousand readings of 4 ms


def test_it_comes_back_once_readings_have_been_cheap_for_a_while() -> None:
    """After ten seconds there is no note. Older sessions are known by estimates."""
    worker = Worker(cost=100e-6)
    worker.run(10, 1000)
    before = Session("before", "test", {}, worker.clock())
    worker.heap.cost = 1e-6
    worker.run(8, 1000)
    assert (worker.heap.sampling_period, worker.heap.exact_since) == (16, float("inf"))
    worker.run(20, 1000)
    after = Session("after", "test", {}, worker.clock())
    assert (worker.heap.sampling_period, worker.heap.note()) == (1, None)
    assert [worker.heap.knows(each) for each in (before, after)] == [True, True]
    assert [worker.heap.knows_exactly(each) for each in (before, after)] == [False, True]


def test_while_one_reading_takes_too_long_no_step_is_read() -> None:
    """One reading is tried a minute. Sessions that lived meanwhile have no figure."""
    worker = Worker(cost=0.02)
    before = Session("before", "test", {}, worker.clock())
    worker.run(5, 10)
    assert (worker.heap.on, worker.heap.knows(before)) == (False, False)
    assert worker.heap.note() == "reading the bytes in use takes 20 ms: heap_mb is not reported for now"
    began = worker.clock()
    assert not any(worker.step(Account()) for _ in range(1000))
    assert worker.clock() == began
    worker.run(120, 10)
    assert worker.clock() - began == pytest.approx(120.04, abs=0.03)  # two tries
    worker.heap.cost = 1e-6
    worker.run(80, 10)
    after = Session("after", "test", {}, worker.clock())
    assert (worker.heap.on, worker.heap.sampling_period, worker.heap.note()) == (True, 1, None)
    assert [worker.heap.knows(each) for each in (before, after)] == [False, True]
    assert worker.heap.knows_exactly(after)


def test_the_loop_that_pays_most_decides_and_one_that_is_gone_does_not() -> None:
    """Each loop has a budget of its own. All loops share the heap and its period."""
    worker = Worker(cost=50e-6)
    quiet = worker.heap.reader()
    worker.run(10, 1000)
    assert worker.heap.sampling_period == 8
    assert not all(quiet.draw() for _ in range(100))
    worker.heap.retire(worker.reader)
    for _ in range(20):
        worker.clock.advance(1.0)
        worker.heap.adjust_sampling(worker.clock())
    assert worker.heap.sampling_period == 1


def test_what_is_given_back_is_worth_no_reading_if_nothing_is_certain() -> None:
    """Sessions' ends and snapshots cost an expensive heap nothing."""
    worker = Worker(cost=0.001)
    worker.heap.sampling_period = 4
    began = worker.clock()
    assert worker.heap.given_back() == 0
    assert worker.clock() == began


@pytest.mark.parametrize("during", ["all of it", "its middle"])
def test_calls_in_threads_are_charged_to_nobody_while_not_every_step_is_read(run: Run, during: str) -> None:
    """Their memory cannot be separated from that of unread steps.

    The same holds if only a part of the call was so.
    """

    async def main() -> Any:
        async with Introspector(memory="traced", socket_path=False, slow_session_threshold_ms=60_000) as introspector:
            heap: Any = parts_of(introspector).shared.heap
            heap.adjust_sampling = lambda now: None

            def set_period(period: int) -> None:
                heap.sampling_period = period
                heap.exact_since = float("inf") if period > 1 else parts_of(introspector).shared.clock()

            def call() -> bytearray:
                if during == "its middle":
                    set_period(10**9)
                    set_period(1)
                return bytearray(MIB)

            async def work() -> list[bytearray]:
                return [await asyncio.to_thread(call) for _ in range(5)]

            if during == "all of it":
                set_period(10**9)
            with introspector.session("job-1", agent_name="test") as session:
                kept = await asyncio.create_task(work())
                return session.thread_heap, len(kept)

    assert run(main()) == (0, 5)


def test_the_snapshot_says_so_while_it_lasts(run_virtually: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ended sessions it reports what is certain. Loops attached later sample, too."""
    monkeypatch.setattr(heap_methods, "Traced", ExpensiveHeap)

    async def main(introspector: Introspector, loop: Any) -> Any:
        heap: Any = parts_of(introspector).shared.heap
        snapshots: list[Snapshot] = []

        async def steps(seconds: int) -> None:
            for _ in range(seconds):
                for _ in range(100):
                    await asyncio.sleep(0.01)
                parts_of(introspector).tick(loop.clock())
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
            heap.sampling_period = 1  # this session's is read by chance only
            await asyncio.create_task(leaves())
            await asyncio.create_task(steps(1))
            heap.cost = 0.0
            await asyncio.create_task(steps(40))
            await asyncio.create_task(leaves())
            await asyncio.create_task(steps(1))
        return snapshots, any(drawn), all(drawn)

    (cheap, expensive, left, back, last), some, every = virtually(run_virtually, main)
    said = "one step in 16, drawn at random, has the bytes in use read"
    assert [note.partition(", which")[0] for note in expensive.worker.notes] == [said, "much"]
    assert [snapshot.worker.notes for snapshot in (cheap, back, last)] == [["much"]] * 3
    assert all(snapshot.sessions[0].heap_mb is not None for snapshot in (cheap, expensive, left, back, last))
    assert (some, every) == (True, False)
    assert [len(snapshot.worker.left_behind) for snapshot in (expensive, left, back, last)] == [0, 0, 0, 1]


def test_a_reading_that_takes_too_long_is_reported_and_no_figure_is(
    run_virtually: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figure is null, not what it was before: the present value is unknown."""
    monkeypatch.setattr(heap_methods, "Traced", ExpensiveHeap)

    async def main(introspector: Introspector, loop: Any) -> Any:
        heap: Any = parts_of(introspector).shared.heap
        heap.cost = 0.03
        with introspector.session("job-1", agent_name="test"):

            async def steps() -> None:
                for _ in range(3):
                    for _ in range(10):
                        await asyncio.sleep(0.1)
                    parts_of(introspector).tick(loop.clock())

            before: Snapshot = introspector.snapshot()
            await asyncio.create_task(steps())
            return before, introspector.snapshot()

    before, after = virtually(run_virtually, main)
    assert (before.sessions[0].heap_mb, after.sessions[0].heap_mb) == (0.0, None)
    assert after.worker.notes == ["reading the bytes in use takes 30 ms: heap_mb is not reported for now", "much"]


def test_tracing_is_left_as_it_was_found(run: Run) -> None:
    """It ends if the introspector began it, and stays on if it was on."""

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


def test_memory_is_charged_on_any_loop(on_any_loop: Backend, tidy: None) -> None:
    """A session is charged with what its own steps take and give back.

    Our threads allocate meanwhile.
    """

    async def main() -> list[float | None]:
        kept: list[bytearray] = []
        reported = []
        async with Introspector(memory="traced", socket_path=False, slow_session_threshold_ms=60_000) as introspector:

            def heap_mb(session_id: str) -> float | None:
                return next(row.heap_mb for row in introspector.snapshot().sessions if row.session_id == session_id)

            async def work() -> None:
                kept.extend(bytearray(MIB) for _ in range(50))
                await anyio.sleep(0)
                reported.append(heap_mb("job-1"))
                kept.clear()
                await anyio.sleep(0)

            async def other() -> None:
                kept.extend(bytearray(MIB) for _ in range(30))

            with introspector.session("job-1", agent_name="test"):
                await in_task(work)
                with introspector.session("job-2", agent_name="test"):
                    await in_task(other)
                    reported.append(heap_mb("job-2"))
                reported.append(heap_mb("job-1"))
        return reported

    held, others, given_back = on_any_loop(main())
    assert held == pytest.approx(50, abs=2)
    assert others == pytest.approx(30, abs=2)
    assert given_back == pytest.approx(0, abs=2)


def test_tracemalloc_is_the_same_read_by_a_reader_and_by_the_heap() -> None:
    """A buffer of 8 MB is as large for both."""
    heap = heap_methods.Traced()
    heap.start()
    try:
        reader = heap.reader()
        before = (reader(), heap.read())
        kept = bytearray(8 * MIB)
        after = (reader(), heap.read())
    finally:
        heap.stop()
    assert [now - then for now, then in zip(after, before, strict=True)] == [pytest.approx(8 * MIB, rel=0.01)] * 2
    assert len(kept) == 8 * MIB


def test_the_account_of_readings_is_the_same_with_both_meters() -> None:
    """Steps drawn, readings due and timed, bytes given back: with the same random numbers, the same figures."""
    worker = Worker(cost=1e-6)
    worker.heap.sampling_period = 3
    holder, drawn = Account(), []
    for number in range(60):
        drawn.append(worker.step(holder, allocates=1000 if number % 3 else -500))
        worker.heap.in_use -= 7  # between steps, by nobody
    reader = worker.reader
    assert (sum(drawn), reader.due, reader.given_back, holder.heap) == (25, 120, 5584, 34_500)
    assert (reader.sampled, reader.weight) == (False, 3)
    assert (reader.untimed, len(reader.times), reader.spent_s) == (6, 8, pytest.approx(8 * 7e-6))


@pytest.mark.parametrize("meter", list(dict.fromkeys([StepHeap, StepHeapInPython])))
def test_a_step_s_memory_is_charged_the_same_by_both_meters(meter: Any) -> None:
    """What is freed after a scope was left is the scope's; what calls in threads took is nobody's."""
    worker = Worker()
    heap, first, second = meter(), Account(), Account()
    heap.charge(first)  # without a reader
    heap.reader = worker.reader
    heap.open()
    worker.heap.in_use += 1000
    heap.charge(first)
    heap.charged_elsewhere += 300
    worker.heap.in_use += 400
    heap.charge(second)
    heap.exited_scope = first
    worker.heap.in_use -= 50
    heap.close(second)
    assert (first.heap, second.heap, heap.charged, heap.at, heap.exited_scope) == (950, 100, 1050, 1050, None)


def test_an_error_of_a_reading_is_raised_at_the_switch() -> None:
    """The meter takes it for its own fault, and ends."""

    def fail() -> int:
        raise OSError("no figures")

    worker = Worker()
    worker.heap.sampling_period = 1
    heap = StepHeap()
    heap.reader = worker.heap.reader()
    heap.reader.raw = fail
    with pytest.raises(OSError, match="no figures"):
        heap.open()
    with pytest.raises(OSError, match="no figures"):
        heap.close(Account())
