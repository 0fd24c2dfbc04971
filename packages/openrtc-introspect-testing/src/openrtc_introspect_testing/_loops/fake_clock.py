"""A clock that moves only when a test moves it."""

from __future__ import annotations

import math


class FakeClock:
    """Seconds, as `Introspector(clock=...)` takes them. A call returns the reading."""

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`, 0 or more.

        Raises ValueError for less: a clock never goes back.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds must be 0 or more and finite, got {seconds!r}: a clock never goes back")
        self._now += seconds

    def advance_to(self, reading: float) -> None:
        """Move on until the clock reads exactly `reading`.

        Do nothing if it reads more already.
        """
        self._now = max(self._now, reading)
