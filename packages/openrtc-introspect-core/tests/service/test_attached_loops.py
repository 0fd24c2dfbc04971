"""Several event loops in one process, each in a thread of its own, under one introspector."""

from __future__ import annotations

import asyncio
import gc
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import Introspector, Session, SessionRow, Snapshot, StateError, current_session
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._loops.asyncio_hook import AsyncioHook
from openrtc_introspect_core._service.attached_loops import MAX_DETACHED
from openrtc_introspect_core._service.introspection import Introspection
from openrtc_introspect_core.wire import LoopInfo
from openrtc_introspect_testing._loops.backends import Backend
from openrtc_introspect_testing._loops.fake_clock import FakeClock
from openrtc_introspect_testing._loops.introspection_threads import ours_end

Run = Callable[[Coroutine[Any, Any, Any]], Any]
DEADLINE_S = 30.0


class LoopThread:
    """An asyncio loop that runs in a thread of this name until it is closed."""

    def __init__(self, name: str, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        self._factory = loop_factory or asyncio.SelectorEventLoop
        self._ready = threading.Event()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()
        assert self._ready.wait(DEADLINE_S)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._factory) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._ready.set()
        await self._end.wait()

    def start(self, coro: Coroutine[Any, Any, Any]) -> Any:
        """Run `coro` on this loop in the caller's context. Return a future of its result."""
        return asyncio.run_coroutine_threadsafe(coro, self.loop)

    def call(self, coro: Coroutine[Any, Any, Any]) -> Any:
        return self.start(coro).result(DEADLINE_S)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._end.set)
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()


async def attach(introspector: Introspector) -> None:
    introspector.attach()


@contextmanager
def two_loops(**options: Any) -> Iterator[tuple[Introspector, LoopThread, LoopThread]]:
    """Yield an introspector that is attached to the loops of two threads, "one" and "two"."""
    introspector = Introspector(**{"socket_path": False, **options})
    with ExitStack() as stack:
        loops = [LoopThread(name) for name in ("one", "two")]
        for each in loops:
            stack.callback(each.close)
        stack.callback(introspector.close)
        for each in loops:
            each.call(attach(introspector))
        yield introspector, loops[0], loops[1]


@contextmanager
def session_on(loop: LoopThread, introspector: Introspector, session_id: str) -> Iterator[Callable[..., Any]]:
    """Open a session's scope in a task of this loop. Yield a function that runs a coroutine inside of the scope."""
    orders: asyncio.Queue[Any] = asyncio.Queue()
    opened = threading.Event()

    async def entry() -> None:
        with introspector.session(session_id, agent_name="test"):
            opened.set()
            while (order := await orders.get()) is not None:
                coro, done = order
                task = asyncio.create_task(coro)
                await asyncio.wait([task])
                done.append(task)

    def run(coro: Coroutine[Any, Any, Any]) -> Any:
        done: list[asyncio.Task[Any]] = []
        loop.loop.call_soon_threadsafe(orders.put_nowait, (coro, done))
        wait_until(lambda: bool(done))
        settle(introspector)
        return done[0].result()

    running = loop.start(entry())
    assert opened.wait(DEADLINE_S)
    settle(introspector)
    try:
        yield run
    finally:
        loop.loop.call_soon_threadsafe(orders.put_nowait, None)
        running.result(DEADLINE_S)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.001)


def settle(introspector: Introspector) -> None:
    """Wait until every loop waits: a step that advances the clock would advance it in another loop's step as well."""
    hooks = [loop.hook for loop in parts_of(introspector).loops]

    def all_wait() -> bool:
        since = [hook.iterations.waiting_since for hook in hooks]
        time.sleep(0.005)  # `select` with a timeout of 0 is no wait
        return since == [hook.iterations.waiting_since for hook in hooks] and all(
            hook.iterations.busy_since is None for hook in hooks
        )

    wait_until(all_wait)


def rows(introspector: Introspector) -> dict[str, SessionRow]:
    return {row.session_id: row for row in introspector.snapshot().sessions}


def live_session(introspector: Introspector, session_id: str) -> Session:
    return parts_of(introspector).shared.sessions.live[session_id]


def infos(snapshot: Snapshot) -> list[LoopInfo]:
    return snapshot.worker.loops


def test_sessions_show_their_loop_and_loops_their_sessions() -> None:
    """Rows name their loop, loops count their sessions; the worker's kind of loop is that of the first."""
    with two_loops() as (introspector, one, two):  # noqa: SIM117
        with session_on(one, introspector, "a"), session_on(two, introspector, "b"), session_on(two, introspector, "c"):
            snapshot = introspector.snapshot()
    assert [(loop.name, loop.loop, loop.thread, loop.sessions) for loop in infos(snapshot)] == [
        ("asyncio-1", "asyncio", "one", 1),
        ("asyncio-2", "asyncio", "two", 2),
    ]
    assert {row.session_id: row.loop for row in snapshot.sessions} == {
        "a": "asyncio-1",
        "b": "asyncio-2",
        "c": "asyncio-2",
    }
    assert snapshot.worker.loop == "asyncio"


def test_with_one_loop_nothing_is_said_of_loops(run_virtually: Run) -> None:
    """The fields are null and empty: the worker's own fields say everything."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            with introspector.session("a", agent_name="test"):
                loop.block(0.2)
                await asyncio.sleep(0)
                return introspector.snapshot(), introspector.blocks()

    snapshot, (block,) = run_virtually(main())
    assert (snapshot.worker.loops, snapshot.sessions[0].loop, block.loop) == ([], None, None)


def test_a_block_is_of_its_loop_only() -> None:
    """The block has the loop's name, and no session of another loop is blamed or counted as delayed."""
    clock = FakeClock()

    async def block() -> None:
        clock.advance(0.2)

    with two_loops(clock=clock, stacks=False) as (introspector, one, two):  # noqa: SIM117
        with session_on(one, introspector, "culprit") as run_culprit, session_on(two, introspector, "elsewhere"):
            run_culprit(block())
            blocks, seen = introspector.blocks(), rows(introspector)
    assert [(each.session_id, each.loop, each.delayed) for each in blocks] == [("culprit", "asyncio-1", [])]
    assert (seen["culprit"].status, seen["elsewhere"].status) == ("slow", "active")
    assert (seen["elsewhere"].delayed_s, seen["elsewhere"].blocks) == (0.0, 0)


def test_each_loop_has_a_block_in_progress_of_its_own() -> None:
    """If both are held at once, there are two blocks, and two sessions show as blocked."""
    clock = FakeClock()
    held, release = threading.Barrier(3), threading.Event()

    async def hold() -> None:
        held.wait(DEADLINE_S)
        release.wait(DEADLINE_S)

    with two_loops(clock=clock, stacks=False) as (introspector, one, two), ExitStack() as stack:
        runs = [stack.enter_context(session_on(loop, introspector, name)) for loop, name in ((one, "a"), (two, "b"))]
        threads = [threading.Thread(target=run, args=(hold(),)) for run in runs]
        for thread in threads:
            thread.start()
        held.wait(DEADLINE_S)
        clock.advance(0.5)
        snapshot = introspector.snapshot()
        release.set()
        for thread in threads:
            thread.join(DEADLINE_S)
    in_progress = {block.session_id: (block.loop, round(block.duration_ms)) for block in snapshot.blocks_in_progress}
    assert in_progress == {"a": ("asyncio-1", 500), "b": ("asyncio-2", 500)}
    assert {row.status for row in snapshot.sessions} == {"blocked"}


def test_work_of_a_session_on_another_loop_is_its_own() -> None:
    """Work that is sent there with its context is charged to the session, and to the other loop's time."""
    clock = FakeClock()

    async def work(seconds: float) -> str | None:
        clock.advance(seconds)
        session = current_session()
        return session.session_id if session is not None else None

    with two_loops(clock=clock, stacks=False, slow_session_threshold_ms=1000) as (introspector, one, two):
        go = asyncio.Event()

        async def once_released() -> str | None:
            await go.wait()
            return await work(0.03)

        async def send() -> Any:
            clock.advance(0.02)
            return two.start(once_released())

        with session_on(one, introspector, "a") as run:
            sent = run(send())
            two.loop.call_soon_threadsafe(go.set)
            assert sent.result(DEADLINE_S) == "a"
            settle(introspector)
            row = rows(introspector)["a"]
            totals = [loop.ledger.accounts.totals(loop.ledger.read())[0] for loop in parts_of(introspector).loops]
    assert (row.cpu_s, row.loop) == (pytest.approx(0.05), "asyncio-1")
    assert totals == [pytest.approx(0.02), pytest.approx(0.03)]


def test_steps_on_two_loops_at_once_are_all_counted() -> None:
    """Each loop's thread counts in an account of its own."""
    count = 20_000

    async def turns() -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    timed = {"budget_pct": 0}  # above the budget, drawn steps count for others: each account's number is an estimate
    with two_loops(stacks=False, **timed) as (introspector, one, two), session_on(one, introspector, "a") as run:
        before = rows(introspector)["a"].steps

        async def both() -> None:
            there = asyncio.wrap_future(two.start(turns()))
            await asyncio.gather(turns(), there)

        run(both())
        after = rows(introspector)["a"].steps
        steps = sorted(account.steps for account in live_session(introspector, "a").accounts)
    assert before is not None
    assert after is not None
    assert after - before >= 2 * (count + 1)
    assert min(steps) == count + 1


def test_the_loops_shares_of_time_are_shown_apart_and_on_average() -> None:
    """Each loop has shares of its own; the worker's are their mean, and its lag is the worst loop's."""
    clock = FakeClock()

    async def work() -> None:
        clock.advance(0.5)

    with two_loops(clock=clock, stacks=False, slow_session_threshold_ms=2000) as (introspector, one, two):  # noqa: SIM117
        with session_on(one, introspector, "a") as run, session_on(two, introspector, "b"):
            run(work())
            clock.advance(0.5)
            snapshot = introspector.snapshot()
    busy, quiet = (loop.loop_time for loop in infos(snapshot))
    assert (busy.sessions_pct, busy.idle_pct) == (pytest.approx(50), pytest.approx(50))
    assert (quiet.sessions_pct, quiet.idle_pct) == (pytest.approx(0), pytest.approx(100))
    assert snapshot.worker.loop_time.sessions_pct == pytest.approx(25)
    assert snapshot.worker.loop_time.idle_pct == pytest.approx(75)
    assert [loop.lag_max_ms for loop in infos(snapshot)] == [pytest.approx(500), 0.0]
    assert snapshot.worker.lag_max_ms == pytest.approx(500)


def test_a_loop_that_ends_is_detached_and_the_others_go_on() -> None:
    """Its thread need not detach it; its totals stay, and new loops can be attached."""
    introspector = Introspector(socket_path=False)
    stays, ends = LoopThread("stays"), LoopThread("ends")
    for each in (stays, ends):
        each.call(attach(introspector))
    with session_on(ends, introspector, "short"):
        pass
    ends.close()
    wait_until(lambda: len(parts_of(introspector).loops) == 1)
    gone = introspector.snapshot()
    with session_on(stays, introspector, "long"):
        alone = rows(introspector)["long"].loop
    later = LoopThread("later")
    later.call(attach(introspector))
    with session_on(later, introspector, "new"):
        snapshot = introspector.snapshot()
    introspector.close()
    for each in (stays, later):
        each.close()
    assert (gone.worker.started, gone.worker.loops, alone) == (1, [], None)
    assert [loop.name for loop in infos(snapshot)] == ["asyncio-1", "asyncio-3"]
    assert snapshot.sessions[0].loop == "asyncio-3"
    assert introspector.snapshot().worker.notes == []


def test_nothing_is_kept_of_a_loop_that_was_detached(run_on_asyncio: Run) -> None:
    """A second later even the file of its thread's usage is closed: until then someone may have read it."""

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:
            other = LoopThread("other")
            other.call(attach(introspector))
            gone = parts_of(introspector).loops[1]
            closed: list[Any] = []
            gone.close = lambda: closed.append(gone)  # type: ignore[method-assign]
            introspector.detach(other.loop)
            other.close()
            parts_of(introspector).tick(clock())
            before = list(closed)
            clock.advance(1.0)
            parts_of(introspector).tick(clock())
            return before, closed == [gone], len(parts_of(introspector).loops.detached)

    assert run_on_asyncio(main()) == ([], True, 0)


def test_a_task_of_a_detached_loop_causes_no_block_and_one_if_it_is_attached_again(run_on_asyncio: Run) -> None:
    """Its steps are still metered, for the loop that was detached."""

    async def main() -> tuple[list[float], list[float]]:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:
            steps = asyncio.Queue[float]()

            async def agent() -> None:
                with introspector.session("job-1", agent_name="test"):
                    while seconds := await steps.get():
                        clock.advance(seconds)

            async def blocks_of(seconds: float) -> list[float]:
                steps.put_nowait(seconds)
                for _ in range(5):
                    await asyncio.sleep(0)
                return [block.duration_ms for block in introspector.blocks()]

            task = asyncio.create_task(agent())
            await asyncio.sleep(0)
            introspector.detach()
            detached = await blocks_of(1.0)
            introspector.attach()
            again = await blocks_of(2.0)
            steps.put_nowait(0.0)
            await task
            return detached, again

    assert run_on_asyncio(main()) == ([], [2000.0])


def test_of_loops_that_come_and_go_faster_than_it_ticks_few_are_kept() -> None:
    """Each that is kept has open files, and a program that runs a loop for each request would run out of them."""
    introspector = Introspector(socket_path=False, black_box=False, clock=FakeClock())
    try:
        for _ in range(2 * MAX_DETACHED):
            asyncio.run(attach(introspector))
        parts = parts_of(introspector)
        kept = [loop.hook for loop in parts.loops] + [loop.hook for _, loop in parts.loops.detached]
    finally:
        introspector.close()
    assert len(kept) == 1 + MAX_DETACHED


@pytest.mark.parametrize("cpu", ["exact", "sampled"])
def test_the_tasks_of_a_closed_loop_are_freed_at_once_and_the_loop_once_it_is_detached(cpu: Any) -> None:
    """That is so while the introspector lives, and although the watchdog has seen the tasks block the loop."""

    class Thing:
        pass

    introspector = Introspector(socket_path=False, cpu=cpu, slow_session_threshold_ms=5)
    left: list[weakref.ref[Any]] = []

    async def main() -> None:
        introspector.attach()
        thing = Thing()

        async def blocks() -> None:
            held = thing
            time.sleep(0.05)
            del held

        def called(held: Thing) -> None:
            time.sleep(0.05)

        with introspector.session("a", agent_name="test"):
            task = asyncio.create_task(blocks())
            never_done = asyncio.create_task(asyncio.Event().wait())
            await task
        asyncio.get_running_loop().call_soon(called, thing)
        await asyncio.sleep(0.001)
        left.extend(map(weakref.ref, (thing, task, never_done, asyncio.current_task(), asyncio.get_running_loop())))

    asyncio.run(main())
    gc.collect()
    assert [each() for each in left[:-1]] == [None] * 4
    assert len(introspector.blocks()) >= 2
    wait_until(lambda: gc.collect() >= 0 and left[-1]() is None)
    introspector.close()


def test_what_a_step_costs_is_measured_once_for_a_kind_of_loop(
    run_on_asyncio: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measurement is not repeated when loops come and go."""
    measured: list[None] = []

    def step_cost(hook: AsyncioHook, ledger: Any) -> float:
        measured.append(None)
        return 1e-6

    monkeypatch.setattr(AsyncioHook, "step_cost", step_cost)

    async def main() -> Any:
        clock = FakeClock()
        introspector = Introspector(socket_path=False, clock=clock)
        tick = parts_of(introspector).tick
        monkeypatch.setattr(parts_of(introspector), "tick", lambda now: None)  # the service thread's
        async with introspector:
            tick(clock())
            other = LoopThread("other")
            other.call(attach(introspector))
            clock.advance(1.0)
            tick(clock())
            costs = [loop.step_cost for loop in parts_of(introspector).loops]
            other.close()
            return costs

    one, other = run_on_asyncio(main())
    assert one.timed == 1e-6
    assert one is other
    assert len(measured) == 3  # with every step timed, with one in some, with none


def test_a_loop_that_is_stopped_blocks_no_session() -> None:
    """Its thread does other work, and the loop may be run again."""
    clock = FakeClock()
    loop = asyncio.SelectorEventLoop()
    introspector = Introspector(socket_path=False, stacks=False, clock=clock)
    introspector.attach(loop)
    loop.run_until_complete(asyncio.sleep(0))
    clock.advance(10)
    stopped = introspector.snapshot()
    loop.run_until_complete(asyncio.sleep(0))
    introspector.close()
    loop.close()
    assert (stopped.blocks_in_progress, introspector.blocks()) == ([], [])
    assert stopped.worker.loop_time.idle_pct == pytest.approx(100)
    assert stopped.worker.lag_max_ms == 0.0


@pytest.mark.gil
def test_a_loop_attached_here_may_run_in_another_thread(tmp_path: Path) -> None:
    """Its blocks have their line: the watchdog samples the thread that runs it."""
    loop = asyncio.SelectorEventLoop()
    introspector = Introspector(socket_path=False, slow_session_threshold_ms=150)
    introspector.attach(loop)

    async def work() -> None:
        with introspector.session("a", agent_name="test"):
            await asyncio.sleep(0.001)
            time.sleep(0.4)
            await asyncio.sleep(0)

    thread = threading.Thread(target=loop.run_until_complete, args=(work(),))
    thread.start()
    thread.join(DEADLINE_S)
    introspector.close()
    loop.close()
    (block,) = [block for block in introspector.blocks() if block.duration_ms >= 400]
    assert block.location is not None
    assert block.location.line == work.__code__.co_firstlineno + 3


def test_detach_restores_one_loop_and_keeps_the_others() -> None:
    """Its tasks are no longer metered; a second detach is an error."""
    with two_loops() as (introspector, one, two):

        async def detach() -> Any:
            introspector.detach()
            loop = asyncio.get_running_loop()
            return loop.get_task_factory(), set(vars(loop)) & {
                "call_soon",
                "create_task",
                "run_forever",
                "run_in_executor",
            }

        left = two.call(detach())
        with pytest.raises(StateError, match=r"'worker' is not attached to <.*: attach it first"):
            two.call(detach())
        with session_on(one, introspector, "a"):
            kept = introspector.snapshot()
        introspector.detach(one.loop)
        nothing = introspector.snapshot()
    assert left == (None, set())
    assert (kept.worker.loops, kept.worker.sessions) == ([], 1)
    assert (nothing.worker.loop, nothing.worker.loop_time.idle_pct) == ("asyncio", None)


def test_a_loop_is_attached_from_its_own_thread_although_asyncio_does_not_say_that_it_runs() -> None:
    """Tasks of another library's loop that drives asyncio's are such a place."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        introspector = Introspector(socket_path=False)
        asyncio._set_running_loop(None)
        try:
            introspector.attach(loop)
        finally:
            asyncio._set_running_loop(loop)
        with introspector.session("a", agent_name="test") as session:
            await asyncio.create_task(asyncio.sleep(0))
        introspector.close()
        return session.steps

    assert asyncio.run(main()) >= 2


def test_a_loop_that_another_thread_runs_is_refused() -> None:
    """Only that thread may change it."""
    loop = asyncio.SelectorEventLoop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        wait_until(loop.is_running)
        with pytest.raises(StateError, match="runs in another thread"):
            Introspector(socket_path=False).attach(loop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(DEADLINE_S)
        loop.close()


def test_a_running_loop_of_an_unknown_thread_is_refused_for_that() -> None:
    """The error does not name a thread that the loop might not run in."""

    class Loop(asyncio.AbstractEventLoop):
        def is_running(self) -> bool:
            return True

    with pytest.raises(StateError, match="runs, and does not run this code"):
        Introspector(socket_path=False).attach(Loop())


def test_attaching_one_loop_twice_is_refused_and_closing_ends_all() -> None:
    """After closing, neither loop has anything of ours, and no loop can be added."""
    with two_loops() as (introspector, one, two):
        with pytest.raises(StateError, match="'worker' is attached already to <"):
            one.call(attach(introspector))
        introspector.close()
        for each in (one, two):
            assert each.loop.get_task_factory() is None
            assert "run_forever" not in vars(each.loop)
        with pytest.raises(StateError, match="'worker' is closed: make a new one"):
            two.call(attach(introspector))
    assert ours_end()


def test_a_scope_left_on_another_loop_is_ended() -> None:
    """Its task is counted off on the loop that counted it."""
    with two_loops() as (introspector, one, two):
        scope = introspector.session("a", agent_name="test")

        async def enter() -> Any:
            scope.__enter__()
            return live_session(introspector, "a")

        async def leave() -> None:
            scope.__exit__(None, None, None)

        session = one.call(enter())
        two.call(leave())
        wait_until(lambda: session.tasks == 0)
        assert introspector.snapshot().sessions == []


def test_a_scope_entered_beside_every_loop_has_none() -> None:
    """A session opened in a thread is listed, and charged with work that its context brings to the loops."""
    clock = FakeClock()

    async def work() -> None:
        clock.advance(0.02)

    with (
        two_loops(clock=clock, stacks=False) as (introspector, one, _),
        introspector.session("threaded", agent_name="test"),
    ):
        one.call(work())
        row = rows(introspector)["threaded"]
    assert (row.loop, row.cpu_s) == (None, pytest.approx(0.02))


def test_a_collection_is_of_the_loop_on_whose_thread_it_ran() -> None:
    """The other loop's ledger is not charged with it."""
    clock = FakeClock()

    async def collect() -> None:
        collections = parts_of(introspector).shared.gc_monitor
        collections._called("start", {"generation": 1})
        clock.advance(0.08)
        collections._called("stop", {"generation": 1})

    with two_loops(clock=clock, stacks=False) as (introspector, _, two), session_on(two, introspector, "a") as run:
        run(collect())
        charged = [loop.ledger.gc.busy for loop in parts_of(introspector).loops]
        (block,) = introspector.blocks()
    assert charged == [0.0, pytest.approx(0.08)]
    assert (block.session_id, block.cause, block.loop) == (None, "gc", "asyncio-2")


@pytest.mark.gil
def test_one_watchdog_finds_the_line_on_each_loop() -> None:
    """It does so in real time, in each loop's thread."""

    async def hold() -> None:
        time.sleep(0.4)

    with two_loops(slow_session_threshold_ms=150) as (introspector, one, two), ExitStack() as stack:
        for loop, name in ((one, "a"), (two, "b")):
            stack.enter_context(session_on(loop, introspector, name))(hold())
        watchdogs = [t.name for t in threading.enumerate() if t.name == "openrtc-introspect-watchdog"]
        blocks = [block for block in introspector.blocks() if block.duration_ms >= 400]
    assert watchdogs == ["openrtc-introspect-watchdog"]
    assert [block.loop for block in blocks] == ["asyncio-1", "asyncio-2"]
    lines = [block.location.line for block in blocks if block.location is not None]
    assert lines == [hold.__code__.co_firstlineno + 1] * 2


def test_the_watchdog_samples_first_the_loop_whose_sample_is_due_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that sleeps is not sampled at all."""
    from openrtc_introspect_core._blocks.watchdog import Watchdog, WatchdogThread

    monkeypatch.setattr(Watchdog, "start", lambda self: None)
    with two_loops() as (introspector, _, _):
        watchdog = parts_of(introspector).shared.watchdog
        assert watchdog is not None
        thread = WatchdogThread("none")
        thread._parts = (watchdog,)
        first, second = (loop.stall_sampler for loop in parts_of(introspector).loops)
        assert first is not None
        assert second is not None
        for each in (first, second):
            each.sleep(until_next_iteration=True)
        asleep = thread.next(), thread.alone
        first.wake()
        second.wake()
        first.due, second.due = 2.0, 1.0
        due_first = thread.next(), thread.alone
        second.sleep(until_next_iteration=True)
        left = thread.next(), thread.alone
    assert asleep == ((None, None), False)
    assert due_first == ((watchdog, second), False)  # so its ticks are not taken in C, which would not see the other
    assert left == ((watchdog, first), True)


def test_a_heartbeat_starts_and_stops_on_its_own_loop_s_thread() -> None:
    """A session on one loop starts the heartbeat of a uvloop, and the end of the last session stops it."""
    import uvloop

    introspector = Introspector(socket_path=False)
    timed, beating = LoopThread("timed"), LoopThread("beating", uvloop.new_event_loop)
    for each in (timed, beating):
        each.call(attach(introspector))
    hook: Any = parts_of(introspector).loops[1].hook
    wait_until(lambda: hook.iterations.heartbeat.due is None)
    with session_on(timed, introspector, "a"):
        wait_until(lambda: hook.iterations.heartbeat.due is not None)
        kinds = [loop.loop for loop in infos(introspector.snapshot())]
    wait_until(lambda: hook.iterations.heartbeat.due is None)
    introspector.close()
    for each in (timed, beating):
        each.close()
    assert kinds == ["asyncio", "uvloop"]


def test_samples_are_taken_of_each_loop() -> None:
    """With `cpu="sampled"`, a sample adds to a session on either loop."""
    with (
        two_loops(cpu="sampled", sample_interval_s=1000, stacks=False) as (introspector, one, two),
        ExitStack() as stack,
    ):
        sampler = parts_of(introspector).shared.sampler
        assert sampler is not None

        async def take_sample() -> None:
            sampler.sample()

        for loop, name in ((one, "a"), (two, "b")):
            stack.enter_context(session_on(loop, introspector, name))(take_sample())
        seen = rows(introspector)
    assert {name: row.cpu_s for name, row in seen.items()} == {"a": 1000, "b": 1000}


def test_tasks_and_stacks_are_those_of_all_loops() -> None:
    """So are those read over the socket: each loop's thread is marked as one."""
    from openrtc_introspect_core import connect

    async def ask(path: Any) -> Any:
        async with connect(path) as client:
            return await client.tasks("a"), await client.stacks()

    async def elsewhere(started: threading.Event) -> None:
        started.set()
        await asyncio.sleep(3600)

    with tempfile.TemporaryDirectory(prefix="rt") as directory:
        path = Path(directory) / "worker.sock"
        with two_loops(socket_path=path) as (introspector, one, two), session_on(one, introspector, "a") as run:
            started = threading.Event()

            async def send() -> Any:
                return two.start(elsewhere(started))

            future = run(send())
            assert started.wait(DEADLINE_S)
            tasks, stacks = asyncio.run(ask(path))
            future.cancel()
    coroutines = [task.coroutine.rpartition(".")[2] for task in tasks.tasks]
    assert sorted(coroutines) == ["elsewhere", "entry"]
    assert [stack.name for stack in stacks.threads if stack.loop] == ["one", "two"]


def test_another_loop_s_collection_that_kept_the_gil_is_named() -> None:
    """The loop that waited is not to blame, and neither is its session."""
    from openrtc_introspect_core._blocks.classification import Classification, Facts, classify
    from openrtc_introspect_core._blocks.stall_samples import StallSamples
    from openrtc_introspect_core._os.thread_usage import Usage

    seen = StallSamples(0.0, Usage(0.0, 0.0, 0.0)).up_to(0.2)
    facts = Facts(0.0, 0.2, in_step=False, limit=0.05, stall=seen, after=Usage(0.2, 0.0, 0.0), gc_elsewhere_s=0.15)
    assert classify(facts) == Classification("gil-contention", "another thread's collection kept the GIL")


@pytest.mark.slow
def test_loops_that_come_and_go_under_load_harm_no_session() -> None:
    """With short-lived loops, sessions on each and snapshots meanwhile, all is counted and nothing is left."""
    introspector = Introspector(socket_path=False)
    stays = LoopThread("stays")
    stays.call(attach(introspector))
    problems: list[BaseException] = []

    async def visit(number: int) -> None:
        introspector.attach()
        for turn in range(5):
            with introspector.session(f"s-{number}-{turn}", agent_name="test"):
                await asyncio.gather(*(asyncio.create_task(asyncio.sleep(0)) for _ in range(3)))

    def visitor(number: int) -> None:
        try:
            for turn in range(5):
                asyncio.run(visit(10 * number + turn))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=visitor, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        introspector.snapshot()
        time.sleep(0.002)
    gc.collect()
    wait_until(lambda: len(parts_of(introspector).loops) == 1)
    worker = introspector.snapshot().worker
    introspector.close()
    stays.close()
    assert problems == []
    assert (worker.started, worker.sessions, worker.notes) == (100, 0, [])


@pytest.mark.parametrize("later_s", [0.0, 0.2])
def test_what_attaching_takes_is_no_block(
    later_s: float, on_any_loop: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine threads start slowly. What the host's step does after that counts."""
    clock = FakeClock()
    start = Introspection._start_threads

    def start_slowly(introspection: Introspection) -> None:
        start(introspection)
        clock.advance(1.0)

    monkeypatch.setattr(Introspection, "_start_threads", start_slowly)

    async def main() -> list[float]:
        async with Introspector(socket_path=False, stacks=False, clock=clock) as introspector:
            clock.advance(later_s)
            for _ in range(3):
                await anyio.sleep(0.03)  # for a heartbeat
            return [block.duration_ms for block in introspector.blocks()]

    durations = on_any_loop(main())
    assert len(durations) == (later_s > 0.0)
    assert all(0.0 < duration <= 1000.0 * later_s + 0.001 for duration in durations)
