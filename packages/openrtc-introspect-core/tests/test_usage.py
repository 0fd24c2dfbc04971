from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from openrtc_introspect_core._clock import perf_counter
from openrtc_introspect_core._usage import HostPressure, ThreadUsage


def own() -> ThreadUsage:
    return ThreadUsage(perf_counter, threading.get_ident(), threading.get_native_id())


def test_processor_time_of_a_thread_is_read_from_another() -> None:
    """It grows while the thread computes, and not while it sleeps."""
    usage = own()
    readings = []

    def read() -> None:
        readings.append(usage.read())

    def read_in_a_thread() -> None:
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()

    read_in_a_thread()
    until = time.thread_time() + 0.02
    while time.thread_time() < until:
        pass
    read_in_a_thread()
    before, after = readings[0].cpu_s, readings[1].cpu_s
    if before is None:
        pytest.skip("this platform has no clock of another thread")
    assert after - before >= 0.02


@pytest.mark.skipif(sys.platform != "linux", reason="schedstat is Linux's")
def test_the_time_it_was_not_let_run_is_told_by_the_kernel() -> None:
    """A total that never falls."""
    first, second = own().read().waited_s, own().read().waited_s
    assert first is not None
    assert second is not None
    assert second >= first >= 0


def test_what_is_not_told_is_none() -> None:
    """A thread that is gone has no usage."""
    usage = ThreadUsage(perf_counter, threading.get_ident(), 2**30)
    assert usage.read().waited_s is None
    usage = own()
    usage.close()
    usage.close()
    assert usage.read().waited_s is None


def test_pressure_is_told_since_the_mark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Throttling of either cgroup version and the machine's pressure; nothing where nothing came."""
    stat, pressure = tmp_path / "cpu.stat", tmp_path / "cpu"
    stat.write_text("nr_periods 5\nthrottled_usec 1000\n")
    pressure.write_text("some avg10=0.00 avg60=0.00 avg300=0.00 total=5000\nfull total=0\n")
    files = ((str(stat), b"throttled_usec", 1e6), (str(tmp_path / "none"), b"throttled_time", 1e9))
    monkeypatch.setattr(HostPressure, "_THROTTLED", files)
    monkeypatch.setattr(HostPressure, "_PRESSURE", str(pressure))
    host = HostPressure()
    assert (host.told(), host.marked) == ("", False)
    host.mark()
    assert (host.told(), host.marked) == ("", True)
    stat.write_text("nr_periods 6\nthrottled_usec 121000\n")
    pressure.write_text("some avg10=9.00 avg60=0.00 avg300=0.00 total=85000\nfull total=0\n")
    assert host.told() == "cgroup throttled 120 ms, cpu pressure 80 ms"
    host.mark()
    assert host.told() == ""
