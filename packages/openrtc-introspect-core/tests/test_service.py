from __future__ import annotations

import threading
from typing import Any

from openrtc_introspect_core._clock import perf_counter
from openrtc_introspect_core._service import Service
from openrtc_introspect_core.wire import Hello


def service(tick: Any, faults: list[str], interval_s: float = 60.0) -> Service:
    source: Any = None
    return Service(
        listener=None,
        source=source,
        hello=Hello(protocol="1.0", worker="w", pid=1),
        clock=perf_counter,
        interval_s=interval_s,
        idle=lambda: False,
        tick=tick,
        on_fault=lambda probe, error: faults.append(f"{probe}: {error}"),
    )


def test_it_ticks_at_once_and_then_each_interval() -> None:
    """The first sample does not wait for the first interval."""
    ticked = threading.Semaphore(0)
    running = service(lambda now: ticked.release(), [], interval_s=0.01)
    running.start()
    for _ in range(3):
        assert ticked.acquire(timeout=10)
    running.stop()
    running.join(10)
    assert not running.is_alive()
    assert running.cpu_s > 0


def test_it_ticks_more_rarely_while_there_is_nothing_to_sample() -> None:
    """An idle worker is woken half as often."""
    ticked = threading.Semaphore(0)
    running = service(lambda now: ticked.release(), [], interval_s=0.001)
    running._idle = lambda: True
    running.start()
    assert ticked.acquire(timeout=10)
    assert not ticked.acquire(timeout=0.1)
    running.stop()
    running.join(10)


def test_it_ends_when_it_is_stopped_before_it_runs() -> None:
    """However early that is."""
    for _ in range(20):
        running = service(lambda now: None, [])
        running.start()
        running.stop()
        running.join(10)
        assert not running.is_alive()


def test_a_failing_tick_is_told_once() -> None:
    """It is not tried again; with no socket to serve either, the thread ends."""
    faults: list[str] = []

    def broken(now: float) -> None:
        raise OSError("no")

    running = service(broken, faults, interval_s=0.001)
    running.start()
    running.join(10)
    assert not running.is_alive()
    assert faults == ["sampling: no"]


def test_it_is_a_daemon_thread() -> None:
    """It never keeps a worker's process from ending."""
    assert service(lambda now: None, [])._thread.daemon
