"""Loops of trio-asyncio's kind, on every Python: tests/ground has the tests against the real library."""

from __future__ import annotations

import asyncio
import heapq
import math
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from openrtc_introspect_core import Introspector, StateError
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_testing._loops.fake_clock import FakeClock

STEP_S = 0.01


class InnerLoop(asyncio.SelectorEventLoop):
    """A loop that runs its callbacks in a task of Trio's, with the names that trio-asyncio gives its parts."""

    def __init__(self) -> None:
        self._q_send, self._q_recv = trio.open_memory_channel[Any](math.inf)
        self._timers: list[Any] = []
        self._token: Any = None
        self._task: Any = None
        super().__init__()
        self._ready = self._scheduled = SimpleNamespace(clear=lambda: None)

    def time(self) -> float:
        return trio.current_time()

    def is_running(self) -> bool:
        return self._token is not None

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._q_send.send_nowait(handle)
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, timer)
        return timer

    async def _main_loop(self, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        self._token, self._task = trio.lowlevel.current_trio_token(), trio.lowlevel.current_task()
        task_status.started()
        async for handle in self._q_recv:
            self.run_now(handle)

    async def _io_task(self, handle: asyncio.Handle) -> None:
        await trio.sleep(0)
        self.run_now(handle)

    def run_now(self, handle: asyncio.Handle) -> None:
        asyncio._set_running_loop(self)
        try:
            handle._run()
        finally:
            asyncio._set_running_loop(None)

    async def finished(self, work: Any) -> Any:
        """Run a coroutine of asyncio's in a task of the loop."""
        task = self.create_task(work)
        done = trio.Event()
        task.add_done_callback(lambda _: done.set())
        await done.wait()
        return task.result()


Act = Callable[[InnerLoop, FakeClock], Awaitable[Any]]


@asynccontextmanager
async def opened() -> AsyncIterator[InnerLoop]:
    loop = InnerLoop()
    async with trio.open_nursery() as nursery:
        await nursery.start(loop._main_loop)
        try:
            yield loop
        finally:
            loop._q_send.close()
    loop._token = None
    loop.close()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Act], Any]:
    monkeypatch.setitem(sys.modules, "trio_asyncio", SimpleNamespace(BaseTrioEventLoop=InnerLoop))  # type: ignore[arg-type]

    def run(act: Act) -> Any:
        async def main() -> Any:
            async with opened() as loop:
                return await act(loop, FakeClock())

        return trio.run(main)

    return run


def new(clock: FakeClock, **arguments: Any) -> Introspector:
    return Introspector(socket_path=False, stacks=False, clock=clock, **arguments)


def session(introspector: Introspector, clock: FakeClock, name: str, seconds: float = STEP_S) -> Any:
    """Return a coroutine of a session with ten steps, which returns its loop time and its tasks."""

    async def steps() -> Any:
        with introspector.session(name, agent_name="a") as session:
            for _ in range(10):
                clock.advance(seconds)
                await asyncio.sleep(0)
            return round(session.busy, 6), session.tasks

    return steps()


def test_each_asyncio_step_is_its_session_s_and_what_is_changed_is_put_back(run: Callable[[Act], Any]) -> None:
    """In a loop that is older than the introspector."""

    async def act(loop: InnerLoop, clock: FakeClock) -> Any:
        async with new(clock) as introspector:
            seen = [
                await loop.finished(session(introspector, clock, "one")),
                await loop.finished(session(introspector, clock, "two", 0.02)),
            ]
        return seen, "create_task" in vars(loop)

    assert run(act) == ([(0.1, 1), (0.2, 1)], False)


def test_a_loop_that_is_opened_later_is_seen_until_it_is_closed(run: Callable[[Act], Any]) -> None:
    """It is forgotten with its task."""

    async def act(loop: InnerLoop, clock: FakeClock) -> Any:
        async with new(clock) as introspector:
            hook: Any = parts_of(introspector).loops[0].hook
            async with opened() as another:
                seen = await another.finished(session(introspector, clock, "s"))
                both = len(list(hook._inner))
            return seen, both, len(list(hook._inner)), list(hook._inner.hosting.values()) == list(hook._inner)

    assert run(act) == ((0.1, 1), 2, 1, True)


def test_attached_by_the_loop_it_is_attached_to_the_run(run: Callable[[Act], Any]) -> None:
    """Once, and detached by the loop as well."""

    async def act(loop: InnerLoop, clock: FakeClock) -> Any:
        introspector = new(clock)
        introspector.attach(loop)
        with pytest.raises(StateError, match="attached already to this Trio run"):
            introspector.attach()
        seen = await loop.finished(session(introspector, clock, "s"))
        introspector.detach(loop)
        introspector.close()
        return seen

    assert run(act) == (0.1, 1)


def test_a_scope_in_a_task_that_is_older_ends_with_the_step(run: Callable[[Act], Any]) -> None:
    """The loop shows no queue, and gives the thread back to Trio."""

    async def act(loop: InnerLoop, clock: FakeClock) -> Any:
        async def older() -> Any:
            await until.wait()
            with introspector.session("s", agent_name="a") as session:
                clock.advance(STEP_S)
                await asyncio.sleep(0)
                clock.advance(STEP_S)
                await asyncio.sleep(0)
                return round(session.busy, 6)

        async def others() -> None:
            for _ in range(5):
                await trio.sleep(0)
                clock.advance(0.005)

        until = asyncio.Event()
        async with trio.open_nursery() as nursery:
            results: list[Any] = []

            async def finish() -> None:
                results.append(await loop.finished(older()))

            nursery.start_soon(finish)
            await trio.testing.wait_all_tasks_blocked()
            introspector = new(clock)
            introspector.attach()
            nursery.start_soon(others)
            loop.call_soon(until.set)
        introspector.close()
        return results

    assert run(act) == [2 * STEP_S]


def test_a_block_is_the_asyncio_task_s_and_delays_who_waits_in_the_loop_s_queues(run: Callable[[Act], Any]) -> None:
    """A timer counts since it was due, and one that is not due does not."""

    async def act(loop: InnerLoop, clock: FakeClock) -> Any:
        async with new(clock) as introspector:

            async def waits(name: str, wait: Callable[[], object]) -> None:
                with introspector.session(name, agent_name="a"):
                    wait()
                    await ended.wait()

            async def holds() -> None:
                with introspector.session("s", agent_name="a"):
                    loop.call_soon(lambda: None, context=contexts[0])
                    clock.advance(0.2)

            ended = asyncio.Event()
            contexts: list[Context] = []
            ways: dict[str, Callable[[], object]] = {
                "queued": lambda: contexts.append(copy_context()),
                "due": lambda: loop.call_at(loop.time() - 0.05, lambda: None),
                "not due": lambda: loop.call_at(loop.time() + 60, lambda: None),
            }
            async with trio.open_nursery() as nursery:
                for name, way in ways.items():
                    nursery.start_soon(loop.finished, waits(name, way))
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(loop.finished, holds())
                await trio.testing.wait_all_tasks_blocked()
                loop.call_soon(ended.set)
            (block,) = introspector.blocks()
            delayed = {each.session_id: each.delayed_ms for each in block.delayed or ()}
            return block.session_id, (block.task_name or "").startswith("Task-"), delayed

    session_id, named, delayed = run(act)
    assert (session_id, named) == ("s", True)
    assert delayed == {"queued": pytest.approx(200), "due": pytest.approx(50, abs=40)}


def test_tasks_of_both_kinds_are_listed(run: Callable[[Act], Any]) -> None:
    """Their numbers do not overlap."""

    async def act(loop: InnerLoop, clock: FakeClock) -> Any:
        async with new(clock) as introspector:
            with introspector.session("s", agent_name="a"):
                task = loop.create_task(asyncio.sleep(60), name="of asyncio")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever, name="of Trio")
                    await trio.testing.wait_all_tasks_blocked()
                    tasks = introspector.tasks("s")
                    waits = {waiter.task_name for group in introspector.waits().groups for waiter in group.waiters}
                    nursery.cancel_scope.cancel()
            loop.call_soon(task.cancel)
            await trio.testing.wait_all_tasks_blocked()
            names = [each.name for each in tasks]
            return len({each.id for each in tasks}) == len(tasks), names, {"of asyncio", "of Trio"} <= waits

    distinct, names, waiting = run(act)
    assert (distinct, waiting) == (True, True)
    assert {"of asyncio", "of Trio"} <= set(names)


def test_a_file_s_callback_is_no_step(run: Callable[[Act], Any]) -> None:
    """Though a task of Trio's runs it, in a session's context."""

    async def act(loop: InnerLoop, clock: FakeClock) -> Any:
        async with new(clock) as introspector:
            with introspector.session("s", agent_name="a") as session:
                handle = asyncio.Handle(lambda: clock.advance(STEP_S), (), loop)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(loop._io_task, handle)
                return round(session.busy, 6)

    assert run(act) == 0.0


@pytest.mark.parametrize("cpu", ["sampled", "off"])
def test_without_metering_the_tasks_are_tagged(cpu: Any, run: Callable[[Act], Any]) -> None:
    """A sample finds the session whose asyncio task runs."""

    async def act(loop: InnerLoop, clock: FakeClock) -> Any:
        async with new(clock, cpu=cpu) as introspector:

            async def child() -> Any:
                session = parts_of(introspector).loops[0].hook.running_session()
                return session.session_id if session is not None else None

            async def parent() -> Any:
                with introspector.session("s", agent_name="a"):
                    return await loop.create_task(child())

            return await loop.finished(parent())

    assert run(act) == "s"


def test_a_loop_that_cannot_be_metered_is_noted(
    run: Callable[[Act], Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its tasks run as ever."""

    async def act(loop: InnerLoop, clock: FakeClock) -> Any:
        async with new(clock) as introspector:
            monkeypatch.setattr(InnerLoop, "get_task_factory", lambda loop: 1 / 0)
            async with opened() as another:
                await another.finished(asyncio.sleep(0))
            return introspector.snapshot().worker.notes

    (note,) = run(act)
    assert note.startswith("asyncio tasks of a loop of trio-asyncio are not metered: ZeroDivisionError")
