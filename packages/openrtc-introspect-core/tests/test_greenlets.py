"""Steps that greenback leaves in the middle, and switches of greenlets that are mere calls, such as SQLAlchemy's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import greenback
import greenlet
import pytest

from openrtc_introspect_core import Block, Introspector
from openrtc_introspect_core._greenlets import GreenletSteps
from openrtc_introspect_core._sessions import Session

Run = Callable[[Coroutine[Any, Any, Any]], Any]


async def in_session(introspector: Introspector, session_id: str, coro: Coroutine[Any, Any, Any]) -> Session:
    """Runs `coro` in a task of its own that has a portal, in a session of its own."""

    async def with_portal() -> None:
        await greenback.ensure_portal()
        await coro

    with introspector.session(session_id, agent_name="test") as session:
        await asyncio.create_task(with_portal(), name=session_id)
        return session


def told(blocks: list[Block]) -> list[tuple[str | None, str | None, int]]:
    return [(block.session_id, block.task_name, round(block.duration_ms)) for block in blocks]


def test_each_session_is_charged_with_what_runs_between_its_awaits(run_virtually: Run) -> None:
    """Synchronous code of two sessions that awaits again and again, each in the other's waits."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()

        def synchronous(block_s: float, waits: int) -> None:
            for _ in range(waits):
                loop.block(block_s)
                greenback.await_(asyncio.sleep(0.1))
            loop.block(block_s)

        async def call(block_s: float, waits: int) -> None:
            synchronous(block_s, waits)
            await asyncio.sleep(0.1)
            synchronous(block_s, waits)

        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            return await asyncio.gather(
                in_session(introspector, "one", call(0.001, 5)), in_session(introspector, "two", call(0.010, 3))
            )

    one, two = run_virtually(main())
    assert one.busy == pytest.approx(0.001 * 12)
    assert two.busy == pytest.approx(0.010 * 8)


def test_blocks_between_two_such_awaits_are_named(run_virtually: Run) -> None:
    """Each with its session, its task and its duration alone, and the waits in between block nobody."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()

        def synchronous() -> None:
            greenback.await_(asyncio.sleep(1))
            loop.block(0.2)
            greenback.await_(asyncio.sleep(1))
            loop.block(0.3)

        async def call() -> None:
            synchronous()

        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            await in_session(introspector, "one", call())
            return introspector.blocks()

    assert told(run_virtually(main())) == [("one", "one", 200), ("one", "one", 300)]


def test_what_holds_the_loop_now_is_told(run_virtually: Run) -> None:
    """A snapshot taken in synchronous code that has awaited names its session, since that went on."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        seen = []

        async def call() -> None:
            greenback.await_(asyncio.sleep(1))
            loop.block(0.4)
            seen.append(introspector.snapshot())

        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            await in_session(introspector, "one", call())
        return seen[0].blocks_in_progress

    (going_on,) = run_virtually(main())
    assert (going_on.session_id, round(going_on.duration_ms)) == ("one", 400)


def test_results_and_exceptions_pass(run_virtually: Run) -> None:
    """A value, an exception that is thrown at such an await, and a cancellation."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()

        async def fails() -> None:
            await asyncio.sleep(0.1)
            raise LookupError("late")

        async def call(cancelled: bool) -> Any:
            await greenback.ensure_portal()
            with pytest.raises(LookupError, match="late"):
                greenback.await_(fails())
            if cancelled:
                greenback.await_(asyncio.sleep(1000))
            return greenback.await_(asyncio.sleep(0.1, "slept"))

        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            with introspector.session("one", agent_name="test"):
                result = await asyncio.create_task(call(False))
                task = asyncio.create_task(call(True))
                await asyncio.sleep(1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            return result, introspector._loops[0].ledger.running, introspector.snapshot().worker.notes

    assert run_virtually(main()) == ("slept", None, [])


def test_a_switch_into_a_child_goes_on_as_the_same_step(run_virtually: Run) -> None:
    """What SQLAlchemy does: synchronous code in a child, which asks its parent to await for it."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()

        async def spawn(function: Callable[[], Any]) -> Any:
            child = greenlet.greenlet(function)
            awaited = child.switch()
            while not child.dead:
                awaited = child.switch(await awaited)
            return awaited

        def synchronous() -> str:
            loop.block(0.06)
            greenlet.getcurrent().parent.switch(asyncio.sleep(1))
            loop.block(0.02)
            return "done"

        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            with introspector.session("one", agent_name="test") as session:
                result = await asyncio.create_task(spawn(synchronous))
            return result, session.busy, [block.session_id for block in introspector.blocks()]

    assert run_virtually(main()) == ("done", pytest.approx(0.08), ["one"])


def test_the_host_s_own_trace_function_goes_on(run_virtually: Run) -> None:
    """It is called while we trace, and is the thread's again once the introspector is closed."""
    events = []

    def theirs(event: str, switch: Any) -> None:
        events.append(event)

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        before = greenlet.settrace(theirs)
        try:
            async with Introspector(socket_path=False, clock=loop.clock) as introspector:
                traces = greenlet.gettrace() is not theirs
                await in_session(introspector, "one", asyncio.sleep(0.1))
            return traces, greenlet.gettrace() is theirs
        finally:
            greenlet.settrace(before)

    assert run_virtually(main()) == (True, True)
    assert "switch" in events


def test_a_fault_of_ours_is_noted_and_switches_go_on(run_virtually: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody follows the switches any more, and the session ends as it would."""

    def broken(*_: Any) -> None:
        raise RuntimeError("broken")

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()

        async def call() -> None:
            greenback.await_(asyncio.sleep(0.1))
            loop.block(0.2)

        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            monkeypatch.setattr(GreenletSteps, "_enter", broken)
            session = await in_session(introspector, "one", call())
            return session.ended, introspector.snapshot().worker.notes

    ended, notes = run_virtually(main())
    assert ended
    assert notes == ["switches of greenlets are not followed any more: RuntimeError('broken')"]


def test_untraced_steps_are_charged_since_the_loop_last_waited(
    run_virtually: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the one in which greenlet is loaded first: the books are healed, and its end is charged."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()

        async def call() -> None:
            greenback.await_(asyncio.sleep(1))
            loop.block(0.2)

        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            session = await in_session(introspector, "one", call())
            return session.busy, told(introspector.blocks()), introspector.snapshot().worker.notes

    monkeypatch.setattr(GreenletSteps, "trace", lambda _: None)
    assert run_virtually(main()) == (pytest.approx(0.2), [("one", "one", 200)], [])
