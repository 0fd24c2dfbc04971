"""The clock that every window, step and block is timed with, as one value that tests replace."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds from an arbitrary start, never going back."""

perf_counter: Clock = time.perf_counter


class WallTime:
    """Turns readings of a Clock into seconds since the Unix epoch.

    The offset is read once, so the times of one worker keep their order and distances when the
    system clock is set; they are as right as the system clock was at the start.
    """

    __slots__ = ("_offset", "clock")

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._offset = time.time() - clock()

    def at(self, reading: float) -> float:
        return reading + self._offset

    def now(self) -> float:
        return self.clock() + self._offset
