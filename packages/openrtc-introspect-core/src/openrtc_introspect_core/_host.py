"""The machine's and the process's vitals for the header, once a second, by psutil."""

from __future__ import annotations

import contextlib
import os

import psutil

from .wire._messages import Host


class HostVitals:
    """Keeps the last sample, and the counters that the next one is the difference to."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._cores = psutil.cpu_count() or 1
        self._host_times: tuple[float, float] | None = None
        self._process_times: tuple[float, float] | None = None
        self.latest = Host(cores=self._cores)

    def sample(self, now: float) -> None:
        busy, total = _cpu_times()
        spent = sum(self._process.cpu_times()[:2])
        cpu_pct = process_pct = None
        if self._host_times is not None and total > self._host_times[1]:
            cpu_pct = 100.0 * (busy - self._host_times[0]) / (total - self._host_times[1])
        if self._process_times is not None and now > self._process_times[1]:
            process_pct = 100.0 * (spent - self._process_times[0]) / (now - self._process_times[1])
        self._host_times = busy, total
        self._process_times = spent, now
        load = None
        with contextlib.suppress(OSError, AttributeError):
            load = os.getloadavg()[0]
        self.latest = Host(
            cpu_pct=cpu_pct,
            cores=self._cores,
            load_1m=load,
            process_cpu_pct=process_pct,
            threads=self._process.num_threads(),
        )


def _cpu_times() -> tuple[float, float]:
    """(busy, total) seconds of all cores since boot. Guest time is part of user time on Linux already."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - idle, total
