from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from openrtc_introspect_core import Introspector, StateError, current_session
from openrtc_introspect_core._scope import SessionScope
from openrtc_introspect_core._tasks import context_of

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_a_scope_is_entered_once(run_virtually: Run) -> None:
    """The second time is an error that says what to do."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            scope = introspector.session("job-1", agent_name="test")
            with scope:
                pass
            with pytest.raises(StateError, match="the scope of session 'job-1' was entered already: make a new one"):
                scope.__enter__()

    run_virtually(main())


def begun(introspector: Introspector, task: asyncio.Task[Any]) -> SessionScope:
    """A scope that is bound to this waiting task, and not entered."""
    scope = introspector.session("job-1", agent_name="test")
    scope.begin()
    context = context_of(task)
    assert context is not None
    scope.bind_to(context, task)
    return scope


@pytest.mark.parametrize("older", [True, False], ids=["older than the hook", "metered"])
def test_a_task_that_was_there_is_bound_from_its_next_step_on(run_virtually: Run, older: bool) -> None:
    """With what it creates from then on; the code that bound it is not."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        go_on = asyncio.Event()

        async def work() -> None:
            loop.block(0.01)
            await go_on.wait()
            loop.block(0.02)
            await asyncio.create_task(child())

        async def child() -> None:
            bound.append(current_session())
            loop.block(0.03)

        bound: list[Any] = []
        introspector = Introspector(socket_path=False, clock=loop.clock)
        if older:
            task = asyncio.create_task(work())
            await asyncio.sleep(0.02)
            introspector.attach()
        else:
            introspector.attach()
            task = asyncio.create_task(work())
            await asyncio.sleep(0.02)
        scope = begun(introspector, task)
        session = scope._session
        assert session is not None
        during = introspector.snapshot().sessions[0].tasks
        go_on.set()
        await task
        await asyncio.sleep(0)
        after = introspector.snapshot().sessions[0].tasks
        here = current_session()
        scope.__exit__(None, None, None)
        left = introspector.snapshot().sessions
        introspector.close()
        return session.busy, during, after, bound == [session], here, left

    busy, during, after, child_bound, here, left = run_virtually(main())
    assert busy == pytest.approx(0.05)
    assert (during, after, child_bound, here, left) == (1, 0, True, None, [])


def test_a_bound_task_is_looked_for_where_steps_are_not_metered(run_virtually: Run) -> None:
    """By its tag."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(socket_path=False, cpu="off", clock=loop.clock) as introspector:
            task = asyncio.create_task(asyncio.sleep(1))
            await asyncio.sleep(0)
            scope = begun(introspector, task)
            during = introspector.snapshot().sessions[0].tasks
            await task
            await asyncio.sleep(0)
            after = introspector.snapshot().sessions[0].tasks
            scope.__exit__(None, None, None)
            return during, after

    assert run_virtually(main()) == (1, 0)


def test_nothing_is_bound_to_a_session_that_has_ended(run_virtually: Run) -> None:
    """Nor to one that has not begun."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            task = asyncio.create_task(asyncio.sleep(1))
            await asyncio.sleep(0)
            context = context_of(task)
            assert context is not None
            scope = introspector.session("job-1", agent_name="test")
            scope.bind_to(context, task)
            with scope:
                pass
            scope.bind_to(context, task)
            assert context.run(current_session) is None
            assert introspector._binding not in context
            await task

    run_virtually(main())
