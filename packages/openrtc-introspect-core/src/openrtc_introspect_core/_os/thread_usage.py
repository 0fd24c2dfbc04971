"""Processor time and run delay of a thread, and the host's CPU pressure.

They are read once a watchdog tick and at the end of a block, never for each step. A reading is None on a platform
that does not have it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from .._native import native
from .cgroup_throttling import Throttling


class Usage(NamedTuple):
    """Totals of a thread, and of its process, at one moment."""

    when: float
    """Clock reading."""
    cpu_s: float | None
    """Seconds that the thread ran."""
    run_delay_s: float | None
    """Seconds that the thread was ready to run and did not. Only on Linux, from /proc/self/task/…/schedstat. Of a wait
    under way, which the kernel counts at its end, what `read_held` has seen."""
    process_s: float | None = None
    """Seconds that all threads of the process ran."""


class ThreadUsage:
    """A reader of the usage of one thread of this process, for use on any thread.

    ident, native_id: the thread's, as `threading` has them.
    """

    def __init__(self, clock: Callable[[], float], ident: int, native_id: int) -> None:
        self._clock = clock
        self.schedstat: int | None = None
        """The descriptor of the file with the thread's run delay. None: there is none."""
        with suppress(OSError):  # kept open: opening costs ten times as much as reading
            self.schedstat = os.open(f"/proc/self/task/{native_id}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        self.native_id = native_id
        self._stopped: tuple[float | None, float | None] = (None, None)
        """The processor time at the latest `read_held`, and the clock reading since which the thread has been ready and
        has used none. None: it is not known, or is not so."""
        self.cpu_clock: int | None = None
        """The id of the clock of the thread's processor time. None: there is none."""
        with suppress(AttributeError, OSError):  # not on macOS
            self.cpu_clock = time.pthread_getcpuclockid(ident)

    def read(self) -> Usage:
        """Return the totals of this moment."""
        cpu = self._cpu()
        return Usage(self._clock(), cpu, self._run_delay(), time.process_time())

    def read_held(self) -> Usage:
        """Return the totals while something holds the loop: with the run delay under way, as far as seen."""
        usage = self.read()
        if usage.run_delay_s is None:
            return usage
        return usage._replace(run_delay_s=usage.run_delay_s + self._wait_under_way(usage.cpu_s, usage.when))

    def read_clocks(self) -> Usage:
        """Return the totals without the run delay: reading the file with it gives the GIL away."""
        cpu = self._cpu()
        return Usage(self._clock(), cpu, None, time.process_time())

    def _cpu(self) -> float | None:
        if self.cpu_clock is not None:
            with suppress(OSError):
                return time.clock_gettime(self.cpu_clock)
        return None

    def _wait_under_way(self, cpu: float | None, now: float) -> float:
        """Return for how many seconds the thread has been seen waiting for a processor: a lower bound."""
        before, since = self._stopped
        if cpu is None or not self._ready() or self._cpu() != cpu:  # it sleeps, or runs
            since = None
        elif since is None or cpu != before:
            since = now
        self._stopped = cpu, since
        return now - since if since is not None else 0.0

    def _ready(self) -> bool:
        """Return whether the thread would run, if it had a processor."""
        with suppress(OSError), open(f"/proc/self/task/{self.native_id}/stat", "rb", buffering=0) as file:
            return file.read(128).rpartition(b") ")[2][:1] == b"R"
        return False

    def run_delay_s(self) -> float:
        """Return the thread's run delay so far, in seconds.

        Returns 0 if the platform does not report it.
        """
        return self._run_delay() or 0.0

    def _run_delay(self) -> float | None:
        schedstat = self.schedstat
        if schedstat is not None:
            if native is not None:
                delay: float | None = native.run_delay(schedstat)
                return delay
            with suppress(OSError, ValueError, IndexError):
                return int(os.pread(schedstat, 128, 0).split()[1]) / 1e9
        return None

    def close(self) -> None:
        """Close the file; later readings have no run delay."""
        schedstat, self.schedstat = self.schedstat, None
        if schedstat is not None:
            with suppress(OSError):  # the host may have closed all files
                os.close(schedstat)


class HostPressure:
    """The throttling of the process's cgroup, and the host's CPU pressure.

    Pressure is the time in which tasks of the host waited for a processor. Throttling is the time in which the cgroup
    did not run, all processors added up. Both are totals of the kernel, of which the increase since the last `mark`
    counts. A missing file counts as 0.
    """

    _PRESSURE = "/proc/pressure/cpu"

    def __init__(self) -> None:
        self._marked: tuple[float, float] | None = None
        self._throttling = Throttling()

    @property
    def marked(self) -> bool:
        """Whether `mark` was called; before that there is nothing to describe."""
        return self._marked is not None

    def mark(self, throttling: Throttling) -> None:
        """Keep the present totals, about once a second. throttling: the quotas that apply to the process."""
        self._throttling = throttling
        self._marked = self._totals()

    def describe(self) -> str:
        """Describe the increases since the mark, as in "cgroup throttled 120 ms".

        Returns "" if there are none.
        """
        if self._marked is None:
            return ""
        throttled, pressure = (total - before for total, before in zip(self._totals(), self._marked, strict=True))
        parts = [("cgroup throttled", throttled), ("cpu pressure", pressure)]
        return ", ".join(f"{what} {1000 * seconds:.0f} ms" for what, seconds in parts if seconds >= 0.001)

    def _totals(self) -> tuple[float, float]:
        throttled = pressure = 0.0
        with suppress(OSError):
            throttled = self._throttling.total_s() or 0.0
        with suppress(OSError, ValueError), open(self._PRESSURE, "rb") as file:
            pressure = int(file.readline().rpartition(b"total=")[2]) / 1e6
        return throttled, pressure
