"""Sessions whose scope is opened in a task older than the introspector, such as the main task of `asyncio.run`."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any
from unittest.mock import Mock

import anyio
import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_testing._loops.backends import Backend, in_task
from openrtc_introspect_testing._loops.fake_clock import FakeClock

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_every_step_inside_the_scope_is_charged(virtually: Backend) -> None:
    """It is charged from the scope's first line to its last, across awaits, and for nothing before or after."""

    async def main() -> Any:
        async with Introspector(socket_path=False, clock=virtually.clock) as introspector:
            virtually.block(0.5)
            with introspector.session("job-1", agent_name="test") as session:
                virtually.block(0.01)
                await anyio.sleep(1)
                virtually.block(0.02)
                await in_task(anyio.sleep, 1)
                virtually.block(0.03)
            virtually.block(0.5)
            await anyio.sleep(1)
            return session.busy

    assert virtually(main()) == pytest.approx(0.06)


def test_its_block_is_found_with_session_and_task(on_any_loop: Backend) -> None:
    """The block is found in the step that opened the scope and in a later one, on each kind of loop."""

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:
            with introspector.session("job-1", agent_name="test"):
                clock.advance(0.06)
                await anyio.sleep(0.001)
                clock.advance(0.08)
                await anyio.sleep(0.001)
            return introspector.blocks(), anyio.get_current_task().name

    blocks, name = on_any_loop(main())
    assert [(block.session_id, round(block.duration_ms)) for block in blocks] == [("job-1", 60), ("job-1", 80)]
    assert [block.task_name for block in blocks] == [name, name]


def test_a_scope_opened_and_closed_in_one_step_is_charged(run_anywhere: Backend) -> None:
    """The scope has no await."""

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:
            with introspector.session("job-1", agent_name="test") as session:
                clock.advance(0.06)
            await anyio.sleep(0)  # a task of Trio's is never older than the hook: its step ends here
            return session.busy, introspector.blocks()

    busy, blocks = run_anywhere(main())
    assert busy == pytest.approx(0.06)
    assert [block.session_id for block in blocks] == ["job-1"]


def test_nested_scopes_charge_the_inner_one(virtually: Backend) -> None:
    """After the inner scope the outer session is charged again."""

    async def main() -> Any:
        async with Introspector(socket_path=False, clock=virtually.clock) as introspector:
            with introspector.session("outer", agent_name="test") as outer:
                virtually.block(0.01)
                await anyio.sleep(1)
                with introspector.session("inner", agent_name="test") as inner:
                    virtually.block(0.02)
                    await anyio.sleep(1)
                    virtually.block(0.02)
                virtually.block(0.01)
                await anyio.sleep(1)
                virtually.block(0.01)
            return outer.busy, inner.busy

    outer, inner = virtually(main())
    assert outer == pytest.approx(0.03)
    assert inner == pytest.approx(0.04)


def test_another_task_s_step_after_it_is_not_charged_to_it(run_virtually: Run) -> None:
    """A block of a callback that was ready already is unattributed, although the session ran just before."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            loop.call_soon(loop.block, 0.3)
            with introspector.session("innocent", agent_name="test") as session:
                loop.block(0.01)
                await asyncio.sleep(1)
            return session.busy, introspector.blocks()

    busy, blocks = run_virtually(main())
    assert busy == pytest.approx(0.01)
    assert [block.session_id for block in blocks] == [None]


def test_call_soon_is_the_loop_s_own_outside_of_such_scopes(run: Run) -> None:
    """The wrapper is in place only while it is needed, and never on loops that show their ready queue."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        needed = not hasattr(loop, "_ready")
        async with Introspector(socket_path=False) as introspector:
            before = "call_soon" in vars(loop)
            with introspector.session("job-1", agent_name="test"):
                during = "call_soon" in vars(loop)
                await asyncio.sleep(0)
            return before, during == needed, "call_soon" in vars(loop)

    assert run(main()) == (False, True, False)


def test_what_someone_else_put_in_call_soon_s_place_is_put_back(run: Run) -> None:
    """The host's method is called meanwhile, and is in place again afterwards."""

    async def main() -> tuple[bool, bool]:
        loop = asyncio.get_running_loop()
        theirs = Mock(wraps=loop.call_soon)
        loop.call_soon = theirs  # type: ignore[method-assign]
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test"):
                await asyncio.sleep(0)
        return vars(loop)["call_soon"] is theirs, theirs.called

    assert run(main()) == (True, True)


def test_callbacks_of_any_owner_pass_the_wrapper(run: Run) -> None:
    """Bound methods of unhashable objects pass as well."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        seen: list[Any] = []
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test"):
                loop.call_soon(seen.append, 1)
                loop.call_soon(seen.extend, [2, 3])
                await asyncio.sleep(0.001)
        return seen

    assert run(main()) == [1, 2, 3]


def test_a_failure_in_an_adopted_step_is_the_task_s(on_any_loop: Backend) -> None:
    """Exceptions pass as they would without us."""

    async def main() -> None:
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test"):
                await anyio.sleep(0)
                raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        on_any_loop(main())


def test_a_debug_log_names_the_task(run_virtually: Run) -> None:
    """The wrapper of a step shows its task, which asyncio's log of slow callbacks reads."""
    from openrtc_introspect_core._loops.adopted_tasks import AdoptedStep

    class Owner:
        def method(self) -> None: ...

    owner = Owner()
    assert AdoptedStep(owner.method, None).__self__ is owner  # type: ignore[arg-type]


def test_callbacks_that_other_threads_add_meanwhile_are_no_fault(run_on_asyncio: Backend) -> None:
    """`call_soon_threadsafe` adds to the queue at any moment: here, while it is gone through."""

    async def main() -> list[str]:
        loop: Any = asyncio.get_running_loop()

        class Cancelled(asyncio.Handle):
            def cancelled(self) -> bool:
                loop.call_soon(str)
                return super().cancelled()

        class Callback:
            @property
            def __self__(self) -> None:
                loop.call_soon(str)

            def __call__(self) -> None:
                pass

        async with Introspector(socket_path=False) as introspector:
            cancelled = Cancelled(str, (), loop, contextvars.copy_context())
            cancelled.cancel()
            loop._ready.extendleft([cancelled])
            with introspector.session("job-1", agent_name="test") as session:
                loop.call_soon(Callback())
                loop.call_soon(str)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                metered = session.steps
            return [*introspector.snapshot().worker.notes, *(["unmetered"] if not metered else [])]

    assert run_on_asyncio(main()) == []
