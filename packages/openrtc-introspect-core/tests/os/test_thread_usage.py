from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrtc_introspect_core._base.clock import perf_counter
from openrtc_introspect_core._os.cgroup_throttling import Quota, Throttling
from openrtc_introspect_core._os.thread_usage import HostPressure, ThreadUsage


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
    first, second = own().read().run_delay_s, own().read().run_delay_s
    assert first is not None
    assert second is not None
    assert second >= first >= 0


@pytest.fixture
def waiting() -> Iterator[threading.Thread]:
    """A thread that waits for something."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    yield thread
    end.set()
    thread.join()


@pytest.mark.skipif(sys.platform != "linux", reason="schedstat is Linux's")
def test_a_wait_for_a_processor_counts_while_it_lasts(
    waiting: threading.Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first reading that finds the thread ready, as long as it uses no processor time."""
    now, ready, ran = [100.0], [False], [1.0]
    usage = ThreadUsage(lambda: now[0], waiting.ident or 0, waiting.native_id or 0)
    monkeypatch.setattr(usage, "_ready", lambda: ready[0])
    monkeypatch.setattr(usage, "_cpu", lambda: ran[0])
    monkeypatch.setattr(usage, "_run_delay", lambda: 5.0)

    def after(seconds: float, *, is_ready: bool = True, runs_s: float = 0.0) -> float | None:
        now[0] += seconds
        ready[0] = is_ready
        ran[0] += runs_s
        return usage.read_held().run_delay_s

    assert after(0.25, is_ready=False) == 5.0
    assert [after(0.25), after(0.25), after(0.5)] == [5.0, 5.25, 5.75]
    assert [after(0.25, runs_s=0.125), after(0.25)] == [5.0, 5.25]
    assert [after(0.25, is_ready=False), after(0.25)] == [5.0, 5.0]
    assert usage.read().run_delay_s == 5.0


@pytest.mark.skipif(sys.platform != "linux", reason="the state of a thread is Linux's")
def test_a_thread_that_waits_for_something_is_not_ready(waiting: threading.Thread) -> None:
    """The one that runs is."""
    usage = ThreadUsage(perf_counter, waiting.ident or 0, waiting.native_id or 0)
    deadline = time.monotonic() + 60.0
    while usage._ready():  # it has just begun
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert own()._ready()


def test_what_is_not_told_is_none() -> None:
    """A thread that is gone has no usage."""
    usage = ThreadUsage(perf_counter, threading.get_ident(), 2**30)
    assert usage.read().run_delay_s is None
    usage = own()
    usage.close()
    usage.close()
    assert usage.read().run_delay_s is None


def test_pressure_is_told_since_the_mark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Throttling by the quotas that apply, and the host's pressure; an empty text if neither rose."""
    group, pressure = tmp_path / "cpu.stat", tmp_path / "cpu"
    group.write_text("nr_periods 5\nthrottled_usec 1000\n")
    pressure.write_text("some avg10=0.00 avg60=0.00 avg300=0.00 total=5000\nfull total=0\n")
    throttling = Throttling((Quota(0.5, str(tmp_path / "cpu.max"), str(group)),))
    monkeypatch.setattr(HostPressure, "_PRESSURE", str(pressure))
    host = HostPressure()
    assert (host.describe(), host.marked) == ("", False)
    host.mark(throttling)
    assert (host.describe(), host.marked) == ("", True)
    group.write_text("nr_periods 6\nthrottled_usec 121000\n")
    pressure.write_text("some avg10=9.00 avg60=0.00 avg300=0.00 total=85000\nfull total=0\n")
    assert host.describe() == "cgroup throttled 120 ms, cpu pressure 80 ms"
    host.mark(throttling)
    assert host.describe() == ""
