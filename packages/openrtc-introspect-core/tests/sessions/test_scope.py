from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from openrtc_introspect_core import (
    ArgumentError,
    Introspector,
    StateError,
    current_session,
)
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._loops.asyncio_names import context_of
from openrtc_introspect_core._sessions.scope import SessionScope
from openrtc_introspect_testing._loops.backends import Backend, in_task

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
    """Return a scope that is bound to this waiting task, and not entered."""
    scope = introspector.session("job-1", agent_name="test")
    scope.begin()
    context = context_of(task)
    assert context is not None
    scope.bind_to(context, task)
    return scope


@pytest.mark.parametrize("older", [True, False], ids=["older than the hook", "metered"])
def test_a_task_that_was_there_is_bound_from_its_next_step_on(run_virtually: Run, older: bool) -> None:
    """So are the tasks that it creates from then on; the code that bound it is not."""

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
        session = scope.session
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


def test_a_bound_task_is_found_if_steps_are_not_metered(run_virtually: Run) -> None:
    """The task's tag names its session."""

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
    """Nothing is bound to a session that has not begun either."""

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
            assert parts_of(introspector).shared.sessions.binding not in context
            await task

    run_virtually(main())


def test_two_scopes_of_one_id_made_before_either_is_entered(virtually: Backend) -> None:
    """The second is refused when it is entered, and the first stays live."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            one = introspector.session("same", agent_name="a")
            two = introspector.session("same", agent_name="a")
            with one:
                with pytest.raises(ArgumentError, match="live already"), two:
                    pass
                assert current_session() is not None
                return len(introspector.snapshot().sessions)

    assert virtually(main()) == 1


def test_a_scope_is_entered_once_on_any_loop(virtually: Backend) -> None:
    """Entering it a second time is an error."""

    async def main() -> None:
        async with Introspector(socket_path=False) as introspector:
            scope = introspector.session("a", agent_name="a")
            with scope:
                pass
            with pytest.raises(StateError, match="was entered already"), scope:
                pass

    virtually(main())


def test_a_session_that_outlives_the_introspector_ends_quietly(virtually: Backend) -> None:
    """Its scope may be left after the introspector has been closed."""

    async def main() -> Any:
        introspector = Introspector(socket_path=False)
        await introspector.__aenter__()
        scope = introspector.session("a", agent_name="a")
        scope.__enter__()
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 1)
            await introspector.aclose()
        scope.__exit__(None, None, None)
        return current_session()

    assert virtually(main()) is None


def test_a_scope_left_in_another_task_is_ended(virtually: Backend) -> None:
    """Generators and exit stacks leave scopes so: the session ends, and no error reaches the host."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            scope = introspector.session("a", agent_name="a")

            async def enter() -> None:
                scope.__enter__()

            async def leave() -> None:
                scope.__exit__(None, None, None)

            await in_task(enter)
            await in_task(leave)
            return introspector.snapshot().sessions

    assert virtually(main()) == []


def test_a_scope_entered_in_a_thread_binds_there(virtually: Backend) -> None:
    """A call in a thread may open a session: it is listed, though its time is no loop time."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:

            def work() -> Any:
                with introspector.session("threaded", agent_name="a"):
                    session = current_session()
                    return session.session_id if session else None, len(introspector.snapshot().sessions)

            return await anyio.to_thread.run_sync(work)

    assert virtually(main()) == ("threaded", 1)


class TimeLimit(Exception):
    """Raised by a signal handler of the host's."""


def limit(number: int, frame: object) -> None:
    raise TimeLimit


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Raise a time limit whenever the given function is called, as a signal handler does."""
    before = signal.signal(signal.SIGUSR1, limit)

    def at(owner: object, name: str) -> None:
        monkeypatch.setattr(owner, name, lambda *arguments: signal.raise_signal(signal.SIGUSR1))

    yield at
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("when", ["the hook is told", "the watchdog is woken"])
def test_a_scope_that_an_interrupt_keeps_from_being_entered_has_ended(
    run_on_asyncio: Run, limited: Callable[..., None], when: str
) -> None:
    """The host gets the interrupt, the id is free again, and nothing is noted as a fault."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            parts = parts_of(introspector)
            if when == "the hook is told":
                limited(parts.loops[0].hook, "enter_scope")
            else:
                limited(parts.shared.watchdog, "sessions_live")
            with pytest.raises(TimeLimit):
                introspector.session("job-1", agent_name="test").__enter__()
            live = introspector.snapshot()
            return [row.status for row in live.sessions], live.worker.errored, live.worker.notes, current_session()

    assert run_on_asyncio(main()) == (["errored"], 1, [], None)
