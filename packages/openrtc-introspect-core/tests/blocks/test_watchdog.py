from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest
from taken_samples import asleep, take_sample

from openrtc_introspect_core import Block, Introspector
from openrtc_introspect_core._blocks.stall_sampler import PARK_AFTER_S, StallSampler
from openrtc_introspect_core._blocks.stall_samples import MAX_PLACES
from openrtc_introspect_core._blocks.watchdog import Watchdog
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_testing._loops.backends import Backend, in_task
from openrtc_introspect_testing._loops.fake_clock import FakeClock
from openrtc_introspect_testing._loops.introspection_threads import ours, ours_end

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.mark.gil
def test_a_block_has_the_line_of_the_user_s_own_frame(on_any_loop: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the stack from the task's coroutine to the innermost call, too."""
    asleep(monkeypatch)

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:

            def lookup_menu() -> None:
                clock.advance(0.1)
                take_sample(introspector)
                clock.advance(0.1)

            async def entrypoint() -> None:
                lookup_menu()

            with introspector.session("culprit", agent_name="a"):
                await in_task(entrypoint)
            return introspector.blocks()

    (block,) = on_any_loop(main())
    assert block.location is not None
    assert block.location.function == "take_sample"  # the innermost of this file, which is the user's
    functions = [location.function.rpartition(".")[2] for location in block.stack]
    begin = functions.index("entrypoint")  # before it are anyio's, which runs the task
    assert functions[begin : begin + 3] == ["entrypoint", "lookup_menu", "take_sample"]
    assert block.session_id == "culprit"


@pytest.mark.gil
def test_a_sample_keeps_nothing_of_what_threads_work_with(run_on_asyncio: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a thread's variables hold is freed as soon as its function returns, and not at the next collection."""
    asleep(monkeypatch)

    class Held:
        pass

    def work() -> None:
        held = Held()
        refs.append(weakref.ref(held))
        begun.set()
        ends.wait()

    async def main() -> None:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:
            with introspector.session("culprit", agent_name="a"):
                thread.start()
                begun.wait()
                for _ in range(3):
                    clock.advance(0.1)
                    take_sample(introspector)
                ends.set()
                thread.join()
                kept.append(refs[0]())

    refs: list[weakref.ref[Held]] = []
    kept: list[Held | None] = []
    begun, ends = threading.Event(), threading.Event()
    thread = threading.Thread(target=work, daemon=True)
    gc.disable()
    try:
        run_on_asyncio(main())
    finally:
        ends.set()
        gc.enable()
    assert kept == [None]


@pytest.mark.gil
def test_a_block_in_progress_has_its_line_already(on_any_loop: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator reads the line while the block lasts."""
    asleep(monkeypatch)

    async def main() -> Any:
        clock = FakeClock()
        seen: list[Block] = []
        async with Introspector(socket_path=False, clock=clock) as introspector:

            async def entrypoint() -> None:
                clock.advance(3)
                take_sample(introspector)
                thread = threading.Thread(target=lambda: seen.extend(introspector.snapshot().blocks_in_progress))
                thread.start()
                thread.join()

            with introspector.session("culprit", agent_name="a"):
                await in_task(entrypoint)
        return seen

    (block,) = on_any_loop(main())
    assert (block.session_id, block.in_progress, round(block.duration_ms)) == ("culprit", True, 3000)
    assert block.location is not None
    assert block.location.function == "take_sample"


def test_a_sample_that_waited_for_a_processor_was_not_kept_from_the_gil(
    on_any_loop: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run delay is no wait for the GIL: the lateness of the sample is without it."""
    asleep(monkeypatch)

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:

            async def entrypoint() -> None:
                clock.advance(0.2)
                take_sample(introspector, late=0.15, run_delay=0.14)

            with introspector.session("culprit", agent_name="a"):
                await in_task(entrypoint)
            sampler = parts_of(introspector).loops[0].stall_sampler
            assert sampler is not None
            return sampler.step

    stall = on_any_loop(main())
    assert stall.first_due == pytest.approx(stall.since + 0.05)
    assert stall.kept_s == pytest.approx(0.01)
    assert not stall.starved


def test_a_loop_that_is_held_for_a_moment_is_not_sampled(on_any_loop: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most ticks find nothing held."""
    asleep(monkeypatch)

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:

            async def entrypoint() -> float:
                clock.advance(0.001)
                return take_sample(introspector)

            with introspector.session("a", agent_name="a"):
                pause = await in_task(entrypoint)
            sampler = parts_of(introspector).loops[0].stall_sampler
            assert sampler is not None
            return pause, sampler.step

    assert on_any_loop(main()) == (0.045, None)


@pytest.mark.gil
def test_the_samples_of_one_block_are_kept_together_and_bounded(
    on_any_loop: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the places, so many are kept."""
    asleep(monkeypatch)

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:
            sampler = parts_of(introspector).loops[0].stall_sampler
            assert sampler is not None
            pauses: list[float] = []
            scope = {"pauses": pauses, "take_sample": take_sample, "introspector": introspector}

            async def entrypoint() -> None:
                clock.advance(1)
                for number in range(2 * MAX_PLACES):
                    exec(f"def f{number}(): pauses.append(take_sample(introspector))\nf{number}()", scope)

            with introspector.session("a", agent_name="a"):
                await in_task(entrypoint)
            assert sampler.step is not None
            return len(pauses), len(sampler.step.places), sampler.step.count

    assert on_any_loop(main()) == (2 * MAX_PLACES, MAX_PLACES, 2 * MAX_PLACES)


def test_the_longer_a_block_the_rarer_are_its_samples(on_any_loop: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 5 ms at first, then a fiftieth of the block, at last at the usual pace."""
    asleep(monkeypatch)

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:
            pauses: list[float] = []

            async def entrypoint() -> None:
                for seconds in (0.1, 0.9, 4.0):
                    clock.advance(seconds)
                    pauses.append(take_sample(introspector))

            with introspector.session("a", agent_name="a"):
                await in_task(entrypoint)
            return pauses

    assert on_any_loop(main()) == [0.005, pytest.approx(0.02), 0.045]


@pytest.mark.gil
def test_a_callback_is_the_session_s_whose_context_it_runs_in(
    run_on_asyncio: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds on loops whose handles have a context."""
    asleep(monkeypatch)

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:

            def callback() -> None:
                clock.advance(0.2)
                take_sample(introspector)

            async def entrypoint() -> None:
                asyncio.get_running_loop().call_soon(callback)
                await asyncio.sleep(0.001)

            with introspector.session("scheduler", agent_name="a"):
                await asyncio.create_task(entrypoint())
            return introspector.blocks()

    (block,) = run_on_asyncio(main())
    assert (block.session_id, block.cause, block.task_name) == ("scheduler", "callback", None)


@pytest.mark.gil
def test_a_task_that_is_not_metered_is_found_by_its_handle(
    on_timed_loops: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `cpu="off"` a block still has its session, its task and a task's cause."""
    asleep(monkeypatch)

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(cpu="off", socket_path=False, clock=clock) as introspector:

            async def entrypoint() -> None:
                clock.advance(0.2)
                take_sample(introspector)

            with introspector.session("culprit", agent_name="a"):
                await in_task(entrypoint, name="lookup")
            await anyio.sleep(0.001)
            return introspector.blocks()

    (block,) = on_timed_loops(main())
    assert (block.session_id, block.task_name) == ("culprit", "lookup")
    assert block.cause != "callback"


@pytest.mark.gil
@pytest.mark.slow
def test_a_task_that_a_closed_introspector_has_metered_is_known(run_on_asyncio: Run) -> None:
    """It meters nothing any more, and its frame does not hide whose step it is."""

    async def main() -> Any:
        go = asyncio.Event()

        async def work() -> None:
            await go.wait()
            time.sleep(0.4)

        async with Introspector(socket_path=False):
            task = asyncio.create_task(work(), name="old")
            await asyncio.sleep(0.001)
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("innocent", agent_name="a"):
                go.set()
                await task
                await asyncio.sleep(0.001)
            return introspector.blocks()

    block = max(run_on_asyncio(main()), key=lambda block: block.duration_ms)
    assert (block.session_id, block.task_name, block.cause) == (None, "old", "sync-call")


def test_a_burst_is_unattributed_and_names_the_sessions_that_took_part(virtually: Backend) -> None:
    """Each within the threshold, together over it."""

    async def main() -> Any:
        async with Introspector(socket_path=False, stacks=False, clock=virtually.clock) as introspector:

            async def work(name: str, seconds: float) -> None:
                with introspector.session(name, agent_name="a"):
                    await anyio.sleep(1)
                    virtually.block(seconds)
                    await anyio.sleep(1)

            async with anyio.create_task_group() as group:
                group.start_soon(work, "one", 0.03)
                group.start_soon(work, "two", 0.04)
            return introspector.blocks()

    (block,) = virtually(main())
    assert (block.session_id, block.cause, block.detail) == (None, "burst", "two 40 ms, one 30 ms")


def test_it_parks_while_the_loop_waits_and_is_woken_by_its_next_iteration(
    on_timed_loops: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing ticks while nothing happens."""
    asleep(monkeypatch)

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:
            sampler, hook = parts_of(introspector).loops[0].stall_sampler, parts_of(introspector).loops[0].hook
            assert sampler is not None
            assert hook is not None
            with introspector.session("a", agent_name="a"):
                ticking = sampler.awake

                def while_it_waits() -> Any:
                    while hook.iterations.busy_since is not None:
                        time.sleep(0.001)
                    clock.advance(2 * PARK_AFTER_S)
                    sampler.sample()
                    return not sampler.awake, hook.iterations.wakes_watchdog

                parked = await anyio.to_thread.run_sync(while_it_waits)
                return ticking, parked, sampler.awake, hook.iterations.wakes_watchdog

    assert on_timed_loops(main()) == (True, (True, True), True, False)


def test_it_is_awake_from_the_first_moment_with_sessions_or_without(on_timed_loops: Backend) -> None:
    """The step that starts introspection may block, and so may the main task or an untagged one."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            sampler = parts_of(introspector).loops[0].stall_sampler
            assert sampler is not None
            return sampler.awake

    assert on_timed_loops(main())


def test_a_loop_that_does_something_rarely_is_parked_again_at_the_next_tick(
    on_timed_loops: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the second tick otherwise: what has come often may come again."""
    asleep(monkeypatch)

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:
            sampler, hook = parts_of(introspector).loops[0].stall_sampler, parts_of(introspector).loops[0].hook
            assert sampler is not None

            def parks_after(waited: float) -> list[bool]:
                while hook.iterations.busy_since is not None:
                    time.sleep(0.001)
                sampler.sleep(until_next_iteration=True)
                hook.iterations.waiting_since = clock() - waited
                sampler.wake()
                hook.iterations.waiting_since = clock()
                parked = []
                for pause in (0.045, PARK_AFTER_S):
                    clock.advance(pause)
                    sampler.sample()
                    parked.append(not sampler.awake)
                return parked

            return [await anyio.to_thread.run_sync(parks_after, waited) for waited in (0.05, 0.15)]

    assert on_timed_loops(main()) == [[False, True], [True, True]]


@pytest.mark.slow
def test_a_broken_watchdog_is_switched_off_and_logged_once(
    on_timed_loops: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Blocks are still found, without a line."""

    def broken(self: Any, *_: Any, **__: Any) -> float:
        raise OSError("no frames")

    monkeypatch.setattr(StallSampler, "sample", broken)

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("a", agent_name="a"):
                while not introspector.snapshot().worker.notes:
                    await anyio.sleep(0.001)
                time.sleep(0.2)
                await anyio.sleep(0.001)
            return introspector.blocks(), introspector.snapshot().worker.notes

    blocks, notes = on_timed_loops(main())
    assert notes == ["the watchdog is switched off: OSError('no frames')"]
    (block,) = [block for block in blocks if block.session_id is not None]
    assert (block.session_id, block.location, block.cause) == ("a", None, None)


@pytest.mark.slow
def test_an_introspector_whose_samples_fail_loses_its_watchdog_alone(
    on_timed_loops: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread samples on for the others."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as bad, Introspector(socket_path=False) as good:
            sampler, looked_at = parts_of(bad).loops[0].stall_sampler, parts_of(good).loops[0].stall_sampler
            assert sampler is not None
            assert looked_at is not None
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sampler, "_ledger", None)  # its samples fail, and nothing else that blocks are read from
                with bad.session("a", agent_name="a"), good.session("a", agent_name="a"):
                    while not bad.snapshot().worker.notes:
                        time.sleep(0.02)
                        await anyio.sleep(0.001)
                    due = looked_at.due
                    while looked_at.due == due:
                        await anyio.sleep(0.001)
                patch.undo()
            return len(bad.snapshot().worker.notes), good.snapshot().worker.notes

    assert on_timed_loops(main()) == (1, [])


def test_switched_off_there_is_no_watchdog(virtually: Backend) -> None:
    """`stacks=False`: no thread of that name."""
    assert ours_end()

    async def main() -> list[str]:
        async with Introspector(socket_path=False, stacks=False):
            return ours()

    assert virtually(main()) == ["openrtc-introspect"]


@pytest.mark.gil
@pytest.mark.slow
def test_a_real_blocking_call_is_found_with_its_line(on_any_loop: Backend) -> None:
    """The whole path runs on real time: session, task, line, and a minimum duration."""

    async def main() -> Any:
        async with Introspector(socket_path=False, slow_session_threshold_ms=150) as introspector:

            def lookup_menu() -> None:
                time.sleep(0.4)

            async def entrypoint() -> None:
                await anyio.sleep(0.001)
                lookup_menu()

            with introspector.session("culprit", agent_name="a"):
                await in_task(entrypoint, name="lookup")
            return introspector.blocks(), lookup_menu.__code__.co_firstlineno + 1

    blocks, line = on_any_loop(main())
    (block,) = [block for block in blocks if block.session_id is not None]
    assert block.location is not None
    assert (block.session_id, block.task_name, block.location.line) == ("culprit", "lookup", line)
    assert block.location.file.endswith("test_watchdog.py")


@pytest.mark.gil
@pytest.mark.slow
def test_a_session_that_ends_with_its_block_was_sampled_until_then(on_any_loop: Backend) -> None:
    """C code that keeps the GIL, in the last step of the only session: the line or not, the cause is known.

    On a busy machine the block may be mostly run delay, and the rest mostly a wait for the watchdog, which had one
    with the GIL in its hands: that proves nothing, and it is done again.
    """

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:

            async def entrypoint() -> None:
                with introspector.session("culprit", agent_name="a"):
                    await anyio.sleep(0.3)  # long enough for the watchdog to park
                    sum(range(20_000_000))

            await in_task(entrypoint)
            return introspector.blocks()

    deadline = time.monotonic() + 60.0
    worst = max(on_any_loop(main()), key=lambda block: block.duration_ms)
    while worst.detail is not None and worst.detail.startswith("run delay") and time.monotonic() < deadline:
        worst = max(on_any_loop(main()), key=lambda block: block.duration_ms)
    assert worst.cause in ("native", "descheduled")


@asynccontextmanager
async def starved(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Introspector, StallSampler]]:
    """Yield an introspector and its loop's sampler, which the test alone calls, 0.3 s after 100.0 in a session."""
    asleep(monkeypatch)
    monkeypatch.setattr(Watchdog, "is_alive", lambda self: True)
    clock = FakeClock(100.0)
    async with Introspector(socket_path=False, clock=clock) as introspector:
        sampler = parts_of(introspector).loops[0].stall_sampler
        assert sampler is not None
        with introspector.session("a", agent_name="a"):
            clock.advance(0.3)
            yield introspector, sampler


def test_a_starved_sample_that_finds_nothing_is_evidence_of_the_block_recorded_right_after(
    on_timed_loops: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watchdog got the GIL before the loop's thread, which records its late awakening afterwards."""

    async def main() -> Any:
        async with starved(monkeypatch) as (_, sampler):
            sampler._hook.iterations.busy_since = sampler._ledger.holder = None  # as it is while the loop waits
            sampler.sample(0.2)
            sampler.due = 100.345
            spans = ((100.0, 100.3), (99.0, 100.05), (100.35, 100.4))
            return [sampler.read("step", since, end) for since, end in spans]

    seen, before, after = on_timed_loops(main())
    assert seen is not None
    assert (round(seen.first_due, 6), round(seen.kept_s, 6), seen.starved) == (100.1, 0.2, True)
    assert (before, after) == (None, None)


def test_a_starved_sample_that_finds_a_step_just_ended_is_evidence_of_that_step(
    on_timed_loops: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled code kept the GIL to the step's end, and the first Python code that ran is what records the block."""

    async def main() -> Any:
        async with starved(monkeypatch) as (introspector, sampler):
            sampler._hook.iterations.busy_since, sampler._ledger.holder = 99.9, None  # the iteration goes on
            take_sample(introspector, late=0.2)
            sampler.due = 100.345
            return sampler.read("step", 100.0, 100.3)

    seen = on_timed_loops(main())
    assert seen is not None
    assert (round(seen.first_due, 6), round(seen.kept_s, 6), seen.starved) == (100.1, 0.2, True)
