"""A task's step that runs iterations of its own loop, as nest_asyncio lets it."""

from __future__ import annotations

import asyncio
import functools
import heapq
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from openrtc_introspect_core import Block, Introspector
from openrtc_introspect_core._sessions import Session

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def run_nested(loop: Any, coro: Coroutine[Any, Any, Any]) -> Any:
    """What nest_asyncio makes of `loop.run_until_complete(coro)` inside of a task's step."""
    task = asyncio.ensure_future(coro, loop=loop)
    while not task.done():
        run_once(loop)
    return task.result()


def run_once(loop: Any) -> None:
    """One iteration, in which no task is the current one while a callback runs, and callbacks may run iterations."""
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
    """The running loop, whose iterations may be nested from now on."""
    loop: Any = asyncio.get_running_loop()
    loop._run_once = functools.partial(run_once, loop)
    await asyncio.sleep(0)  # the iteration under way is one of asyncio's own yet
    return loop


async def in_session(
    introspector: Introspector, session_id: str, coro: Coroutine[Any, Any, Any]
) -> tuple[Any, Session]:
    """Runs `coro` in a task of its own, in a session of its own. Returns its result, and the session."""
    with introspector.session(session_id, agent_name="test") as session:
        return await asyncio.create_task(coro, name=session_id), session


def told(blocks: list[Block]) -> list[tuple[str | None, str | None, int]]:
    return [(block.session_id, block.task_name, round(block.duration_ms)) for block in blocks]


def test_each_step_is_charged_to_its_own_session_once(run_virtually: Run) -> None:
    """The outer step, those of the iterations inside of it, and a step inside of an iteration inside of such a step."""

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
    """Others run meanwhile, so nobody is charged with it and it blocks nobody."""

    async def main() -> Any:
        loop = await nesting_loop()

        async def tool() -> None:
            run_nested(loop, asyncio.sleep(10))

        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            hook = introspector._loops[0].hook
            before = hook.idle(loop.clock())
            with introspector.session("job-1", agent_name="test") as session:
                await asyncio.create_task(tool())
                idle = hook.idle(loop.clock())
            return idle - before, session.busy, introspector.blocks()

    assert run_virtually(main()) == (pytest.approx(10.0), pytest.approx(0.0), [])


def test_blocks_are_those_of_the_steps_that_held_the_loop(run_virtually: Run) -> None:
    """Before the nested iterations, in one of them, and after them: each with its own session and task."""

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
    assert [(session, duration) for session, _, duration in told(blocks)] == [
        ("outer", 60),
        ("other", 90),
        ("outer", 80),
        ("outer", 70),
    ]
    assert [told(blocks)[index][1] for index in (0, 1, 3)] == ["outer", "other", "outer"]


def test_what_holds_the_loop_now_is_told_after_nested_iterations(run_virtually: Run) -> None:
    """A snapshot taken in the rest of the outer step shows its session blocked, since the last nested wait."""

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


def test_callbacks_of_a_nested_iteration_are_nobody_s(run_virtually: Run) -> None:
    """As in any iteration, and what the step does itself after it is its own."""

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
            return session.busy, told(introspector.blocks())

    assert run_virtually(main()) == (pytest.approx(0.005), [(None, None, 300)])


def test_exceptions_pass_nested_iterations(run_virtually: Run) -> None:
    """From the innermost task to the outermost, as without introspection."""

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
    """The main task's own step goes on after iterations inside of it, and is charged for all of it."""

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
    """In the same step: what came before is the task's own session's, or no session's."""

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
            ledger = introspector._loops[0].ledger
            return sessions[0].busy, ledger.untagged.busy

    assert run_virtually(main()) == (pytest.approx(0.07), pytest.approx(0.08))


def test_a_refused_run_changes_no_books(run_virtually: Run) -> None:
    """A loop that is running refuses to run again: that is no time it has waited."""

    async def main() -> Any:
        loop = await nesting_loop()
        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            hook = introspector._loops[0].hook

            async def tries() -> float:
                idle, thread_id = hook.idle(loop.clock()), loop._thread_id
                loop.block(0.02)
                with pytest.raises(RuntimeError, match="already running"):
                    loop.run_forever()
                asyncio._set_running_loop(loop)
                loop._thread_id = thread_id  # both are forgotten by CPython 3.13.0 where it refuses
                loop.block(0.02)
                return hook.idle(loop.clock()) - idle

            with introspector.session("job-1", agent_name="test") as session:
                waited = await asyncio.create_task(tries())
            return waited, session.busy

    assert run_virtually(main()) == (pytest.approx(0.0), pytest.approx(0.04))


def test_sampled_steps_with_nested_iterations(run_virtually: Run) -> None:
    """Where one step in many is timed, those of nested iterations are timed each, and the books are finite and sane."""

    async def main() -> Any:
        loop = await nesting_loop()

        async def inner() -> None:
            for _ in range(5):
                loop.block(0.001)
                await asyncio.sleep(0.01)

        async def outer() -> None:
            run_nested(loop, inner())

        async with Introspector(socket_path=False, clock=loop.clock, budget_pct=0) as introspector:
            ledger = introspector._loops[0].ledger
            ledger.thin(1000)
            with introspector.session("job-1", agent_name="test") as session:
                await asyncio.create_task(outer())
                busy = session.busy
                ledger.thin(1)
            return busy, ledger.running

    busy, running = run_virtually(main())
    assert busy >= 0.005 - 1e-9
    assert running is None
