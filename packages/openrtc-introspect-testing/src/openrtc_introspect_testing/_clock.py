"""A clock that only moves when it is told to."""

from __future__ import annotations

import math


class FakeClock:
    """Seconds, as `Introspector(clock=...)` takes them. Call it to read it."""

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Moves on by `seconds`, 0 or more. Raises ValueError for less: a clock never goes back."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds must be 0 or more and finite, got {seconds!r}: a clock never goes back")
        self._now += seconds

    def advance_to(self, reading: float) -> None:
        """Moves on until it reads exactly `reading`. Does nothing where it reads more already."""
        self._now = max(self._now, reading)
