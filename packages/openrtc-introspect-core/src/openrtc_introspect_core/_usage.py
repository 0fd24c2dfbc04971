"""What the loop's thread got of the machine: processor time, and time it waited for a processor.

Read around overruns and once a watchdog tick, never per step. Each reading may be None: not every
platform tells.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple


class Usage(NamedTuple):
    """Totals of one thread at one moment."""

    when: float
    cpu_s: float | None
    """Seconds it ran."""
    waited_s: float | None
    """Seconds it was ready to run and was not let: Linux, where the kernel keeps schedstat."""
    process_s: float | None = None
    """Seconds all threads of the process ran."""


class ThreadUsage:
    """Reads the usage of one thread of this process, from any other."""

    def __init__(self, clock: Callable[[], float], ident: int, native_id: int) -> None:
        self._clock = clock
        self._schedstat: int | None = None
        with suppress(OSError):  # kept open: opening it costs ten times what reading it does
            self._schedstat = os.open(f"/proc/self/task/{native_id}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        self._cpu_clock: int | None = None
        with suppress(AttributeError, OSError):  # not on macOS
            self._cpu_clock = time.pthread_getcpuclockid(ident)

    def read(self) -> Usage:
        cpu = None
        if self._cpu_clock is not None:
            with suppress(OSError):
                cpu = time.clock_gettime(self._cpu_clock)
        return Usage(self._clock(), cpu, self._waited(), time.process_time())

    def waited_s(self) -> float:
        """Seconds it was ready to run and was not let so far; 0 where that is not told."""
        return self._waited() or 0.0

    def _waited(self) -> float | None:
        schedstat = self._schedstat
        if schedstat is not None:
            with suppress(OSError, ValueError, IndexError):
                return int(os.pread(schedstat, 128, 0).split()[1]) / 1e9
        return None

    def close(self) -> None:
        """Reads no more waiting times."""
        schedstat, self._schedstat = self._schedstat, None
        if schedstat is not None:
            os.close(schedstat)


class HostPressure:
    """How long the process's cgroup was throttled, and tasks of the machine waited for a processor.

    Totals of the kernel, told as what has come since the last `mark`. Files that are not there tell nothing.
    """

    _THROTTLED = (
        ("/sys/fs/cgroup/cpu.stat", b"throttled_usec", 1e6),
        ("/sys/fs/cgroup/cpu/cpu.stat", b"throttled_time", 1e9),
    )
    _PRESSURE = "/proc/pressure/cpu"

    def __init__(self) -> None:
        self._marked: tuple[float, float] | None = None

    @property
    def marked(self) -> bool:
        """Whether there was a mark: before the first one nothing is told."""
        return self._marked is not None

    def mark(self) -> None:
        """Called about once a second."""
        self._marked = self._totals()

    def told(self) -> str:
        """What has come since the mark, in words; nothing of what did not."""
        if self._marked is None:
            return ""
        throttled, pressure = (total - before for total, before in zip(self._totals(), self._marked, strict=True))
        parts = [("cgroup throttled", throttled), ("cpu pressure", pressure)]
        return ", ".join(f"{what} {1000 * seconds:.0f} ms" for what, seconds in parts if seconds >= 0.001)

    def _totals(self) -> tuple[float, float]:
        throttled = max(_field(file, key) / unit for file, key, unit in self._THROTTLED)
        pressure = 0.0
        with suppress(OSError, ValueError), open(self._PRESSURE, "rb") as file:
            pressure = int(file.readline().rpartition(b"total=")[2]) / 1e6
        return throttled, pressure


def _field(file: str, key: bytes) -> int:
    """The number behind `key` in a file of `key value` lines; 0 where there is none."""
    with suppress(OSError, ValueError), open(file, "rb") as lines:
        for line in lines:
            name, _, value = line.partition(b" ")
            if name == key:
                return int(value)
    return 0
