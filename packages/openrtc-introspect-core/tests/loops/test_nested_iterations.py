"""Steps that run iterations of their own loop, as nest_asyncio allows."""

from __future__ import annotations

import asyncio
import functools
import heapq
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from seen_blocks import summaries

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._sessions.session import Session

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def run_nested(loop: Any, coro: Coroutine[Any, Any, Any]) -> Any:
    """Run `coro` inside of a task's step, as nest_asyncio's `loop.run_until_complete` does."""
    task = asyncio.ensure_future(coro, loop=loop)
    while not task.done():
        run_once(loop)
    return task.result()


def run_once(loop: Any) -> None:
    """Run one iteration, in whose callbacks no task is the current one, and which may run iterations themselves."""
    timers, ready = loop._scheduled, loop._ready
    wait = 0.0 if ready else max(0.0, timers[0].when() - loop.time()) if timers else None
    loop._process_events(loop._selector.select(wait))
    while timers and timers[0].when() <= loop.time():
        ready.append(heapq.heappop(timers))
    outer = asyncio.current_task(loop)
    for _ in range(len(ready)):
        if not ready:
            break
        handle = ready.popleft()
        if not handle.cancelled():
            if outer is not None:
                asyncio.tasks._leave_task(loop, outer)  # type: ignore[attr-defined]
            try:
                handle._run()
            finally:
                if outer is not None:
                    asyncio.tasks._enter_task(loop, outer)  # type: ignore[attr-defined]


async def nesting_loop() -> Any:
    """Return the running loop, whose iterations may be nested from now on."""
    loop: Any = asyncio.get_running_loop()
    loop._run_once = functools.partial(run_once, loop)
    await asyncio.sleep(0)  # the iteration under way is still one of asyncio's own
    return loop


async def in_session(
    introspector: Introspector, session_id: str, coro: Coroutine[Any, Any, Any]
) -> tuple[Any, Session]:
    """Run `coro` in a task and a session of its own. Return its result, and the session."""
    with introspector.session(session_id, agent_name="test") as session:
        return await asyncio.create_task(coro, name=session_id), session


def test_each_step_is_charged_to_its_own_session_once(run_virtually: Run) -> None:
    """That holds for the outer step, for steps inside of its iterations, and for steps inside of theirs."""

    async def main() -> Any:
        loop = await nesting_loop()

        async def other() -> None:
            for _ in range(3):
                loop.block(0.010)
                await asyncio.sleep(0.1)

        async def innermost() -> str:
            loop.block(0.003)
            await asyncio.sleep(0.1)
            loop.block(0.004)
            return "innermost"

        async def inner() -> str:
            loop.block(0.005)
            result = str(run_nested(loop, innermost()))
            loop.block(0.006)
            return result

        async def outer() -> str:
            loop.block(0.001)
            result = str(run_nested(loop, inner()))
            loop.block(0.002)
            await asyncio.sleep(0.1)
            loop.block(0.007)
            return result

        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            return await asyncio.gather(
                in_session(introspector, "outer", outer()), in_session(introspector, "other", other())
            )

    (result, of_outer), (_, of_other) = run_virtually(main())
    assert result == "innermost"
    assert of_outer.busy == pytest.approx(0.001 + 0.002 + 0.003 + 0.004 + 0.005 + 0.006 + 0.007)
    assert of_other.busy == pytest.approx(0.030)


def test_waiting_in_a_nested_iteration_is_idle_time(run_virtually: Run) -> None:
    """Others can run meanwhile, so no session is charged with the wait, and it is no block."""

    async def main() -> Any:
        loop = await nesting_loop()

        async def tool() -> None:
            run_nested(loop, asyncio.sleep(10))

        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            hook = parts_of(introspector).loops[0].hook
            before = hook.iterations.idle(loop.clock())
            with introspector.session("job-1", agent_name="test") as session:
                await asyncio.create_task(tool())
                idle = hook.iterations.idle(loop.clock())
            return idle - before, session.busy, introspector.blocks()

    assert run_virtually(main()) == (pytest.approx(10.0), pytest.approx(0.0), [])


def test_blocks_are_those_of_the_steps_that_held_the_loop(run_virtually: Run) -> None:
    """Blocks before the nested iterations, in one of them and after them have their own session and task."""

    async def main() -> Any:
        loop = await nesting_loop()

        async def inner() -> None:
            await asyncio.sleep(0.1)
            loop.block(0.08)

        async def outer() -> None:
            loop.block(0.06)
            run_nested(loop, inner())
            loop.block(0.07)

        async def other() -> None:
            await asyncio.sleep(0.08)
            loop.block(0.09)

        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            await asyncio.gather(in_session(introspector, "outer", outer()), in_session(introspector, "other", other()))
            return introspector.blocks()

    blocks = run_virtually(main())
    assert [(session, duration) for session, _, duration in summaries(blocks)] == [
        ("outer", 60),
        ("other", 90),
        ("outer", 80),
        ("outer", 70),
    ]
    assert [summaries(blocks)[index][1] for index in (0, 1, 3)] == ["outer", "other", "outer"]


def test_the_holder_of_the_loop_is_shown_after_nested_iterations(run_virtually: Run) -> None:
    """A snapshot taken in the rest of the outer step shows its session as blocked since the last nested wait."""

    async def main() -> Any:
        loop = await nesting_loop()
        seen = []

        async def outer() -> None:
            loop.block(0.01)
            run_nested(loop, asyncio.sleep(1))
            loop.block(0.3)
            seen.append(introspector.snapshot())

        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            await in_session(introspector, "outer", outer())
        return seen[0]

    snapshot = run_virtually(main())
    (going_on,) = snapshot.blocks_in_progress
    assert (going_on.session_id, round(going_on.duration_ms)) == ("outer", 300)
    assert snapshot.sessions[0].cpu_s == pytest.approx(0.31)


def test_callbacks_of_a_nested_iteration_are_unattributed(run_virtually: Run) -> None:
    """They are, as in any iteration; the rest of the step belongs to its own session."""

    async def main() -> Any:
        loop = await nesting_loop()

        async def outer() -> None:
            loop.call_later(0.2, loop.block, 0.3)
            loop.call_later(0.5, loop.block, 0.02)
            run_nested(loop, asyncio.sleep(1))
            loop.block(0.005)

        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            with introspector.session("job-1", agent_name="test") as session:
                await asyncio.create_task(outer())
            return session.busy, summaries(introspector.blocks())

    assert run_virtually(main()) == (pytest.approx(0.005), [(None, None, 300)])


def test_exceptions_pass_nested_iterations(run_virtually: Run) -> None:
    """An exception passes from the innermost task to the outermost, as without introspection."""

    async def main() -> Any:
        loop = await nesting_loop()

        async def fails() -> None:
            await asyncio.sleep(0.1)
            raise LookupError("inner")

        async def outer() -> None:
            run_nested(loop, fails())

        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            with pytest.raises(LookupError, match="inner") as caught:
                await in_session(introspector, "outer", outer())
            return caught.value, introspector.snapshot().worker.notes

    error, notes = run_virtually(main())
    assert (error.args, notes) == (("inner",), [])


def test_a_scope_opened_in_the_task_that_is_older_than_the_hook(run_virtually: Run) -> None:
    """The main task's own step goes on after iterations inside of it, and all of the step is charged."""

    async def main() -> Any:
        loop = await nesting_loop()
        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            with introspector.session("job-1", agent_name="test") as session:
                loop.block(0.01)
                run_nested(loop, asyncio.sleep(1))
                loop.block(0.02)
                run_nested(loop, asyncio.sleep(1))
                loop.block(0.03)
                await asyncio.sleep(1)
                loop.block(0.04)
                run_nested(loop, asyncio.sleep(1))
                loop.block(0.05)
            loop.block(0.5)
            return session.busy

    assert run_virtually(main()) == pytest.approx(0.15)


def test_a_scope_entered_after_nested_iterations_is_charged_from_there(run_virtually: Run) -> None:
    """Time of the same step before the scope is charged to the task's own session, or to none."""

    async def main() -> Any:
        loop = await nesting_loop()
        sessions = []

        async def outer(introspector: Introspector) -> None:
            loop.block(0.01)
            run_nested(loop, asyncio.sleep(1))
            loop.block(0.02)
            with introspector.session("late", agent_name="test") as session:
                sessions.append(session)
                loop.block(0.03)
                run_nested(loop, asyncio.sleep(1))
                loop.block(0.04)
            loop.block(0.05)

        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            await asyncio.create_task(outer(introspector))
            ledger = parts_of(introspector).loops[0].ledger
            return sessions[0].busy, ledger.untagged.busy

    assert run_virtually(main()) == (pytest.approx(0.07), pytest.approx(0.08))


def test_a_refused_run_charges_nothing(run_virtually: Run) -> None:
    """A running loop refuses to run again: the refusal counts as no waiting time."""

    async def main() -> Any:
        loop = await nesting_loop()
        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            hook = parts_of(introspector).loops[0].hook

            async def tries() -> float:
                idle, thread_id = hook.iterations.idle(loop.clock()), loop._thread_id
                loop.block(0.02)
                with pytest.raises(RuntimeError, match="already running"):
                    loop.run_forever()
                asyncio._set_running_loop(loop)
                loop._thread_id = thread_id  # both are forgotten by CPython 3.13.0 where it refuses
                loop.block(0.02)
                return hook.iterations.idle(loop.clock()) - idle

            with introspector.session("job-1", agent_name="test") as session:
                waited = await asyncio.create_task(tries())
            return waited, session.busy

    assert run_virtually(main()) == (pytest.approx(0.0), pytest.approx(0.04))


def test_sampled_steps_with_nested_iterations(run_virtually: Run) -> None:
    """If one step in many is timed, steps of nested iterations are each timed, and all charges are finite and sane."""

    async def main() -> Any:
        loop = await nesting_loop()

        async def inner() -> None:
            for _ in range(5):
                loop.block(0.001)
                await asyncio.sleep(0.01)

        async def outer() -> None:
            run_nested(loop, inner())

        async with Introspector(socket_path=False, clock=loop.clock, budget_pct=0) as introspector:
            ledger = parts_of(introspector).loops[0].ledger
            ledger.set_sampling_period(1000)
            with introspector.session("job-1", agent_name="test") as session:
                await asyncio.create_task(outer())
                busy = session.busy
                ledger.set_sampling_period(1)
            return busy, ledger.holder

    busy, running = run_virtually(main())
    assert busy >= 0.005 - 1e-9
    assert running is None
