from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._base.clock import perf_counter
from openrtc_introspect_core._service import worker_service
from openrtc_introspect_core._service.service_thread import SERVICE_THREAD
from openrtc_introspect_core._service.worker_service import WorkerService
from openrtc_introspect_core.wire import Hello
from openrtc_introspect_testing._loops.backends import Backend
from openrtc_introspect_testing._loops.introspection_threads import ours, ours_end

DEADLINE_S = 60.0


def service(tick: Any, faults: list[str], interval_s: float = 60.0) -> WorkerService:
    source: Any = None
    return WorkerService(
        listener=None,
        source=source,
        hello=Hello(protocol="1.0", worker="w", pid=1),
        clock=perf_counter,
        interval_s=interval_s,
        idle=lambda: False,
        tick=tick,
        on_fault=lambda probe, error: faults.append(f"{probe}: {error}"),
    )


def becomes(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


def goes_on(running: WorkerService, ticked: threading.Semaphore) -> None:
    """Assert that it ticks on, and ends when it is stopped."""
    for _ in range(50):
        assert ticked.acquire(timeout=DEADLINE_S)
    running.stop()
    running.join(DEADLINE_S)


def test_it_ticks_soon_and_then_each_interval() -> None:
    """The first sample does not wait for the first interval."""
    ticked = threading.Semaphore(0)
    soon = service(lambda now: ticked.release(), [])
    soon.start()
    assert ticked.acquire(timeout=60)
    soon.stop()
    running = service(lambda now: ticked.release(), [], interval_s=0.01)
    running.start()
    for _ in range(3):
        assert ticked.acquire(timeout=60)
    running.stop()
    running.join(10)
    assert not running.is_alive()
    assert running.cpu_s > 0


def test_it_ticks_sooner_if_that_is_asked_for() -> None:
    """As often as it is asked, however long the interval is."""
    ticked = threading.Semaphore(0)
    soon = service(lambda now: ticked.release(), [])
    soon.start()
    assert ticked.acquire(timeout=60)
    for _ in range(3):
        assert becomes(lambda: soon.due < math.inf)
        soon.tick_soon()
        assert ticked.acquire(timeout=60)
    soon.stop()
    soon.join(DEADLINE_S)
    soon.tick_soon()
    assert not soon.is_alive()


def test_a_worker_that_is_over_before_its_first_tick_is_due_costs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops that live for a short time pay for no sample."""
    monkeypatch.setattr(worker_service, "FIRST_AFTER_S", 30.0)
    ticked = threading.Event()
    running = service(lambda now: ticked.set(), [])
    running.start()
    running.stop()
    running.join(10)
    assert not ticked.is_set()


def test_it_ticks_more_rarely_while_there_is_nothing_to_sample() -> None:
    """An idle worker is woken half as often."""
    ticked = threading.Semaphore(0)
    running = service(lambda now: ticked.release(), [], interval_s=0.001)
    running._idle = lambda: True
    running.start()
    assert ticked.acquire(timeout=60)
    assert not ticked.acquire(timeout=0.1)
    running.stop()
    running.join(10)


def test_it_ends_when_it_is_stopped_before_it_runs() -> None:
    """It may be stopped at any time."""
    for _ in range(20):
        running = service(lambda now: None, [])
        running.start()
        running.stop()
        running.join(10)
        assert not running.is_alive()


def test_after_the_join_it_does_not_tick_any_more() -> None:
    """If a tick is under way when it is stopped, `join` waits for that tick."""
    begun, go_on = threading.Event(), threading.Event()
    ended: list[bool] = []

    def tick(now: float) -> None:
        begun.set()
        go_on.wait(DEADLINE_S)
        ended.append(True)

    running = service(tick, [], interval_s=0.001)
    running.start()
    assert begun.wait(DEADLINE_S)
    running.stop()
    alive = running.is_alive()
    running.join(0.001)
    waited_in_vain = running.is_alive()
    go_on.set()
    running.join(DEADLINE_S)
    assert (alive, waited_in_vain, running.is_alive(), ended) == (True, True, False, [True])


def test_a_failing_tick_is_reported_once() -> None:
    """It is not tried again; without a socket to serve, the service is over."""
    faults: list[str] = []

    def broken(now: float) -> None:
        raise OSError("no")

    running = service(broken, faults, interval_s=0.001)
    running.start()
    assert becomes(lambda: not running.is_alive())
    assert faults == ["sampling: no"]


def test_a_worker_whose_tick_fails_is_switched_off_alone() -> None:
    """The other workers' ticks go on, on the same thread."""
    ticked = threading.Semaphore(0)
    faults: list[str] = []

    def broken(now: float) -> None:
        raise OSError("no")

    good, bad = service(lambda now: ticked.release(), faults, interval_s=0.001), service(broken, faults)
    bad.start()
    good.start()
    assert becomes(lambda: not bad.is_alive())
    goes_on(good, ticked)
    assert faults == ["sampling: no"]


def test_a_fault_that_cannot_be_reported_is_that_worker_s_all_the_same() -> None:
    """A filter of the host's log that raises is such a case."""
    ticked = threading.Semaphore(0)

    def broken(now: float) -> None:
        raise OSError("no")

    def untold(probe: str, error: Exception) -> None:
        raise ZeroDivisionError

    good, bad = service(lambda now: ticked.release(), [], interval_s=0.001), service(broken, [])
    bad._on_fault = untold
    bad.start()
    good.start()
    assert becomes(lambda: not bad.is_alive())
    goes_on(good, ticked)


def test_a_socket_that_cannot_be_served_is_that_worker_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other workers' sockets and ticks go on."""
    ticked = threading.Semaphore(0)
    faults: list[str] = []
    ticks, serves = service(lambda now: ticked.release(), [], interval_s=0.001), service(lambda now: None, faults)
    listener = serves.listener = socket.socket(socket.AF_UNIX)
    serves._served.clear()
    monkeypatch.setattr(serves, "serve", lambda loop: 1 / 0)
    ticks.start()
    serves.start()
    assert becomes(lambda: not serves.is_alive())
    goes_on(ticks, ticked)
    assert (faults, listener.fileno()) == (["service: division by zero"], -1)


def test_a_worker_may_be_closed_by_its_own_tick() -> None:
    """A handler of a record that the tick logs may close it."""
    faults: list[str] = []

    def tick(now: float) -> None:
        running.stop()
        running.join(DEADLINE_S)

    running = service(tick, faults, interval_s=0.001)
    running.start()
    assert becomes(lambda: not running.is_alive())
    assert faults == []


def test_it_is_a_daemon_thread() -> None:
    """It never prevents the end of a worker's process."""
    running = service(lambda now: None, [])
    running.start()
    daemons = [thread.daemon for thread in threading.enumerate() if thread.name == SERVICE_THREAD.name]
    running.stop()
    assert daemons == [True]


def test_without_a_socket_it_has_no_event_loop_and_no_file(on_timed_loops: Backend) -> None:
    """A suite that counts file descriptors sees only those of the loop's and the watchdog's thread usage."""
    assert ours_end()

    async def main() -> tuple[int, Any]:
        before = len(os.listdir("/dev/fd"))
        async with Introspector(socket_path=False, black_box=False, stall_log=None, stacks=False):
            return len(os.listdir("/dev/fd")) - before, SERVICE_THREAD._loop

    files, loop = on_timed_loops(main())
    assert files <= 1
    assert loop is None


def test_two_introspectors_share_the_threads_and_later_ones_find_them(on_timed_loops: Backend) -> None:
    """The process has one of each kind; they end by themselves once the last introspector has closed."""
    assert ours_end()

    def idents() -> list[int | None]:
        return sorted(thread.ident or 0 for thread in threading.enumerate() if thread.name in ours())

    async def main() -> list[list[int | None]]:
        seen = []
        for _ in range(3):
            async with Introspector(socket_path=False), Introspector(socket_path=False):
                seen.append(idents())
        return seen

    first, *others = on_timed_loops(main())
    assert len(first) == 2
    assert others == [first, first]
    assert ours_end()


def test_a_fault_of_the_thread_itself_is_reported_to_each_and_the_next_one_works(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that starts afterwards has a thread again."""
    caplog.set_level(logging.CRITICAL)
    faults: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(SERVICE_THREAD, "_tick", lambda: 1 / 0)
        broken = service(lambda now: None, faults)
        broken.start()
        assert becomes(lambda: not broken.is_alive())
    assert faults == ["service: division by zero"]
    ticked = threading.Event()
    good = service(lambda now: ticked.set(), faults)
    good.start()
    assert ticked.wait(DEADLINE_S)
    good.stop()
    good.join(DEADLINE_S)
