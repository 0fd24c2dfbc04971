from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import anyio.to_thread
import pytest

from openrtc_introspect_core import Block, Introspector
from openrtc_introspect_core._watchdog import MAX_LOOKS, PARK_AFTER_S, Watch, Watchdog
from openrtc_introspect_testing._backends import Backend, in_task
from openrtc_introspect_testing._clock import FakeClock
from openrtc_introspect_testing._threads import ours, ours_end

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def looked(introspector: Introspector, late: float = 0.0, not_let: float = 0.0) -> float:
    """One look from another thread, while this one, the loop's, is held here."""
    watch = introspector._loops[0].watch
    assert watch is not None
    pauses: list[float] = []
    thread = threading.Thread(target=lambda: pauses.append(watch.look(late, lambda: not_let)))
    thread.start()
    thread.join()
    return pauses[0]


def asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog's own thread does nothing: the test looks."""
    monkeypatch.setattr(Watchdog, "start", lambda self: None)


@pytest.mark.gil
def test_a_block_has_the_line_of_the_user_s_own_frame(on_any_loop: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the stack from the task's coroutine to the innermost call."""
    asleep(monkeypatch)

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:

            def lookup_menu() -> None:
                clock.advance(0.1)
                looked(introspector)
                clock.advance(0.1)

            async def entrypoint() -> None:
                lookup_menu()

            with introspector.session("culprit", agent_name="a"):
                await in_task(entrypoint)
            return introspector.blocks()

    (block,) = on_any_loop(main())
    assert block.location is not None
    assert block.location.function == "looked"  # the innermost of this file, which is the user's
    functions = [location.function.rpartition(".")[2] for location in block.stack]
    begin = functions.index("entrypoint")  # before it are anyio's, which runs the task
    assert functions[begin : begin + 3] == ["entrypoint", "lookup_menu", "looked"]
    assert block.session_id == "culprit"


@pytest.mark.gil
def test_a_block_in_progress_has_its_line_already(on_any_loop: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator reads where it is while it is."""
    asleep(monkeypatch)

    async def main() -> Any:
        clock = FakeClock()
        seen: list[Block] = []
        async with Introspector(socket_path=False, clock=clock) as introspector:

            async def entrypoint() -> None:
                clock.advance(3)
                looked(introspector)
                thread = threading.Thread(target=lambda: seen.extend(introspector.snapshot().blocks_in_progress))
                thread.start()
                thread.join()

            with introspector.session("culprit", agent_name="a"):
                await in_task(entrypoint)
        return seen

    (block,) = on_any_loop(main())
    assert (block.session_id, block.in_progress, round(block.duration_ms)) == ("culprit", True, 3000)
    assert block.location is not None
    assert block.location.function == "looked"


def test_a_look_that_waited_for_a_processor_was_not_kept_from_the_gil(
    on_any_loop: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the machine took is not what a thread kept: how late the look was is told without it."""
    asleep(monkeypatch)

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:

            async def entrypoint() -> None:
                clock.advance(0.2)
                looked(introspector, late=0.15, not_let=0.14)

            with introspector.session("culprit", agent_name="a"):
                await in_task(entrypoint)
            watch = introspector._loops[0].watch
            assert watch is not None
            return watch.step

    incident = on_any_loop(main())
    assert incident.late == [pytest.approx(0.01)]
    assert incident.dues == [pytest.approx(incident.since + 0.05)]
    assert not incident.starved(incident.since + 0.2)


def test_what_is_held_for_a_moment_is_not_looked_at(on_any_loop: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most ticks find nothing to see."""
    asleep(monkeypatch)

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:

            async def entrypoint() -> float:
                clock.advance(0.001)
                return looked(introspector)

            with introspector.session("a", agent_name="a"):
                pause = await in_task(entrypoint)
            watch = introspector._loops[0].watch
            assert watch is not None
            return pause, watch.step

    assert on_any_loop(main()) == (0.045, None)


def test_looks_at_one_block_are_one_incident_and_bounded(on_any_loop: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 5 ms at first, then at the usual pace; the last look is always the newest."""
    asleep(monkeypatch)

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:
            watch = introspector._loops[0].watch
            assert watch is not None
            pauses = []

            async def entrypoint() -> None:
                clock.advance(1)
                pauses.extend(looked(introspector) for _ in range(2 * MAX_LOOKS))

            with introspector.session("a", agent_name="a"):
                await in_task(entrypoint)
            assert watch.step is not None
            return pauses[0], pauses[-1], len(watch.step.looks)

    assert on_any_loop(main()) == (0.005, 0.045, MAX_LOOKS)


@pytest.mark.gil
def test_a_callback_is_the_session_s_whose_context_it_runs_in(
    run_on_asyncio: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On loops whose handles tell."""
    asleep(monkeypatch)

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:

            def callback() -> None:
                clock.advance(0.2)
                looked(introspector)

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
    """With `cpu="off"`: the session, the task and a task's cause."""
    asleep(monkeypatch)

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(cpu="off", socket_path=False, clock=clock) as introspector:

            async def entrypoint() -> None:
                clock.advance(0.2)
                looked(introspector)

            with introspector.session("culprit", agent_name="a"):
                await in_task(entrypoint, name="lookup")
            await anyio.sleep(0.001)
            return introspector.blocks()

    (block,) = on_timed_loops(main())
    assert (block.session_id, block.task_name) == ("culprit", "lookup")
    assert block.cause != "callback"


@pytest.mark.gil
@pytest.mark.slow
def test_a_task_that_an_introspector_of_before_has_metered_is_known(run_on_asyncio: Run) -> None:
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


def test_a_burst_blames_nobody_and_names_who_took_part(virtually: Backend) -> None:
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
            watch, hook = introspector._loops[0].watch, introspector._loops[0].hook
            assert watch is not None
            assert hook is not None
            with introspector.session("a", agent_name="a"):
                ticking = watch.awake

                def while_it_waits() -> Any:
                    while hook.busy_since is not None:
                        time.sleep(0.001)
                    clock.advance(2 * PARK_AFTER_S)
                    watch.look()
                    return not watch.awake, hook.wakes_watchdog

                parked = await anyio.to_thread.run_sync(while_it_waits)
                return ticking, parked, watch.awake, hook.wakes_watchdog

    assert on_timed_loops(main()) == (True, (True, True), True, False)


def test_without_sessions_it_sleeps(on_timed_loops: Backend) -> None:
    """An idle worker has no ticks."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            watch = introspector._loops[0].watch
            assert watch is not None
            before = watch.awake
            with introspector.session("a", agent_name="a"):
                during = watch.awake
            return before, during, watch.awake

    assert on_timed_loops(main()) == (False, True, False)


@pytest.mark.slow
def test_a_broken_watchdog_is_switched_off_and_told_once(
    on_timed_loops: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Blocks are still found, without a line."""

    def broken(self: Any, *_: Any) -> float:
        raise OSError("no frames")

    monkeypatch.setattr(Watch, "look", broken)

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
def test_an_introspector_whose_looks_fail_loses_its_watchdog_alone(
    on_timed_loops: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread looks on for the others."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as bad, Introspector(socket_path=False) as good:
            watch, looked_at = bad._loops[0].watch, good._loops[0].watch
            assert watch is not None
            assert looked_at is not None
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(watch, "_hook", None)  # its looks fail
                with bad.session("a", agent_name="a"), good.session("a", agent_name="a"):
                    while not bad.snapshot().worker.notes:
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
    """The whole path, on real time: session, task, line, and for how long at the least."""

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
def test_a_session_that_ends_with_its_block_was_watched_until_then(on_any_loop: Backend) -> None:
    """C code that keeps the GIL, in the last step of the only session: the line or not, the cause is known."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:

            async def entrypoint() -> None:
                with introspector.session("culprit", agent_name="a"):
                    await anyio.sleep(0.3)  # long enough for the watchdog to park
                    sum(range(20_000_000))

            await in_task(entrypoint)
            return introspector.blocks()

    worst = max(on_any_loop(main()), key=lambda block: block.duration_ms)
    assert worst.cause in ("native", "descheduled")


def test_a_starved_look_that_finds_nothing_is_evidence_of_what_is_booked_right_after(
    on_timed_loops: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What held the GIL let go of it for the watchdog first: the loop's thread books its late awakening later."""
    asleep(monkeypatch)
    monkeypatch.setattr(Watchdog, "is_alive", lambda self: True)

    async def main() -> Any:
        clock = FakeClock(100.0)
        async with Introspector(socket_path=False, clock=clock) as introspector:
            watch = introspector._loops[0].watch
            assert watch is not None
            with introspector.session("a", agent_name="a"):
                clock.advance(0.3)
                watch._hook.busy_since, watch._ledger.running = None, None  # as it is while the loop waits
                watch.look(0.2)
                watch.due = clock() + 0.045
                return watch.unseen(100.0, 100.3), watch.unseen(99.0, 100.05), watch.unseen(100.35, 100.4)

    seen, before, after = on_timed_loops(main())
    assert seen is not None
    assert ([round(each, 6) for each in (*seen.dues, *seen.late)], seen.starved(100.3)) == ([100.1, 0.2], True)
    assert (before, after) == (None, None)
