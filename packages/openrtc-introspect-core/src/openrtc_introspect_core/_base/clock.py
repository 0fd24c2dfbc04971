"""The clock of all windows, steps and blocks; tests replace it."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""A function that returns seconds since an arbitrary start, and never goes back."""

perf_counter: Clock = time.perf_counter


class WallTime:
    """A converter from readings of a Clock to seconds since the Unix epoch.

    The offset is read once, so the times of one worker keep their order and distances if the system clock is set
    meanwhile. They are as accurate as the system clock was at the start.
    """

    __slots__ = ("_offset", "clock")

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._offset = time.time() - clock()

    def at(self, reading: float) -> float:
        """Return the Unix time, in seconds, of a reading of the clock."""
        return reading + self._offset

    def now(self) -> float:
        """Return the Unix time of this moment, in seconds."""
        return self.clock() + self._offset
