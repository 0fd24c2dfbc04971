from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

from hooks import hook_on

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._accounting.ledger import Ledger
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._loops.adopted_tasks import AdoptedTasks
from openrtc_introspect_core._loops.greenlets import GreenletSteps
from openrtc_introspect_core._loops.heartbeat_iterations import HeartbeatIterations
from openrtc_introspect_core._loops.open_steps import OpenSteps
from openrtc_introspect_core._loops.task_creation import TaskCreation
from openrtc_introspect_testing._loops.fake_clock import FakeClock

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def heartbeat_on(
    ledger: Ledger, on_stall: Callable[[float, float], None], faults: Callable[[str], None] = lambda problem: None
) -> HeartbeatIterations:
    """Return the heartbeat iterations of the running loop."""
    loop = asyncio.get_running_loop()

    def on_fault(problem: str, _: BaseException) -> None:
        faults(problem)

    iterations = HeartbeatIterations(loop, ledger, on_stall=on_stall, on_fault=on_fault, parks=True)
    steps = OpenSteps(loop, ledger, AdoptedTasks(loop, ledger), GreenletSteps(ledger, on_fault), nests=False)
    iterations.attach(steps, TaskCreation(loop, ledger, meter=True, created=None), lambda: None)
    return iterations


def test_a_late_heartbeat_is_a_block(run: Run) -> None:
    """If iterations are not timed, lateness above the threshold is a block, and less is none."""

    async def main() -> Any:
        clock = FakeClock(0.0)
        stalls: list[tuple[float, float]] = []
        ledger = Ledger(contextvars.ContextVar("binding"), clock, 0.05)
        iterations = heartbeat_on(ledger, lambda *stall: stalls.append(stall))
        iterations.beat(1.0, 1.049)
        iterations.beat(2.0, 2.3)
        return stalls, list(iterations.long_waits)

    stalls, waits = run(main())
    assert stalls == [(2.0, 2.3)]
    assert [round(wait, 9) for _, wait in waits] == [0.049, 0.3]


def test_on_uvloop_a_timer_that_cannot_park_runs_only_while_sessions_live() -> None:
    """An idle worker is not woken. Without metering, nothing shows when the loop goes on."""
    import uvloop

    async def main() -> Any:
        async with Introspector(socket_path=False, cpu="off") as introspector:
            hook = parts_of(introspector).loops[0].hook
            heartbeat = hook.iterations.heartbeat
            idle = heartbeat.due
            with introspector.session("job-1", agent_name="test"):
                running = heartbeat.due
            return idle, running, heartbeat.due, heartbeat.interval

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        idle, running, after, interval = runner.run(main())
    assert (idle, after) == (None, None)
    assert running is not None
    assert interval == 0.025


def test_on_uvloop_a_timer_that_parks_runs_from_the_beginning() -> None:
    """So that a block is noticed while no session lives; its beats come more rarely then."""
    import uvloop

    async def main() -> Any:
        async with Introspector(socket_path=False, stacks=False) as introspector:
            heartbeat: Any = parts_of(introspector).loops[0].hook.iterations.heartbeat
            clock = parts_of(introspector).loops[0].ledger.clock
            first = heartbeat.due - clock()
            while heartbeat.due is None or (unhurried := heartbeat.due - clock()) <= 0.025:
                await asyncio.create_task(asyncio.sleep(0.001))
            with introspector.session("job-1", agent_name="test"):
                hurried = heartbeat.due - clock()
            return first, unhurried, hurried

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        first, unhurried, hurried = runner.run(main())
    assert max(first, hurried) <= 0.025 < unhurried


def test_on_uvloop_the_timer_stops_if_no_step_begins_and_the_next_step_starts_it() -> None:
    """Sessions that only wait cause no wake-ups."""
    import uvloop

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        async with Introspector(socket_path=False, stacks=False) as introspector:
            hook, ledger = parts_of(introspector).loops[0].hook, parts_of(introspector).loops[0].ledger
            assert hook is not None
            heartbeat = hook.iterations.heartbeat
            assert heartbeat is not None

            async def wait_for(future: asyncio.Future[Any]) -> Any:
                quiet = await future
                return quiet, heartbeat.due is not None, ledger.holder is ledger.parked

            def check(future: asyncio.Future[Any]) -> None:
                if heartbeat.due is None:
                    future.set_result(ledger.holder is ledger.parked)
                else:
                    loop.call_later(0.01, check, future)

            with introspector.session("job-1", agent_name="test"):
                future = loop.create_future()
                loop.call_later(0.01, check, future)
                return await asyncio.create_task(wait_for(future))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == (True, True, False)


def test_a_broken_consumer_of_stalls_does_not_reach_the_loop(run_virtually: Run) -> None:
    """The fault is reported once for each, and the loop goes on."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        faults: list[str] = []

        def broken(since: float, until: float) -> None:
            raise OSError("disk")

        hook = hook_on(loop, loop.clock, on_stall=broken, on_fault=lambda problem, _error: faults.append(problem))
        hook.attach()
        loop.block(1)
        await asyncio.sleep(1)
        heartbeat_on(hook.ledger, broken, faults.append).beat(loop.clock() - 1, loop.clock())
        hook.detach()
        return faults

    assert len(run_virtually(main())) == 2


def test_a_late_beat_is_not_put_off_by_the_first_session(run: Run) -> None:
    """Nor by the next one of a task that works for one after the other: the beat finds what held the loop before."""

    async def main() -> Any:
        clock = FakeClock(0.0)
        stalls: list[tuple[float, float]] = []
        ledger = Ledger(contextvars.ContextVar("binding"), clock, 0.05)
        iterations = heartbeat_on(ledger, lambda *stall: stalls.append(stall))
        heartbeat = iterations.heartbeat
        heartbeat.sessions_live(True)
        due = heartbeat.due
        assert due is not None
        clock.advance(0.3)
        heartbeat.sessions_live(False)
        heartbeat.sessions_live(True)
        while not stalls:
            await asyncio.sleep(0.001)
        heartbeat.stop()
        return stalls, due

    stalls, due = run(main())
    assert stalls == [(due, 0.3)]
