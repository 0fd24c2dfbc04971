"""Which loops wait in their selector, by what they do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from metered_scripts import ReentrantLoop
from other_loops import DerivedLoop, ElsewhereLoop, PumpedLoop, RewrittenLoop, run_on

from openrtc_introspect_core import Block, Introspector
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._loops.selector_trial import MAX_FRAMES_TRIED
from openrtc_introspect_testing._loops.fake_loop import FakeLoop

HIDDEN = ElsewhereLoop, PumpedLoop
SHOWN = FakeLoop, RewrittenLoop, DerivedLoop


def summaries(blocks: list[Block]) -> list[tuple[str | None, int]]:
    return [(block.session_id, round(block.duration_ms)) for block in blocks]


def observed(loop: Any) -> Introspector:
    return Introspector(socket_path=False, clock=loop.clock, stacks=False)


@pytest.mark.parametrize("kind", HIDDEN)
def test_a_loop_that_waits_elsewhere_has_no_block_while_nothing_holds_it(kind: Callable[[], Any]) -> None:
    """However long it waits, with steps or without; a heartbeat says how late it is."""

    async def main(loop: Any) -> Any:
        async with observed(loop) as introspector:
            with introspector.session("quiet", agent_name="test"):
                for _ in range(10):
                    await asyncio.sleep(0.3)
                during = introspector.snapshot()
            await asyncio.sleep(100)
            after = introspector.snapshot()
            return during, after, introspector.blocks()

    during, after, blocks = run_on(kind, main)
    assert blocks == []
    assert during.blocks_in_progress == after.blocks_in_progress == []
    assert (during.worker.lag_method, during.worker.lag_max_ms) == ("heartbeat", 0.0)


@pytest.mark.parametrize("kind", HIDDEN)
def test_what_a_loop_that_waits_elsewhere_does_not_show_is_null(kind: Callable[[], Any]) -> None:
    """Idle time, iterations, delayed sessions and the queue are asyncio's own alone."""

    async def main(loop: Any) -> Any:
        async with observed(loop) as introspector:
            with introspector.session("job", agent_name="test"):
                for _ in range(MAX_FRAMES_TRIED):
                    await asyncio.sleep(1)
                loop.block(0.2)
                await asyncio.sleep(1)
                snapshot, activity = introspector.snapshot(), introspector.waits().loops[0]
            return snapshot, activity, introspector.blocks()

    snapshot, activity, blocks = run_on(kind, main)
    times = snapshot.worker.loop_time
    assert (times.idle_pct, times.other_pct, snapshot.worker.iterations_per_s) == (None, None, None)
    assert (activity.iterations_per_s, activity.ready, activity.asleep_since) == (None, None, None)
    assert [row.delayed_s for row in snapshot.sessions] == [None]
    assert [block.delayed for block in blocks] == [None]


@pytest.mark.parametrize("kind", HIDDEN)
def test_steps_are_exact_on_a_loop_that_waits_elsewhere(kind: Callable[[], Any]) -> None:
    """Those of tasks, and those of a task that is older than the hook."""

    async def blocks(loop: Any, introspector: Introspector) -> None:
        with introspector.session("task", agent_name="test"):
            await asyncio.sleep(0.1)
            loop.block(0.2)

    async def main(loop: Any) -> Any:
        async with observed(loop) as introspector:
            await asyncio.sleep(1)
            await asyncio.create_task(blocks(loop, introspector))
            with introspector.session("older", agent_name="test"):
                await asyncio.sleep(0.1)
                loop.block(0.3)
                await asyncio.sleep(0.1)
                (row,) = introspector.snapshot().sessions
            return row, introspector.blocks()

    row, found = run_on(kind, main)
    assert row.cpu_s == pytest.approx(0.3)
    assert summaries(found) == [("task", 200), ("older", 300)]


@pytest.mark.parametrize("sessions", [True, False])
def test_a_step_that_runs_the_loop_in_its_middle_is_charged_with_what_comes_after(sessions: bool) -> None:
    """As a modal dialog of Qt's does: callbacks go on, so it holds nothing. Its heartbeat goes on as well."""

    async def dialog(loop: Any) -> None:
        await asyncio.sleep(1)
        closed: list[bool] = []
        loop.call_later(10, closed.append, True)
        while not closed:
            loop._iterate()
        loop.block(0.2)

    async def main(loop: Any) -> Any:
        async with observed(loop) as introspector:
            await asyncio.sleep(1)
            if not sessions:
                await asyncio.create_task(dialog(loop))
                return 0.2, introspector.blocks(), None
            with introspector.session("dialog", agent_name="test"):
                await asyncio.create_task(dialog(loop))
                (row,) = introspector.snapshot().sessions
            return row.cpu_s, introspector.blocks(), "dialog"

    cpu_s, (block,), session = run_on(ElsewhereLoop, main)
    assert block.session_id == session
    assert 200 <= round(block.duration_ms) <= (225 if sessions else 450)  # up to one beat more
    assert 0.2 <= round(cpu_s, 6) <= 0.25


@pytest.mark.parametrize("kind", HIDDEN)
def test_a_callback_of_a_loop_that_waits_elsewhere_is_a_block_as_late_as_the_heartbeat(
    kind: Callable[[], Any],
) -> None:
    """At least its lateness: the beat is due within 25 ms of the block's beginning."""

    async def main(loop: Any) -> Any:
        async with observed(loop) as introspector:
            with introspector.session("job", agent_name="test"):
                for _ in range(100):
                    await asyncio.sleep(0.01)
                loop.call_soon(loop.block, 0.2)
                for _ in range(100):
                    await asyncio.sleep(0.01)
            return introspector.blocks()

    (block,) = run_on(kind, main)
    assert 175 <= block.duration_ms <= 200.001


@pytest.mark.parametrize("kind", HIDDEN)
def test_no_block_is_reported_from_before_it_is_known_that_a_loop_waits_elsewhere(kind: Callable[[], Any]) -> None:
    """What is attached in the middle of an iteration has no beat before that iteration's end."""

    async def main(loop: Any) -> Any:
        async with observed(loop) as introspector:
            loop.block(1)
            during = introspector.snapshot()
            await asyncio.sleep(0)
            await asyncio.sleep(1)
            return during, introspector.blocks()

    during, blocks = run_on(kind, main)
    assert during.blocks_in_progress == blocks == []
    assert (during.worker.lag_max_ms, during.worker.loop_time.idle_pct) == (None, None)


@pytest.mark.parametrize("kind", SHOWN)
def test_a_loop_that_waits_in_its_selector_shows_its_iterations(kind: Callable[[], Any]) -> None:
    """Whoever wrote the code of its iterations. The first iteration counts as well, and an idle loop stays one."""

    async def main(loop: Any) -> Any:
        async with observed(loop) as introspector:
            loop.block(0.2)
            await asyncio.sleep(10_000)
            hook = parts_of(introspector).loops[0].hook
            return introspector.snapshot(), introspector.blocks(), hook.iterations.idle(loop.clock())

    snapshot, blocks, idle = run_on(kind, main)
    assert snapshot.worker.lag_method == "iterations"
    assert summaries(blocks) == [(None, 200)]
    assert idle == pytest.approx(10_000)


@pytest.mark.parametrize("kind", SHOWN)
def test_a_loop_that_is_attached_before_it_runs_shows_its_first_iteration(kind: Callable[[], Any]) -> None:
    """Its selector is called first, and nothing is decided by the time until then."""

    async def main(loop: Any) -> None:
        loop.block(0.2)
        await asyncio.sleep(5)

    loop = kind()
    introspector = observed(loop)
    try:
        introspector.attach(loop)
        loop.clock.advance(60)
        loop.run_until_complete(main(loop))
        idle = parts_of(introspector).loops[0].hook.iterations.idle(loop.clock())
    finally:
        introspector.close()
        loop.close()
    assert summaries(introspector.blocks()) == [(None, 200)]
    assert idle == pytest.approx(65)


def test_debug_mode_does_not_hide_iterations() -> None:
    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        async with observed(loop) as introspector:
            await asyncio.sleep(1)
            return introspector.snapshot().worker.lag_method

    with asyncio.Runner(loop_factory=FakeLoop, debug=True) as runner:
        assert runner.run(main()) == "iterations"


def test_a_nested_iteration_in_the_first_one_hides_nothing() -> None:
    """It has a frame of its own; the next ones have the loop's."""

    async def other() -> None:
        await asyncio.sleep(0)

    async def main(loop: Any) -> Any:
        async with observed(loop) as introspector:
            task = asyncio.ensure_future(other(), loop=loop)
            outer = asyncio.current_task(loop)
            asyncio.tasks._leave_task(loop, outer)  # type: ignore[attr-defined]
            while not task.done():
                loop._run_once()
            asyncio.tasks._enter_task(loop, outer)  # type: ignore[attr-defined]
            await asyncio.sleep(1)
            return introspector.snapshot().worker.lag_method

    assert run_on(RewrittenLoop, main) == "iterations"


def test_attaching_adds_no_handle_to_a_loop_that_waits_by_code_of_its_own() -> None:
    """Where iterations nest, one more handle would change the order of the others."""

    async def main(loop: Any) -> Any:
        before = len(loop._ready), len(loop._scheduled)
        async with observed(loop) as introspector:
            after = len(loop._ready), len(loop._scheduled)
            await asyncio.sleep(1)
            return before, after, introspector.snapshot().worker.lag_method

    before, after, method = run_on(ReentrantLoop, main)
    assert before == after
    assert method == "iterations"


def test_attaching_adds_no_handle_to_a_loop_of_asyncio_s_before_it_runs() -> None:
    """Debug mode would log it, and other code count it."""
    loop: Any = asyncio.SelectorEventLoop()
    before = len(loop._ready), len(loop._scheduled)
    introspector = Introspector(socket_path=False)
    try:
        introspector.attach(loop)
        after, method = (len(loop._ready), len(loop._scheduled)), introspector.snapshot().worker.lag_method
    finally:
        introspector.close()
        loop.close()
    assert (after, method) == (before, "iterations")


@pytest.mark.parametrize("kind", [*HIDDEN, *SHOWN])
def test_detaching_restores_all_that_was_changed(kind: Callable[[], Any]) -> None:
    """At once, before anything is decided, and later."""

    async def main(loop: Any) -> Any:
        before = set(vars(loop)), dict(vars(loop._selector))
        seen = []
        for seconds in (0, 1):
            async with observed(loop):
                await asyncio.sleep(seconds)
            seen.append((set(vars(loop)), dict(vars(loop._selector))))
        await asyncio.sleep(1)
        return before, seen

    before, seen = run_on(kind, main)
    assert seen == [before, before]


@pytest.mark.parametrize("kind", [*HIDDEN, *SHOWN])
def test_a_stopped_loop_is_not_blocked(kind: Callable[[], Any]) -> None:
    """Neither while it is stopped, nor by the time until it runs again."""
    loop = kind()
    introspector = observed(loop)

    async def works() -> None:
        with introspector.session("job", agent_name="test"):
            while True:
                await asyncio.sleep(0.01)

    async def begins() -> asyncio.Task[None]:
        introspector.attach()
        await asyncio.sleep(0)
        return asyncio.create_task(works())

    async def rests(seconds: float) -> None:
        await asyncio.sleep(seconds)

    try:
        task = loop.run_until_complete(begins())
        loop.run_until_complete(rests(1))
        loop.clock.advance(5)
        during = introspector.snapshot()
        loop.run_until_complete(rests(1))
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
    finally:
        introspector.close()
        loop.close()
    assert during.blocks_in_progress == []
    assert introspector.blocks() == []
