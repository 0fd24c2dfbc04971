"""Steps that greenback leaves in their middle, and switches of greenlets that are mere calls, such as SQLAlchemy's."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import greenback
import greenlet
import pytest
from seen_blocks import summaries

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._accounting.ledger import Ledger
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._loops.greenlets import GreenletSteps
from openrtc_introspect_core._sessions.session import Session
from openrtc_introspect_testing._loops.fake_clock import FakeClock

Run = Callable[[Coroutine[Any, Any, Any]], Any]


async def in_session(introspector: Introspector, session_id: str, coro: Coroutine[Any, Any, Any]) -> Session:
    """Run `coro` in a task of its own that has a portal, in a session of its own."""

    async def with_portal() -> None:
        await greenback.ensure_portal()
        await coro

    with introspector.session(session_id, agent_name="test") as session:
        await asyncio.create_task(with_portal(), name=session_id)
        return session


def test_each_session_is_charged_with_what_runs_between_its_awaits(run_virtually: Run) -> None:
    """Synchronous code of two sessions awaits again and again, each during the other's waits."""

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
    """Each block has its session, its task and its own duration; the waits between them are no blocks."""

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

    assert summaries(run_virtually(main())) == [("one", "one", 200), ("one", "one", 300)]


def test_the_holder_of_the_loop_is_shown(run_virtually: Run) -> None:
    """A snapshot taken in synchronous code that has awaited shows its session as blocked since the code went on."""

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
    """A value, an exception thrown at such an await, and a cancellation arrive."""

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
            return result, parts_of(introspector).loops[0].ledger.holder, introspector.snapshot().worker.notes

    assert run_virtually(main()) == ("slept", None, [])


def test_a_switch_into_a_child_goes_on_as_the_same_step(run_virtually: Run) -> None:
    """As in SQLAlchemy, synchronous code in a child asks its parent to await for it."""

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
    """It is called while we trace, and is set again once the introspector is closed."""
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
    """Switches are no longer followed, and the session ends as it would without us."""

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


def test_an_interrupt_reaches_the_greenlet_and_switches_are_followed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """No fault is noted. greenlet has removed the trace function, which is set anew."""

    def limit(number: int, frame: object) -> None:
        raise TimeoutError

    def interrupted(steps: GreenletSteps, target: Any) -> None:
        signal.raise_signal(signal.SIGUSR1)

    faults: list[str] = []
    ledger = Ledger(ContextVar("binding"), FakeClock(), 0.05)
    steps = GreenletSteps(ledger, lambda problem, error: faults.append(problem))
    before = signal.signal(signal.SIGUSR1, limit)
    steps.trace()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(GreenletSteps, "_enter", interrupted)
            with pytest.raises(TimeoutError):
                greenlet.greenlet(lambda: None).switch()
        assert greenlet.gettrace() is None
        steps.trace()
        assert greenlet.greenlet(lambda: greenlet.gettrace() is steps._trace).switch()
        assert faults == []
    finally:
        steps.stop()
        signal.signal(signal.SIGUSR1, before)


def test_untraced_steps_are_charged_since_the_loop_last_waited(
    run_virtually: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the step that first loads greenlet, the ledger recovers and the step's end is charged."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()

        async def call() -> None:
            greenback.await_(asyncio.sleep(1))
            loop.block(0.2)

        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            session = await in_session(introspector, "one", call())
            return session.busy, summaries(introspector.blocks()), introspector.snapshot().worker.notes

    monkeypatch.setattr(GreenletSteps, "trace", lambda _: None)
    assert run_virtually(main()) == (pytest.approx(0.2), [("one", "one", 200)], [])


def test_a_scope_entered_in_a_portal_is_charged_from_there_on(run_virtually: Run) -> None:
    """greenback has put a coroutine of its own around the metered one, in the middle of the task's life."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()

        def synchronous() -> None:
            greenback.await_(asyncio.sleep(1))
            loop.block(0.2)

        async def call() -> Session:
            await greenback.ensure_portal()
            with introspector.session("one", agent_name="test") as session:
                loop.block(0.1)
                synchronous()
                await asyncio.sleep(1)
                loop.block(0.3)
            await asyncio.sleep(1)
            loop.block(0.4)
            return session

        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            session = await asyncio.create_task(call(), name="task")
            return session.busy, summaries(introspector.blocks())

    busy, blocks = run_virtually(main())
    assert busy == pytest.approx(0.6)
    assert blocks == [("one", "task", 100), ("one", "task", 200), ("one", "task", 300), (None, "task", 400)]
