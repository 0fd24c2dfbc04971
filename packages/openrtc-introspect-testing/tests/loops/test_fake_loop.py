"""FakeLoop: virtual time, asyncio's own order, real threads, and deadlocks."""

from __future__ import annotations

import asyncio
import functools
import gc
import math
import queue
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from openrtc_introspect_core import Introspector
from openrtc_introspect_testing import DeadlockError, FakeClock, FakeLoop
from openrtc_introspect_testing._loops.introspection_threads import ours_end


def fake_loop() -> FakeLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FakeLoop)
    return loop


def impatient() -> FakeLoop:
    return FakeLoop(real_wait_s=0.2)


def run_impatiently(main: Any) -> Any:
    with asyncio.Runner(loop_factory=impatient) as runner:
        return runner.run(main)


# --- time --------------------------------------------------------------------------------------------


def test_a_sleep_takes_exactly_its_time_of_the_loops_clock_and_none_of_ours() -> None:
    """An hour of virtual time is over at once, and the loop's time says that it has passed."""

    async def main() -> float:
        loop = fake_loop()
        began = loop.time()
        await asyncio.sleep(3600)
        return loop.time() - began

    began = time.monotonic()
    assert FakeLoop.run(main()) == 3600.0
    assert time.monotonic() - began < 600


def test_block_moves_the_clock_on_without_running_anything_else() -> None:
    """Timers that came due in the meantime run afterwards, late, as after a real blocking call."""

    async def main() -> list[tuple[str, float]]:
        loop = fake_loop()
        began, log = loop.time(), []
        loop.call_later(1, lambda: log.append(("timer", loop.time() - began)))
        loop.block(5)
        log.append(("blocked", loop.time() - began))
        await asyncio.sleep(0.5)
        return log

    assert FakeLoop.run(main()) == [("blocked", 5.0), ("timer", 5.0)]


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_clock_never_goes_back_nor_to_the_end_of_time(seconds: float) -> None:
    """Neither a block nor an advance of less than 0, or without an end, is accepted."""
    with pytest.raises(ValueError, match="0 or more and finite, got"):
        FakeClock().advance(seconds)
    loop = FakeLoop()
    try:
        with pytest.raises(ValueError, match="0 or more and finite, got"):
            loop.block(seconds)
    finally:
        loop.close()


def test_advance_to_a_reading_of_the_past_does_nothing() -> None:
    """It moves on to exactly what it is given, and never back."""
    clock = FakeClock(start=5.0)
    clock.advance_to(7.5)
    clock.advance_to(6.0)
    assert clock() == 7.5


def test_block_from_another_thread_is_refused() -> None:
    """It would hold a loop that it does not run on."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="own thread"):
            await asyncio.to_thread(fake_loop().block, 1)

    FakeLoop.run(main())


def test_years_pass_one_timer_at_a_time() -> None:
    """A short sleep ends even late in time, when floats are far apart."""

    async def main() -> float:
        loop = fake_loop()
        await asyncio.sleep(1e9)
        began = loop.time()
        await asyncio.sleep(0.25)
        return loop.time() - began

    assert FakeLoop.run(main()) == 0.25


def test_a_timer_that_a_block_ends_at_exactly_is_due() -> None:
    """It is due late in time as well, when the clock has no nanoseconds."""

    async def main() -> str:
        loop = fake_loop()
        loop.block(1e8)
        sleeping = asyncio.create_task(asyncio.sleep(16, "slept"))
        await asyncio.sleep(0)
        loop.block(16)
        return await sleeping

    assert FakeLoop.run(main()) == "slept"


def test_timeouts_and_task_groups_work_in_virtual_time() -> None:
    """A timeout cancels what takes longer, when it is due; a group waits for the longest."""

    async def main() -> list[float]:
        loop = fake_loop()
        began, moments = loop.time(), []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await asyncio.sleep(3600)
        moments.append(loop.time() - began)
        async with asyncio.TaskGroup() as group:
            for seconds in (5, 30, 20):
                group.create_task(asyncio.sleep(seconds))
        moments.append(loop.time() - began)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 60)
        moments.append(loop.time() - began)
        return moments

    assert FakeLoop.run(main()) == [10.0, 40.0, 100.0]


def test_anyio_runs_on_it() -> None:
    """anyio.run takes it as its loop; sleeps, deadlines and task groups are virtual."""

    async def main() -> float:
        began = anyio.current_time()
        with anyio.move_on_after(50):
            await anyio.sleep_forever()
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 7)
        return anyio.current_time() - began

    assert anyio.run(main, backend_options={"loop_factory": FakeLoop}) == 57.0


def test_the_introspector_measures_in_its_time() -> None:
    """With the loop's clock, a virtual block is a block of the session that ran, to the millisecond."""

    async def main() -> Any:
        loop = fake_loop()
        async with Introspector(socket_path=False, clock=loop.clock) as introspector:

            async def look_up() -> None:
                loop.block(0.3)
                await asyncio.sleep(60)

            with introspector.session("job-1", agent_name="restaurant"):
                await asyncio.create_task(look_up())
            return introspector.blocks()

    blocks = FakeLoop.run(main())
    assert [(block.session_id, round(block.duration_ms)) for block in blocks] == [("job-1", 300)]


# --- order -------------------------------------------------------------------------------------------

_UNIT_S = 0.003
"""Seconds of real time between two timers of a random schedule."""

steps = st.lists(
    st.one_of(
        st.tuples(st.just("soon"), st.integers(1, 4)),
        st.tuples(st.just("at"), st.integers(0, 7)),
    ),
    max_size=4,
)
schedules = st.lists(st.tuples(st.integers(0, 7), steps), min_size=1, max_size=6)


def order_on(make_loop: Callable[[], asyncio.AbstractEventLoop], schedule: Any) -> tuple[list[Any], bool]:
    """Run a schedule; return the order of its callbacks, and whether each was on time.

    Timers are set for points of a grid; from them, chains of callbacks and further timers start. If the machine is late
    by more than the grid, a chain and the next timer may overtake each other.
    """
    loop = make_loop()
    log: list[Any] = []
    on_time = True
    seen: set[int] = set()

    def at(point: int, name: Any, then: Any) -> None:
        # Only the first timer of a moment is set: asyncio leaves the order of two such timers open.
        if point not in seen:
            seen.add(point)
            loop.call_at(began + _UNIT_S * (point + 1), fire, point, name, then)

    def note(point: int, what: Any) -> None:
        nonlocal on_time
        on_time = on_time and loop.time() - began - _UNIT_S * (point + 1) < _UNIT_S / 2
        log.append(what)

    def fire(point: int, name: Any, then: Any) -> None:
        note(point, name)
        for index, (kind, value) in enumerate(then):
            if kind == "soon":
                chain(point, (name, index), value)
            else:
                at(min(point + 1 + value, 15), (name, index), [])

    def chain(point: int, name: Any, length: int) -> None:
        note(point, (name, "soon", length))
        if length > 1:
            loop.call_soon(chain, point, name, length - 1)

    try:
        began = loop.time()
        for index, (point, then) in enumerate(schedule):
            loop.call_soon(chain, -1, index, 2)
            at(point, index, then)
        loop.call_at(began + _UNIT_S * 18, loop.stop)
        loop.run_forever()
    finally:
        loop.close()
    return log, on_time


@pytest.mark.slow
@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.generate])  # shrinking in real time takes hours
@given(schedule=schedules)
def test_the_order_is_that_of_a_real_loop(schedule: Any) -> None:
    """Callbacks and timers run in asyncio's order, if the machine keeps up with asyncio."""
    real, on_time = order_on(asyncio.SelectorEventLoop, schedule)
    fake, _ = order_on(FakeLoop, schedule)
    if on_time:
        assert fake == real


@settings(max_examples=60, deadline=None)
@given(delays=st.lists(st.sampled_from([0.0, 0.1, 0.2, 1.0, 1e6]), max_size=12))
def test_timers_that_are_due_at_one_moment_run_in_the_order_they_were_set(delays: list[float]) -> None:
    """Timers run by the time they are due, and equal ones first come, first served."""
    loop = FakeLoop()
    ran: list[int] = []
    try:
        for index, delay in enumerate(delays):
            loop.call_later(delay, ran.append, index)
        loop.call_later(2e6, loop.stop)
        loop.run_forever()
    finally:
        loop.close()
    assert ran == sorted(range(len(delays)), key=lambda index: delays[index])


@settings(max_examples=60, deadline=None)
@given(
    moves=st.lists(
        st.one_of(
            st.tuples(st.just("sleep"), st.floats(0, 1e7)),
            st.tuples(st.just("block"), st.floats(0, 1e7)),
            st.tuples(st.just("timeout"), st.floats(-10, 1e3)),
        ),
        max_size=10,
    )
)
def test_time_never_goes_backwards(moves: list[tuple[str, float]]) -> None:
    """Each sleep ends no earlier than the clock can show."""

    async def one(readings: list[float]) -> None:
        loop = fake_loop()
        for kind, seconds in moves:
            before = loop.time()
            if kind == "sleep":
                await asyncio.sleep(seconds)
                assert loop.time() >= before + seconds - max(1e-9, math.ulp(loop.time()))
            elif kind == "block":
                loop.block(seconds)
            else:
                with anyio.move_on_after(seconds):
                    await asyncio.sleep(100)
            readings.append(loop.time())

    async def main() -> list[float]:
        readings: list[float] = []
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(one(readings))
        return readings

    readings = FakeLoop.run(main())
    assert readings == sorted(readings)


def test_a_cancelled_timer_does_not_move_the_clock() -> None:
    """Only timers that are still to come move it."""

    async def main() -> float:
        loop = fake_loop()
        began = loop.time()
        loop.call_later(5, print).cancel()
        await asyncio.sleep(10)
        return loop.time() - began

    assert FakeLoop.run(main()) == 10.0


def test_in_debug_mode_a_timer_knows_where_it_was_set() -> None:
    """The line is not in the loop's own code."""
    loop = FakeLoop()
    try:
        loop.set_debug(True)
        timer: Any = loop.call_later(5, print)
        assert timer._source_traceback[-1].name == "test_in_debug_mode_a_timer_knows_where_it_was_set"
    finally:
        loop.close()


# --- threads -----------------------------------------------------------------------------------------


async def in_asyncios_thread(function: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(function)


async def in_anyios_thread(function: Callable[[], Any]) -> Any:
    return await anyio.to_thread.run_sync(function)


IN_A_THREAD = pytest.mark.parametrize("in_a_thread", [in_asyncios_thread, in_anyios_thread])


@IN_A_THREAD
def test_the_clock_stands_still_while_a_thread_works(in_a_thread: Any) -> None:
    """A timeout does not fire because a thread takes real time, however short it is."""

    async def main() -> tuple[str, float]:
        loop = fake_loop()
        began = loop.time()
        async with asyncio.timeout(0.001):
            result = await in_a_thread(lambda: time.sleep(0.1) or "done")
        return result, loop.time() - began

    assert FakeLoop.run(main()) == ("done", 0.0)


@IN_A_THREAD
def test_a_thread_that_asks_the_loop_for_virtual_time_gets_it(in_a_thread: Any) -> None:
    """It is parked while it waits for the loop, so the clock goes on."""

    async def main() -> float:
        loop = fake_loop()
        began = loop.time()

        def work() -> None:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(3600), loop).result()

        await in_a_thread(work)
        return loop.time() - began

    assert FakeLoop.run(main()) == 3600.0


def test_anyios_way_back_from_a_thread_takes_virtual_time() -> None:
    """anyio.from_thread.run waits for the loop as well."""

    async def main() -> float:
        began = anyio.current_time()
        await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(anyio.sleep, 42))
        return anyio.current_time() - began

    assert FakeLoop.run(main()) == 42.0


@IN_A_THREAD
def test_a_task_that_is_cancelled_while_its_thread_works_lets_no_time_pass(in_a_thread: Any) -> None:
    """No task waits for the thread's result any more, but the loop waits for the thread's real work."""

    async def main() -> float:
        loop = fake_loop()
        began = loop.time()
        ended: list[float] = []
        started = threading.Event()

        def work() -> None:
            started.set()
            time.sleep(0.1)
            ended.append(loop.time())

        task = asyncio.create_task(in_a_thread(work))
        while not started.is_set():
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(10)
        assert ended == [began]
        return loop.time() - began

    assert FakeLoop.run(main()) == 10.0


def test_a_queue_of_calls_for_one_thread_is_worked_off() -> None:
    """A call that waits for its turn behind one that waits for the loop does not stop the clock."""

    async def main() -> list[float]:
        loop = fake_loop()
        began = loop.time()
        from concurrent.futures import ThreadPoolExecutor

        def work() -> float:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(10), loop).result()
            return loop.time() - began

        with ThreadPoolExecutor(1) as executor:
            return list(await asyncio.gather(*(loop.run_in_executor(executor, work) for _ in range(3))))

    assert run_impatiently(main()) == [10.0, 20.0, 30.0]


def test_a_thread_of_ones_own_is_waited_for_where_nothing_is_scheduled() -> None:
    """Its call_soon_threadsafe arrives; the loop sees that someone is still at work."""

    async def main() -> str:
        loop = fake_loop()
        future = loop.create_future()

        def work() -> None:
            time.sleep(0.1)
            loop.call_soon_threadsafe(future.set_result, "arrived")

        thread = threading.Thread(target=work)
        thread.start()
        try:
            return str(await future)
        finally:
            thread.join()

    assert FakeLoop.run(main()) == "arrived"


def test_hold_keeps_the_clock_for_what_is_real() -> None:
    """A socket's data arrives within a virtual timeout, which would be over at once otherwise."""

    async def main() -> tuple[bytes, float]:
        loop = fake_loop()
        began = loop.time()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)

        def send() -> None:
            time.sleep(0.1)
            theirs.send(b"hello")

        thread = threading.Thread(target=send)
        thread.start()
        try:
            async with asyncio.timeout(1):
                with loop.hold():
                    return await loop.sock_recv(ours, 10), loop.time() - began
        finally:
            thread.join()
            ours.close()
            theirs.close()

    assert FakeLoop.run(main()) == (b"hello", 0.0)


def test_a_thread_that_does_not_come_back_is_an_error_that_says_where_it_is() -> None:
    """The loop waits for it as long as `real_wait_s` says, and does not hang."""
    lock = threading.Lock()
    lock.acquire()

    def stuck() -> None:
        with lock:
            pass

    async def main() -> None:
        await asyncio.to_thread(stuck)

    runner = asyncio.Runner(loop_factory=impatient)
    try:
        with pytest.raises(TimeoutError, match=r"for 0\.2 s(?s:.*)asyncio_0 at .*test_fake_loop\.py:\d+ in .*stuck"):
            runner.run(main())
    finally:
        lock.release()
        runner.close()


def test_a_loop_that_waits_no_time_at_all_is_refused() -> None:
    """It could wait for no thread."""
    with pytest.raises(ValueError, match="real_wait_s must be more than 0 seconds, got 0"):
        FakeLoop(real_wait_s=0)


# --- deadlocks ---------------------------------------------------------------------------------------


def test_a_deadlock_is_an_error_that_lists_who_waits_where() -> None:
    """Two tasks that wait for each other are found at once, with the lines of the user's own code."""

    async def one(mine: asyncio.Event, theirs: asyncio.Event) -> None:
        await theirs.wait()
        mine.set()

    async def main() -> None:
        events = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(one(*events), name="one")
            group.create_task(one(*reversed(events)), name="two")

    began = time.monotonic()
    with pytest.raises(DeadlockError) as error:
        FakeLoop.run(main())
    lines = str(error.value).splitlines()
    assert lines[0] == "nothing is scheduled and no thread works: 3 tasks wait forever"
    line = one.__code__.co_firstlineno + 1
    assert sum(f"test_fake_loop.py:{line} in " in each for each in lines) == 2
    assert [each.split()[0] for each in lines[1:3]] == ["one", "two"]
    assert time.monotonic() - began < 600


def test_a_deadlock_is_found_where_an_introspector_meters_the_tasks() -> None:
    """The loop sees through metered coroutines, and does not wait for introspection's threads."""

    async def wait(queue: asyncio.Queue[int]) -> int:
        return await queue.get()

    async def main() -> None:
        async with Introspector(socket_path=False):
            await asyncio.create_task(wait(asyncio.Queue()), name="reader")

    line = wait.__code__.co_firstlineno + 1
    with pytest.raises(DeadlockError, match=rf"reader at .*test_fake_loop\.py:{line} in .*wait"):
        FakeLoop.run(main())


def test_a_thread_that_waits_for_the_loop_is_part_of_the_deadlock() -> None:
    """It is parked, so it does not keep the loop from raising the error."""
    from_loop: queue.Queue[str] = queue.Queue()

    async def main() -> None:
        try:
            await asyncio.to_thread(from_loop.get)
        except asyncio.CancelledError:
            from_loop.put("let go")
            raise

    with pytest.raises(DeadlockError, match="1 task waits forever"):
        FakeLoop.run(main())


def test_waiting_for_the_end_of_time_is_a_deadlock() -> None:
    """sleep(inf), which is anyio's sleep_forever, is no timer that will ever be due."""
    with pytest.raises(DeadlockError, match="1 task waits"):
        FakeLoop.run(asyncio.sleep(float("inf")))


def test_many_waiting_tasks_are_counted_and_not_all_listed() -> None:
    """An error stays readable."""

    async def main() -> None:
        event = asyncio.Event()
        await asyncio.gather(*(event.wait() for _ in range(50)))

    with pytest.raises(DeadlockError, match=r"51 tasks(?s:.*)and 31 more$"):
        FakeLoop.run(main())


def test_after_an_error_everything_is_cleaned_up() -> None:
    """The tasks are cancelled and their `finally` blocks run, as after any error of asyncio.run."""
    cleaned: list[str] = []

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(5)
            cleaned.append("main")

    with pytest.raises(DeadlockError):
        FakeLoop.run(main())
    assert cleaned == ["main"]


# --- how it is started -------------------------------------------------------------------------------


def with_runner(main: Any) -> Any:
    with asyncio.Runner(loop_factory=FakeLoop) as runner:
        return runner.run(main)


def with_run(main: Any) -> Any:
    arguments: dict[str, Any] = {"loop_factory": FakeLoop}
    return asyncio.run(main, **arguments)


def by_hand(main: Any) -> Any:
    loop = FakeLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


def ways() -> Iterator[Any]:
    import sys

    yield FakeLoop.run
    yield with_runner
    yield pytest.param(with_run, marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio.run of 3.12"))
    yield by_hand


@pytest.mark.parametrize("way", list(ways()))
def test_every_way_to_start_a_loop_starts_it(way: Any) -> None:
    """No warning, no unclosed loop and no thread stays behind."""
    assert ours_end()  # the threads that an introspector of an earlier test needed
    threads = set(threading.enumerate())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert way(asyncio.sleep(100, "slept")) == "slept"
        gc.collect()
    assert set(threading.enumerate()) == threads


def test_a_loop_with_its_own_patience() -> None:
    """functools.partial makes a factory of it."""
    with asyncio.Runner(loop_factory=functools.partial(FakeLoop, real_wait_s=1)) as runner:
        assert runner.run(asyncio.sleep(5, "slept")) == "slept"
