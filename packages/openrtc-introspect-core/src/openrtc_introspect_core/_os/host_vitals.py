"""The load of the host and of this process, read with psutil, and the limits of its control group."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable

import psutil

from .._base.units import MIB
from ..wire._messages import Cgroup, Host
from .cgroup import CgroupReader
from .cgroup_paths import CgroupPaths
from .cgroup_throttling import Throttling

EVERY_S = 2.0
"""Memory and the control group are read this often, in seconds: to open their files takes longer than all the rest."""
IDLE_EVERY_S = 10.0
"""The same while no session lives."""
CGROUP_UNREAD = "the limits of the control group are not read any more: its files are not as expected"


@functools.lru_cache(maxsize=1)
def own_process(pid: int) -> psutil.Process:
    """Return the process of this id, which is the current one.

    The cache misses in a forked child.
    """
    return psutil.Process(pid)


class HostVitals:
    """The figures of the host, and of the process's control group.

    Rates are sampled once a second, expensive gauges less often or on demand. on_fault: is called once if the control
    group cannot be read for another reason than a want of file descriptors; it is read no more then.
    """

    def __init__(
        self,
        process: psutil.Process,
        on_fault: Callable[[Exception], None],
        paths: CgroupPaths | None = None,
    ) -> None:
        self._process = process
        self._on_fault = on_fault
        self._cores = psutil.cpu_count() or 1
        self._host_times: tuple[float, float] | None = None
        self._process_times: tuple[float, float] | None = None
        self._cpu_pct: float | None = None
        self._process_pct: float | None = None
        self._accounted: float | None = None
        self._others_pct: float | None = None
        self._threads = threading.active_count()
        self._memory: tuple[float, float] | None = None
        self._read_at = float("-inf")
        self._groups: CgroupReader | None = CgroupReader(paths or CgroupPaths(), self._cores)
        self.cgroup: Cgroup | None = None
        """The control group at the last sample. None: not known."""
        self.trouble: str | None = None
        """Why the latest sample failed, in one line. None: it did not."""

    def sample(self, now: float, accounted: float | None = None, *, idle: bool = False) -> None:
        """Update the rates, which cover the time since the sample before.

        now: clock reading. accounted: CPU seconds so far of the loops' threads and of introspection's own; None: they
        cannot be read, and the rate of other threads is unknown. idle: no session lives.
        """
        try:
            busy, total = _cpu_times()
            if now >= self._read_at + (IDLE_EVERY_S if idle else EVERY_S) - 0.05:
                memory = psutil.virtual_memory()
                self._memory = memory.total / MIB, memory.available / MIB
                self._sample_cgroup(now)
                self._read_at = now
        except OSError as error:  # for instance no file descriptor is left: the next sample may succeed
            self.trouble = f"the host's figures cannot be read now, they are the last ones: {error.strerror or error}"
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
            used_pct = 100.0 * (busy - self._host_times[0]) / (total - self._host_times[1])
            self._cpu_pct = min(100.0, max(0.0, used_pct))  # sums are rounded, and the kernel's iowait can fall
        if self._process_times is not None and now > self._process_times[1]:
            self._process_pct = 100.0 * (spent - self._process_times[0]) / (now - self._process_times[1])
        self._host_times = busy, total
        self._process_times = spent, now

    @property
    def throttling(self) -> Throttling:
        """The CPU quotas that apply to the process; none before the first sample."""
        return self._groups.throttling if self._groups is not None else Throttling()

    def _sample_cgroup(self, now: float) -> None:
        """Read the control group. Raise OSError if no file can be opened now."""
        if self._groups is None:
            return
        try:
            self.cgroup = self._groups.read(now)
        except OSError:
            raise
        except Exception as error:
            self._groups = self.cgroup = None
            self._on_fault(error)

    def now(self) -> Host:
        """Return the latest rates and the present gauges."""
        load = None
        with contextlib.suppress(OSError, AttributeError):
            load = os.getloadavg()[0]
        with contextlib.suppress(OSError):  # as above: the last value stays
            self._threads = self._process.num_threads()
        return Host(
            cpu_pct=self._cpu_pct,
            cores=self._cores,
            load_1m=load,
            process_cpu_pct=self._process_pct,
            other_threads_pct=self._others_pct,
            threads=self._threads,
            memory_mb=self._memory[0] if self._memory is not None else None,
            memory_available_mb=self._memory[1] if self._memory is not None else None,
        )


def _cpu_times() -> tuple[float, float]:
    """Return (busy, total) seconds of all cores since boot.

    On Linux user time includes guest time.
    """
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - idle, total
