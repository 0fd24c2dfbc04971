from __future__ import annotations

import asyncio
import contextvars
import traceback
from collections.abc import Callable, Coroutine
from typing import Any
from unittest.mock import Mock

import anyio
import pytest

from openrtc_introspect_core import Introspector, StateError
from openrtc_introspect_core._asyncio import AsyncioHook
from openrtc_introspect_core._ledger import Ledger
from openrtc_introspect_core._log import flush
from openrtc_introspect_core._replaced import Replaced
from openrtc_introspect_testing._backends import Backend, in_task
from openrtc_introspect_testing._clock import FakeClock
from openrtc_introspect_testing._threads import ours_end

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_everything_touched_is_given_back(run: Run) -> None:
    """After the introspector the loop has its factory, its methods and no thread of ours."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def factory(loop: Any, coro: Any, **kwargs: Any) -> Any:
            return asyncio.Task(coro, loop=loop, **kwargs)

        loop.set_task_factory(factory)  # type: ignore[arg-type]
        selector = getattr(loop, "_selector", None)
        before = set(vars(loop)), set(vars(selector)) if selector is not None else None
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test"):
                await asyncio.sleep(0)
        assert loop.get_task_factory() is factory
        assert (set(vars(loop)), set(vars(selector)) if selector is not None else None) == before
        assert ours_end()

    run(main())


def test_an_existing_factory_is_called_with_what_it_was_given(run: Run) -> None:
    """The chained factory makes the task; name and context arrive."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        calls: list[dict[str, Any]] = []

        class Mine(asyncio.Task[Any]):
            pass

        def factory(loop: Any, coro: Any, **kwargs: Any) -> Any:
            calls.append(kwargs)
            return Mine(coro, loop=loop, **kwargs)

        loop.set_task_factory(factory)  # type: ignore[arg-type]
        context = contextvars.copy_context()
        async with Introspector(socket_path=False):
            task = asyncio.create_task(asyncio.sleep(0, "slept"), name="mine", context=context)
            result = await task
            return (
                type(task) is Mine,
                task.get_name(),
                result,
                [call.get("context") for call in calls],
                context,
            )

    made, name, result, contexts, context = run(main())
    assert (made, name, result) == (True, "mine", "slept")
    assert context in contexts


def test_a_task_is_of_the_class_that_the_loop_would_take(run_on_asyncio: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some put another in asyncio's place, such as asyncio's own in Python, before or after we attach."""

    class Theirs(asyncio.Task[Any]):
        pass

    async def main() -> Any:
        async with Introspector(socket_path=False):
            monkeypatch.setattr(asyncio.tasks, "Task", Theirs)
            task = asyncio.create_task(asyncio.sleep(0, "slept"))
            return type(task), await task

    assert run_on_asyncio(main()) == (Theirs, "slept")


@pytest.mark.parametrize("name", ["run_in_executor", "run_forever"])
def test_what_someone_else_had_put_there_is_put_back(name: str) -> None:
    """It is called meanwhile, and stands there again afterwards."""

    async def main() -> None:
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test"):
                await asyncio.to_thread(int)

    loop = asyncio.SelectorEventLoop()
    theirs = Mock(wraps=getattr(loop, name))
    setattr(loop, name, theirs)
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    assert vars(loop)[name] is theirs
    assert theirs.called


def test_a_create_task_on_top_is_left_alone_and_told_of(run_virtually: Run, caplog: pytest.LogCaptureFixture) -> None:
    """It stays when we go, ours passes tasks through then, and the snapshot says that it was set."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        introspector = Introspector(socket_path=False, clock=loop.clock)
        async with introspector:
            ours = loop.create_task

            def on_top(coro: Any, **kwargs: Any) -> Any:
                return ours(coro, **kwargs)

            loop.create_task = on_top
            with introspector.session("job-1", agent_name="test") as session:

                async def work() -> None:
                    loop.block(0.02)

                await asyncio.create_task(work())
            introspector._tick(loop.clock())
            introspector._tick(loop.clock())
            notes = introspector.snapshot().worker.notes
        left = loop.create_task is on_top
        busy = session.busy
        result = await asyncio.create_task(asyncio.sleep(0, "still works"))
        return notes, left, result, busy

    notes, left, result, busy = run_virtually(main())
    assert [note for note in notes if "create_task was replaced" in note]
    assert flush(60.0)
    assert sum("create_task was replaced" in record.message for record in caplog.records) == 1
    assert (left, result) == (True, "still works")
    assert busy == pytest.approx(0.02)


def test_detaching_while_it_is_looked_for_is_no_replaced_create_task(
    run_virtually: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service thread may ask in the middle of a detach: what the loop has back then is not a stranger's."""

    async def main() -> bool:
        loop: Any = asyncio.get_running_loop()
        ledger = Ledger(contextvars.ContextVar("test"), loop.clock, 0.05)
        hook = AsyncioHook(
            loop,
            ledger,
            meter=True,
            on_stall=lambda _since, _until: None,
            on_fault=lambda problem, _error: pytest.fail(problem),
        )
        hook.attach()
        is_reached = Replaced.is_reached

        def detached_meanwhile(replaced: Replaced) -> bool:
            monkeypatch.undo()
            hook.detach()
            return is_reached(replaced)

        monkeypatch.setattr(Replaced, "is_reached", detached_meanwhile)
        return hook.loses_tasks()

    assert run_virtually(main()) is False


def test_two_introspectors_on_one_loop_charge_their_own_sessions(virtually: Backend) -> None:
    """A test's and the program's: each has its books, neither takes the other for a stranger's factory."""

    async def main() -> Any:
        async with (
            Introspector(socket_path=False, clock=virtually.clock) as one,
            Introspector(socket_path=False, clock=virtually.clock) as two,
        ):

            async def work() -> None:
                virtually.block(0.02)
                await anyio.sleep(1)

            with one.session("same-id", agent_name="a") as in_one:
                await in_task(work)
            with two.session("same-id", agent_name="b") as in_two:
                await in_task(work)
                await in_task(work)
            one._tick(virtually.clock())
            return in_one.busy, in_two.busy, one.snapshot().worker.notes

    one, two, notes = virtually(main())
    assert one == pytest.approx(0.02)
    assert two == pytest.approx(0.04)
    assert notes == []


def test_debug_mode_shows_where_a_task_was_created_as_ever(run_on_asyncio: Run) -> None:
    """The creation traceback of a task ends in the caller, without a frame of ours."""

    async def main() -> Any:
        asyncio.get_running_loop().set_debug(True)

        def names(task: Any) -> list[str]:
            assert isinstance(task._source_traceback, traceback.StackSummary)
            return [frame.name for frame in task._source_traceback]

        def create() -> asyncio.Task[Any]:
            return asyncio.create_task(asyncio.sleep(0))

        plain = create()
        async with Introspector(socket_path=False):
            metered = create()
            await asyncio.gather(plain, metered)
            return names(plain), names(metered)

    plain, metered = run_on_asyncio(main())
    assert plain[-2:] == metered[-2:] == ["create", "create_task"]


def test_a_closed_loop_is_refused() -> None:
    """Attaching to it is an error that says so, and leaves nothing half-started."""
    loop = asyncio.new_event_loop()
    loop.close()
    introspector = Introspector()
    with pytest.raises(StateError, match="closed"):
        introspector.attach(loop)
    assert introspector.socket_path is None
    assert ours_end()


def test_a_loop_that_is_not_running_yet_can_be_attached_to() -> None:
    """Its stopped time is neither work nor a block."""
    from openrtc_introspect_testing._loop import FakeLoop

    loop = FakeLoop()
    introspector = Introspector(socket_path=False, clock=loop.clock)
    introspector.attach(loop)

    async def work(seconds: float) -> None:
        with introspector.session("job-1", agent_name="test"):
            loop.block(seconds)

    loop.run_until_complete(work(0.02))
    loop.clock.advance(100)
    loop.run_until_complete(work(0.03))
    introspector.close()
    loop.close()
    assert introspector.blocks() == []
    assert introspector._loops[0].times.mark(introspector._loops[0].ledger.standing()).sessions == pytest.approx(0.05)


def test_the_iteration_in_which_the_loop_stops_counts() -> None:
    """A callback that holds the loop right before it stops is a block like any other, and no idle time."""
    from openrtc_introspect_testing._loop import FakeLoop

    loop = FakeLoop()
    introspector = Introspector(socket_path=False, clock=loop.clock)
    try:
        introspector.attach(loop)
        loop.call_soon(loop.block, 0.2)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.block(5)
        loop.call_soon(loop.stop)
        loop.run_forever()
        idle = introspector._loops[0].hook.idle(loop.clock())
    finally:
        introspector.close()
        loop.close()
    assert [(block.session_id, round(block.duration_ms)) for block in introspector.blocks()] == [(None, 200)]
    assert idle == pytest.approx(5)


def test_attaching_from_another_thread_is_refused(run_virtually: Run) -> None:
    """A running loop is attached to from its own thread only."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        introspector = Introspector(socket_path=False)
        with pytest.raises(StateError, match="another thread"):
            await asyncio.to_thread(introspector.attach, loop)

    run_virtually(main())


def test_idle_and_busy_time_add_up(virtually: Backend) -> None:
    """Waiting is told apart from working to the clock's precision."""

    async def main() -> Any:
        async with Introspector(socket_path=False, clock=virtually.clock) as introspector:
            hook = introspector._loops[0].hook
            assert hook is not None
            idle = hook.idle(virtually.clock())
            began = virtually.clock()
            for _ in range(10):
                virtually.block(0.01)
                await anyio.sleep(0.04)
            after = hook.idle(virtually.clock())
            assert idle is not None
            assert after is not None
            return after - idle, virtually.clock() - began

    idle, wall = virtually(main())
    assert idle == pytest.approx(0.4)
    assert wall == pytest.approx(0.5)


def test_a_long_iteration_of_callbacks_is_a_block_of_no_session(run_virtually: Run) -> None:
    """Nobody is blamed for what ran outside of every task."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            with introspector.session("innocent", agent_name="test"):
                await asyncio.create_task(asyncio.sleep(0))
                loop.call_soon(loop.block, 0.2)
                await asyncio.sleep(0.01)
            return introspector.blocks()

    blocks = run_virtually(main())
    assert [(block.session_id, round(block.duration_ms)) for block in blocks] == [(None, 200)]


def test_a_collection_while_a_block_is_looked_at_is_no_fault(run_virtually: Run) -> None:
    """The block is recorded, with nothing to note."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(socket_path=False, stacks=False, clock=loop.clock) as introspector:
            ledger = introspector._loops[0].ledger

            class Collecting:
                holder = ledger.gc
                start = loop.clock()

                @property
                def end(self) -> float:
                    ledger.collected(loop.clock(), loop.clock())
                    return float(loop.clock())

            def block() -> None:
                ledger.steps.extend([Collecting()] * 2)  # type: ignore[list-item]
                loop.block(0.2)

            loop.call_soon(block)
            await asyncio.sleep(1)
            return [round(each.duration_ms) for each in introspector.blocks()], introspector.snapshot().worker.notes

    assert run_virtually(main()) == ([200], [])


def test_a_step_that_overran_is_reported_once(virtually: Backend) -> None:
    """The step's block and the long iteration it made are one."""

    async def main() -> Any:
        async with Introspector(socket_path=False, clock=virtually.clock) as introspector:

            async def work() -> None:
                virtually.block(0.2)

            with introspector.session("culprit", agent_name="test"):
                await in_task(work, name="lookup")
                await anyio.sleep(1)
            return introspector.blocks()

    blocks = virtually(main())
    assert [(b.session_id, b.task_name, round(b.duration_ms)) for b in blocks] == [("culprit", "lookup", 200)]


def test_a_burst_of_short_steps_is_a_block_of_no_session(virtually: Backend) -> None:
    """Many steps that each stay within the threshold can hold the loop together."""

    async def main() -> Any:
        async with Introspector(socket_path=False, clock=virtually.clock) as introspector:

            async def work() -> None:
                await anyio.sleep(1)
                virtually.block(0.03)

            with introspector.session("one", agent_name="test"):
                async with anyio.create_task_group() as group:
                    for _ in range(5):
                        group.start_soon(work)
            return introspector.blocks()

    blocks = virtually(main())
    assert [(block.session_id, round(block.duration_ms)) for block in blocks] == [(None, 150)]


def test_books_left_in_mid_step_are_healed_at_the_next_wait(run_virtually: Run) -> None:
    """An interrupt between two lines of ours costs one charge, not every one after it."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            with introspector.session("job-1", agent_name="test") as session:
                await asyncio.sleep(1)

                def interrupted() -> None:
                    introspector._loops[0].ledger.begin(session)

                loop.call_soon(interrupted)
                await asyncio.sleep(1)
                busy = session.busy
                await asyncio.sleep(100)
                return session.busy - busy

    assert run_virtually(main()) == pytest.approx(0.0)


def hook_on(loop: asyncio.AbstractEventLoop, clock: FakeClock, stalls: list[tuple[float, float]]) -> AsyncioHook:
    ledger = Ledger(contextvars.ContextVar("binding"), clock, 0.05, lambda *_: None)
    return AsyncioHook(
        loop, ledger, meter=True, on_stall=lambda *stall: stalls.append(stall), on_fault=lambda _problem, _error: None
    )


def test_a_late_heartbeat_is_a_block(run: Run) -> None:
    """Where iterations are not timed, lateness over the threshold counts, and less does not."""

    async def main() -> Any:
        clock = FakeClock(0.0)
        stalls: list[tuple[float, float]] = []
        hook = hook_on(asyncio.get_running_loop(), clock, stalls)
        hook.beat(1.0, 1.049)
        hook.beat(2.0, 2.3)
        return stalls, list(hook.long_waits)

    stalls, waits = run(main())
    assert stalls == [(2.0, 2.3)]
    assert [round(wait, 9) for _, wait in waits] == [0.049, 0.3]


def test_on_uvloop_a_timer_runs_only_while_sessions_live() -> None:
    """An idle worker is not woken up."""
    import uvloop

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            hook = introspector._loops[0].hook
            assert hook is not None
            assert hook._heartbeat is not None
            heartbeat = hook._heartbeat
            idle = heartbeat._timer
            with introspector.session("job-1", agent_name="test"):
                running = heartbeat._timer
            return idle, running, heartbeat._timer, heartbeat.interval

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        idle, running, after, interval = runner.run(main())
    assert (idle, after) == (None, None)
    assert running is not None
    assert interval == 0.025


def test_on_uvloop_the_timer_stops_where_no_step_begins_and_the_next_step_starts_it() -> None:
    """Sessions that only wait cost nothing."""
    import uvloop

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        async with Introspector(socket_path=False, stacks=False) as introspector:
            hook, ledger = introspector._loops[0].hook, introspector._loops[0].ledger
            assert hook is not None
            heartbeat = hook._heartbeat
            assert heartbeat is not None

            async def wait_for(future: asyncio.Future[Any]) -> Any:
                quiet = await future
                return quiet, heartbeat._timer is not None, ledger.running is ledger.quiet

            def look(future: asyncio.Future[Any]) -> None:
                if heartbeat._timer is None:
                    future.set_result(ledger.running is ledger.quiet)
                else:
                    loop.call_later(0.01, look, future)

            with introspector.session("job-1", agent_name="test"):
                future = loop.create_future()
                loop.call_later(0.01, look, future)
                return await asyncio.create_task(wait_for(future))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == (True, True, False)


def test_a_wait_that_ends_far_too_late_is_a_block_and_no_idle_time(run_virtually: Run) -> None:
    """Another thread kept the GIL, or the host the processor: the loop was to go on, and could not."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        select = loop._selector.select

        def late_once(timeout: float | None = None) -> Any:
            ready = select(timeout)
            if timeout is not None and timeout > 0.5:
                loop.block(0.3)
            return ready

        loop._selector.select = late_once
        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            hook = introspector._loops[0].hook
            assert hook is not None
            before = hook.idle(loop.clock())
            with introspector.session("innocent", agent_name="test"):
                await asyncio.sleep(1)
                idle = hook.idle(loop.clock())
            assert before is not None
            assert idle is not None
            return introspector.blocks(), idle - before

    blocks, idle = run_virtually(main())
    assert [(block.session_id, round(block.duration_ms)) for block in blocks] == [(None, 300)]
    assert idle == pytest.approx(1.0)


def test_a_broken_consumer_of_stalls_does_not_reach_the_loop(run_virtually: Run) -> None:
    """What goes wrong in our books is told once and the loop runs on."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        faults: list[str] = []

        def broken(since: float, until: float) -> None:
            raise OSError("disk")

        ledger = Ledger(contextvars.ContextVar("binding"), loop.clock, 0.05, lambda *_: None)
        hook = AsyncioHook(
            loop, ledger, meter=True, on_stall=broken, on_fault=lambda problem, _error: faults.append(problem)
        )
        hook.attach()
        loop.block(1)
        await asyncio.sleep(1)
        hook.beat(loop.clock() - 1, loop.clock())
        hook.detach()
        return faults

    assert len(run_virtually(main())) == 2
