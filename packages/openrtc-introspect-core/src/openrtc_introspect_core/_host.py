"""The machine's and the process's vitals for the header, by psutil."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time

import psutil

from .wire._messages import Host


@functools.lru_cache(maxsize=1)
def own_process(pid: int) -> psutil.Process:
    """The process of this id, which is ours: looked up once, and again in a forked child."""
    return psutil.Process(pid)


class HostVitals:
    """Rates are sampled once a second; what costs more to read is read only when someone asks."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._cores = psutil.cpu_count() or 1
        self._host_times: tuple[float, float] | None = None
        self._process_times: tuple[float, float] | None = None
        self._cpu_pct: float | None = None
        self._process_pct: float | None = None
        self._accounted: float | None = None
        self._others_pct: float | None = None
        self._threads = threading.active_count()
        self.trouble: str | None = None
        """Why there is no newer sample; None while there is."""

    def sample(self, now: float, accounted: float | None = None) -> None:
        """Sets the rates since the sample before. `accounted`: CPU seconds of the loop's and our own threads."""
        try:
            busy, total = _cpu_times()
        except OSError as error:  # no file descriptor left, for one: the next time may be better
            self.trouble = f"the host cannot be looked at now, its figures are the last ones: {error.strerror or error}"
            return
        self.trouble = None
        spent = time.process_time()
        if self._process_times is not None and now > self._process_times[1] and self._accounted is not None:
            others = spent - self._process_times[0] - ((accounted or 0.0) - self._accounted)
            self._others_pct = (
                max(0.0, 100.0 * others / (now - self._process_times[1])) if accounted is not None else None
            )
        self._accounted = accounted
        if self._host_times is not None and total > self._host_times[1]:
            self._cpu_pct = 100.0 * (busy - self._host_times[0]) / (total - self._host_times[1])
        if self._process_times is not None and now > self._process_times[1]:
            self._process_pct = 100.0 * (spent - self._process_times[0]) / (now - self._process_times[1])
        self._host_times = busy, total
        self._process_times = spent, now

    def now(self) -> Host:
        """The latest rates, and the gauges of this moment."""
        load = None
        with contextlib.suppress(OSError, AttributeError):
            load = os.getloadavg()[0]
        with contextlib.suppress(OSError):  # as above: then it is what it was
            self._threads = self._process.num_threads()
        return Host(
            cpu_pct=self._cpu_pct,
            cores=self._cores,
            load_1m=load,
            process_cpu_pct=self._process_pct,
            other_threads_pct=self._others_pct,
            threads=self._threads,
        )


def _cpu_times() -> tuple[float, float]:
    """(busy, total) seconds of all cores since boot. Guest time is part of user time on Linux already."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - idle, total
