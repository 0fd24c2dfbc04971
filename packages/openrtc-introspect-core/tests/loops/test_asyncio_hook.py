from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from unittest.mock import Mock

import anyio
import pytest

from openrtc_introspect_core import Introspector, StateError
from openrtc_introspect_core._accounting.account import Account
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_testing._loops.backends import Backend, in_task
from openrtc_introspect_testing._loops.introspection_threads import ours_end

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_everything_that_was_changed_is_restored(run: Run) -> None:
    """After its end the loop has its own factory and methods, and no thread of ours runs."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def factory(loop: Any, coro: Any, **kwargs: Any) -> Any:
            return asyncio.Task(coro, loop=loop, **kwargs)

        loop.set_task_factory(factory)  # type: ignore[arg-type]
        selector = getattr(loop, "_selector", None)
        before = set(vars(loop)), dict(vars(selector)) if selector is not None else None
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test"):
                await asyncio.sleep(0)
        assert loop.get_task_factory() is factory
        assert (set(vars(loop)), dict(vars(selector)) if selector is not None else None) == before
        assert ours_end()

    run(main())


@pytest.mark.parametrize("name", ["run_in_executor", "run_forever"])
def test_what_someone_else_had_put_there_is_put_back(name: str) -> None:
    """The host's method is called meanwhile, and is in place again afterwards."""

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


def test_two_introspectors_on_one_loop_charge_their_own_sessions(virtually: Backend) -> None:
    """A test's and the program's introspector have ledgers of their own; neither takes the other for a stranger."""

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
            parts_of(one).tick(virtually.clock())
            return in_one.busy, in_two.busy, one.snapshot().worker.notes

    one, two, notes = virtually(main())
    assert one == pytest.approx(0.02)
    assert two == pytest.approx(0.04)
    assert notes == []


def test_a_closed_loop_is_refused() -> None:
    """The error says that the loop is closed, and nothing is left half-started."""
    loop = asyncio.new_event_loop()
    loop.close()
    introspector = Introspector()
    with pytest.raises(StateError, match="closed"):
        introspector.attach(loop)
    assert introspector.socket_path is None
    assert ours_end()


def test_a_loop_that_is_not_running_yet_can_be_attached_to() -> None:
    """The time before the loop runs is neither work nor a block."""
    from openrtc_introspect_testing._loops.fake_loop import FakeLoop

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
    attached = parts_of(introspector).loops[0]
    assert attached.times.mark(attached.ledger.read()).sessions == pytest.approx(0.05)


def test_attaching_from_another_thread_is_refused(run_virtually: Run) -> None:
    """A running loop can be attached to only from its own thread."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        introspector = Introspector(socket_path=False)
        with pytest.raises(StateError, match="another thread"):
            await asyncio.to_thread(introspector.attach, loop)

    run_virtually(main())


def test_a_collection_while_a_block_is_recorded_is_no_fault(run_virtually: Run) -> None:
    """The block is recorded, and nothing is noted."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(socket_path=False, stacks=False, clock=loop.clock) as introspector:
            ledger = parts_of(introspector).loops[0].ledger

            class Collecting(Account):
                def __hash__(self) -> int:
                    ledger.collected(loop.clock(), loop.clock())
                    return 1

            def block() -> None:
                steps = ledger.spans.steps
                steps[Collecting()] = 0.0
                del steps[ledger.gc]
                loop.block(0.2)

            loop.call_soon(block)
            await asyncio.sleep(1)
            return [round(each.duration_ms) for each in introspector.blocks()], introspector.snapshot().worker.notes

    assert run_virtually(main()) == ([200], [])


def test_a_step_that_overran_is_reported_once(virtually: Backend) -> None:
    """The step's block and the long iteration that it caused are one block."""

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


def test_any_number_of_steps_in_one_iteration_overran_once_each(virtually: Backend) -> None:
    """No part of theirs is reported a second time for the iteration."""

    async def main() -> Any:
        async with Introspector(socket_path=False, clock=virtually.clock) as introspector:

            async def work() -> None:
                await anyio.sleep(1)
                virtually.block(0.1)

            with introspector.session("one", agent_name="test"):
                async with anyio.create_task_group() as group:
                    for _ in range(400):
                        group.start_soon(work)
                await anyio.sleep(1)
            return introspector.blocks()

    assert {(block.session_id, round(block.duration_ms)) for block in virtually(main())} == {("one", 100)}


def test_a_burst_has_any_number_of_steps(virtually: Backend) -> None:
    """Of sessions of their own, too."""

    async def main() -> Any:
        async with Introspector(socket_path=False, stacks=False, clock=virtually.clock) as introspector:

            async def work(name: str) -> None:
                with introspector.session(name, agent_name="test"):
                    await anyio.sleep(1)
                    virtually.block(0.0002)
                    await anyio.sleep(1)

            async with anyio.create_task_group() as group:
                for n in range(6000):
                    group.start_soon(work, f"s{n}")
            return introspector.blocks()

    (block,) = (block for block in virtually(main()) if block.duration_ms > 1000)
    assert (block.cause, round(block.duration_ms)) == ("burst", 1200)


def test_a_burst_of_short_steps_is_a_block_of_no_session(virtually: Backend) -> None:
    """Many steps, each within the threshold, can hold the loop together for longer than the threshold."""

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


def test_in_a_step_that_is_not_timed_the_session_that_is_bound_is_seen(run: Run) -> None:
    """It may have been bound in the task itself, and Python 3.11 shows no task's context."""

    async def work(introspector: Introspector, hook: Any) -> Any:
        await asyncio.sleep(0)
        with introspector.session("s", agent_name="a") as session:
            running = hook.seen_running(None, None)
            task = asyncio.current_task()
            assert task is not None
            return running.session is session, running.task == task.get_name()

    async def main() -> Any:
        async with Introspector(socket_path=False, budget_pct=0) as introspector:
            hook: Any = parts_of(introspector).loops[0].hook
            hook.ledger.set_sampling_period(32)
            hook.ledger.steps_until_sample = 1000
            return await asyncio.create_task(work(introspector, hook))

    assert run(main()) == (True, True)
