from __future__ import annotations

import asyncio
import gc
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._accounting.gc_monitor import FULL, GcMonitor
from openrtc_introspect_core._accounting.ledger import Ledger
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._native import native
from openrtc_introspect_testing._loops.backends import Backend, in_task
from openrtc_introspect_testing._loops.fake_clock import FakeClock

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def collect(monitor: GcMonitor, clock: FakeClock, seconds: float, **more: Any) -> None:
    """Report a full collection. more: what else the collector says of it."""
    monitor._called("start", {"generation": 2, **more})
    clock.advance(seconds)
    monitor._called("stop", {"generation": 2, **more})


def monitored_ledger() -> tuple[FakeClock, Ledger, GcMonitor]:
    clock = FakeClock()
    ledger = Ledger(ContextVar("binding"), clock, 0.05)
    here = threading.get_ident()
    return clock, ledger, GcMonitor(clock, lambda thread_id: ledger if thread_id == here else None)


def test_a_notable_collection_is_charged_and_a_short_one_is_not() -> None:
    """Collections of more than 0.2 ms are notable."""
    clock, ledger, monitor = monitored_ledger()
    here = threading.get_ident()
    for seconds in (0.0001, 0.07):
        collect(monitor, clock, seconds)
    assert round(ledger.gc.busy, 9) == 0.07
    assert monitor.generation(0.0, 2000.0, here) == 2
    assert monitor.generation(0.0, 1.0, here) == 0


def test_a_collector_may_say_more_of_a_collection() -> None:
    """Python 3.15 has `candidates` and `duration`, in seconds. The clock counts."""
    clock, ledger, monitor = monitored_ledger()
    here, began = threading.get_ident(), clock()
    collect(monitor, clock, 0.07, collected=0, uncollectable=0, candidates=1_000_000, duration=0.05)
    assert round(ledger.gc.busy, 9) == 0.07
    collect(monitor, clock, 0.07, candidates=20)
    assert monitor.objects(began, clock(), here) == 1_000_000
    assert monitor.objects(began, clock(), here + 1) is None


def test_how_many_objects_a_collection_went_through_is_known_from_python_3_15_on() -> None:
    """Those that the collector had to look at, whether they are garbage or not."""
    monitor = GcMonitor(time.perf_counter, lambda thread_id: None)
    kept: list[list[Any]] = [[] for _ in range(300_000)]
    monitor.attach()
    try:
        gc.collect()
    finally:
        monitor.detach()
    found = monitor.objects(0.0, float("inf"), threading.get_ident())
    assert found is None if sys.version_info < (3, 15) else found is not None and found >= len(kept)


def test_the_collector_has_the_generations_that_are_known_here() -> None:
    """Three, of which the last one is the full one, and a threshold for the youngest."""
    found = []
    callback: Callable[[str, dict[str, int]], None] = lambda phase, info: found.append(info["generation"])  # noqa: E731
    gc.callbacks.append(callback)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(callback)
    assert set(found) == {FULL}
    assert len(gc.get_count()) == len(gc.get_threshold()) == FULL + 1
    assert gc.get_threshold()[0] > 0


def test_another_thread_s_collection_is_not_the_loop_s() -> None:
    """It holds the loop no more than any work with the GIL. Its length is known."""
    clock, ledger, monitor = monitored_ledger()
    began = clock()
    thread = threading.Thread(target=collect, args=(monitor, clock, 1.0))
    thread.start()
    thread.join()
    here = threading.get_ident()
    assert (ledger.gc.busy, monitor.generation(began, clock(), here)) == (0, 0)
    assert monitor.elsewhere(began + 0.25, clock() + 5, here) == 0.75
    since = clock()
    clock.advance(1)
    thread = threading.Thread(target=monitor._called, args=("start", {"generation": 2}))  # it does not report its end
    thread.start()
    thread.join()
    assert monitor.elsewhere(since, since + 5, here) == 4


def test_a_stop_without_a_start_is_nothing() -> None:
    """The monitor was attached in the middle of a collection."""
    _, ledger, monitor = monitored_ledger()
    monitor._called("stop", {"generation": 2})
    assert ledger.gc.busy == 0


def test_an_interrupt_is_no_fault_of_the_monitor() -> None:
    """It is raised to the collector, and the monitor stays attached."""

    def limit(number: int, frame: object) -> None:
        raise TimeoutError

    def interrupted() -> float:
        signal.raise_signal(signal.SIGUSR1)
        return 0.0

    faults: list[str] = []
    monitor = GcMonitor(interrupted, lambda thread_id: None, lambda problem, error: faults.append(problem))
    before = signal.signal(signal.SIGUSR1, limit)
    gc.disable()
    monitor.attach()
    try:
        with pytest.raises(TimeoutError):
            monitor._called("start", {"generation": 2})
        assert (monitor._called in gc.callbacks, faults) == (True, [])
    finally:
        monitor.detach()
        gc.enable()
        signal.signal(signal.SIGUSR1, before)


def test_it_is_there_while_attached(virtually: Backend) -> None:
    """`gc.callbacks` contains the monitor while an introspector is attached."""

    async def main() -> int:
        async with Introspector(socket_path=False):
            return len(gc.callbacks)

    before = len(gc.callbacks)
    assert virtually(main()) == before + 1
    assert len(gc.callbacks) == before


def test_a_collection_blames_no_session(virtually: Backend) -> None:
    """A step that was mostly a collection is a block of cause gc, without a session."""

    async def main() -> Any:
        async with Introspector(socket_path=False, stacks=False, clock=virtually.clock) as introspector:
            monitor = parts_of(introspector).shared.gc_monitor
            assert monitor is not None

            async def work() -> None:
                monitor._called("start", {"generation": 1})
                virtually.block(0.08)
                monitor._called("stop", {"generation": 1})
                virtually.block(0.01)

            with introspector.session("innocent", agent_name="a") as session:
                await in_task(work)
                return introspector.blocks(), session.blocks

    (block,), blocks = virtually(main())
    assert (block.session_id, block.cause) == (None, "gc")
    assert block.detail == "generation 1, 80 ms of it, in a step of session innocent"
    assert blocks == 0


@pytest.mark.gil  # the counter of what was made goes on after a collection
def test_a_collection_that_was_called_for_is_its_caller_s(virtually: Backend) -> None:
    """The block is the session's that was bound, at the line of the call."""

    async def main() -> Any:
        async with Introspector(socket_path=False, stacks=False, clock=virtually.clock) as introspector:
            monitor = parts_of(introspector).shared.gc_monitor

            async def work() -> None:
                collect_for(monitor, virtually)

            with introspector.session("caller", agent_name="a"):
                await in_task(work)
            return introspector.blocks()

    (block,) = virtually(main())
    assert (block.session_id, block.cause, block.detail) == ("caller", "explicit-gc", "gc.collect(), 80 ms of it")
    assert block.location.function == "collect_for"
    assert [call.function.rpartition(".")[2] for call in block.stack[-2:]] == ["work", "collect_for"]


def collect_for(monitor: GcMonitor, backend: Backend) -> None:
    monitor._called("start", {"generation": 2})
    backend.block(0.08)
    monitor._called("stop", {"generation": 2})


@pytest.mark.parametrize(
    ("enabled", "threshold", "count", "full", "asked"),
    [
        (True, 700, 3, 2, True),
        (True, 700, 701, 2, False),
        (True, 700, 690, 11, False),
        (True, 700, 690, 2, True),
        (True, 700, 600, 11, True),
        (False, 700, 701, 2, True),
        (True, 0, 701, 2, True),
    ],
    ids=[
        "below the threshold",
        "above it",
        "some freed since it was due",
        "not due",
        "many freed",
        "switched off",
        "without a threshold",
    ],
)
def test_a_collection_without_a_reason_was_called_for(
    enabled: bool, threshold: int, count: int, full: int, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector begins by itself if it is on and its counter has passed the threshold."""
    monitor = GcMonitor(FakeClock(), lambda thread_id: None)
    monkeypatch.setattr(gc, "isenabled", lambda: enabled)
    monkeypatch.setattr(gc, "get_threshold", lambda: (threshold, 10, 10))
    monkeypatch.setattr(gc, "get_count", lambda: (count, 0, full))
    monitor.full_begins()
    assert monitor._is_asked_for is asked


@pytest.mark.gil  # the counter of what was made goes on after a collection
def test_who_calls_the_real_collector_is_known() -> None:
    """From whatever thread, and whatever the collector's name is there."""
    monitor = GcMonitor(time.perf_counter, lambda thread_id: None)
    kept = [[] for _ in range(200_000)]  # type: ignore[var-annotated]  # for a collection of more than 0.2 ms
    monitor.attach()
    try:
        call_it = gc.collect
        call_it()
        thread = threading.Thread(target=gc.collect)
        thread.start()
        thread.join()
    finally:
        monitor.detach()
    ended = monitor._log.within(0.0, time.perf_counter())
    functions = [each.asked.calls[0].function for each in ended if each.asked is not None]
    assert functions == ["test_who_calls_the_real_collector_is_known", "Thread.run"]
    assert len(kept) == 200_000


def test_a_short_collection_calls_no_function_in_python_with_the_meter_in_c() -> None:
    """A notable one does."""
    if native is None:
        pytest.skip("the meter in C is not installed")
    monitor = GcMonitor(time.perf_counter, lambda thread_id: None)
    called: list[str] = []

    def see(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            called.append(frame.f_code.co_qualname)

    def run(seconds: float) -> list[str]:
        called.clear()
        sys.setprofile(see)
        monitor._called("start", {"generation": 0})
        monitor._called.began = (monitor._called.began or 0.0) - seconds
        monitor._called("stop", {"generation": 0})
        sys.setprofile(None)
        return list(called)

    assert [] in [run(0.0) for _ in range(100)]  # the machine may make some of them long
    assert run(1.0)[0] == "GcMonitor.collected"


@pytest.mark.parametrize("fails", ["clock", "ledger_of"])
def test_a_fault_of_the_monitor_is_noted_and_ends_it(fails: str) -> None:
    """The collector is told nothing of it."""

    def broken(*_: object) -> Any:
        raise OSError("no ledger")

    clock = FakeClock()
    faults: list[tuple[str, BaseException]] = []
    parts: Any = {"clock": clock, "ledger_of": lambda thread_id: None, fails: broken}
    monitor = GcMonitor(**parts, on_fault=lambda *fault: faults.append(fault))
    gc.disable()
    try:
        monitor.attach()
        monitor._called("start", {"generation": 2})
        if fails == "ledger_of":
            clock.advance(1.0)
            monitor._called("stop", {"generation": 2})
        left = monitor._called in gc.callbacks
    finally:
        gc.enable()
    ((problem, error),) = faults
    assert (left, problem) == (False, "garbage collections are not seen any more: OSError('no ledger')")
    assert error.__traceback__ is not None


def test_the_monitor_is_freed_with_its_callback() -> None:
    """They refer to each other."""
    monitor = GcMonitor(FakeClock(), lambda thread_id: None)
    monitor.attach()
    monitor.detach()
    freed = weakref.ref(monitor)
    del monitor
    gc.collect()
    assert freed() is None


MANY = [(200, 0.0001, "gc"), (200, 0.002, None), (10_000, 0.0001, "gc"), (10_000, 0.002, None)]


@pytest.mark.parametrize(
    ("count", "between", "cause"), MANY, ids=["200", "200, mostly code", "10k", "10k, mostly code"]
)
@pytest.mark.parametrize("holds", ["a step", "a callback"])
def test_a_block_of_very_many_collections_is_theirs_if_they_took_most_of_it(
    virtually: Backend, holds: str, count: int, between: float, cause: str | None
) -> None:
    """Else it is one block of who ran, however many there were."""
    if holds == "a callback" and virtually.is_trio:
        pytest.skip("Trio has no callbacks")

    async def main() -> Any:
        async with Introspector(socket_path=False, stacks=False, clock=virtually.clock) as introspector:
            monitor = parts_of(introspector).shared.gc_monitor
            assert monitor is not None

            def collections() -> None:
                for _ in range(count):
                    monitor._called("start", {"generation": 0})
                    virtually.block(0.001)
                    monitor._called("stop", {"generation": 0})
                    virtually.block(between)

            async def work() -> None:
                if holds == "a step":
                    collections()
                else:
                    asyncio.get_running_loop().call_soon(collections)

            with introspector.session("caller", agent_name="a"):
                await in_task(work)
                await anyio.sleep(1.0)
            return introspector.blocks()

    (block,) = virtually(main())
    assert (block.cause, round(block.duration_ms)) == (cause, round(1000 * count * (0.001 + between)))
    if cause == "gc":
        assert block.detail is not None
        assert block.detail.startswith(f"generation 0, {count} ms of it")
        assert block.session_id is None
    elif holds == "a step":
        assert block.session_id == "caller"


def test_calls_of_the_collector_at_one_line_count_as_one(virtually: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line that asked most often is the block's, and not that of the longest collection."""

    async def main() -> Any:
        async with Introspector(socket_path=False, stacks=False, clock=virtually.clock) as introspector:
            monitor = parts_of(introspector).shared.gc_monitor
            assert monitor is not None
            monkeypatch.setattr(monitor, "full_begins", lambda: setattr(monitor, "_is_asked_for", True))

            def once() -> None:
                monitor._called("start", {"generation": 2})
                virtually.block(0.05)
                monitor._called("stop", {"generation": 2})

            def often() -> None:
                for _ in range(1000):
                    monitor._called("start", {"generation": 2})
                    virtually.block(0.001)
                    monitor._called("stop", {"generation": 2})

            async def work() -> None:
                once()
                often()

            with introspector.session("caller", agent_name="a"):
                await in_task(work)
            return introspector.blocks()

    (block,) = virtually(main())
    assert (block.session_id, block.cause) == ("caller", "explicit-gc")
    assert block.location.function.endswith("often")
