"""The sampling of steps, if timing all of them would be too expensive.

One step in `period` is timed, and counts for as many. Each step is drawn with the same chance (Bernoulli
sampling), so that no rhythm of the host can distort the result: sums are estimates without bias (Horvitz and
Thompson), and their variance is (period - 1) times the sum of the squares of the steps' lengths.

A step that is not timed reads no clock, unless scopes open or close in it: then its time from the first of them to its
end is known, by parts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import log, log1p
from typing import NamedTuple

from .._base.gil import copied
from .account import Account

MAX_PARTS = 1024
"""The parts of steps that are not timed, as many as are kept."""


class UnsampledPart(NamedTuple):
    """A part of a step that was not timed, between two changes of the session that is bound. Clock readings."""

    holder: Account
    """The account of the session that was bound."""
    task: str | None
    """The task's name."""
    start: float | None
    """None: the step's beginning, which is not known."""
    end: float


class StepSampling:
    """The sampling of one ledger: its period, and the counts so far."""

    __slots__ = ("_new_random", "_open", "_random", "_scale", "extrapolated", "parts", "period", "sampled", "unsampled")

    def __init__(self) -> None:
        import random  # not loaded for programs that only import the package; nor later, on a thread of ours

        self._new_random = random.Random
        self.period = 1
        """One step in so many is timed."""
        self.sampled = 0
        """Steps that were timed in place of others."""
        self.extrapolated = 0
        """Further steps that the sampled ones have been counted for."""
        self.unsampled = 0
        """Steps that were not timed."""
        self.parts: deque[UnsampledPart] = deque(maxlen=MAX_PARTS)
        """Parts of recent steps that were not timed, oldest first."""
        self._open: UnsampledPart | None = None
        """The part under way, which has no end so far."""
        self._scale = 0.0
        self._random: Callable[[], float] | None = None
        """A generator of its own, since the host's may be seeded. None: nothing was drawn so far."""

    def set_period(self, period: int) -> None:
        """Time one step in `period` from now on, 1 and up. From any thread."""
        self._scale = 1.0 / log1p(-1.0 / period) if period > 1 else 0.0
        self.period = period

    def draw(self, weight: int) -> int:
        """Count a step that is timed for `weight` steps. Return how many follow untimed.

        Each step is timed with the same chance, so this number is geometrically distributed.
        """
        self.sampled += 1
        self.extrapolated += weight - 1
        if self._random is None:  # made here, because it takes a while and most loops never sample
            self._random = self._new_random().random
        following = int(log(1.0 - self._random()) * self._scale)
        self.unsampled += following
        return following

    # --- parts of steps that are not timed -------------------------------------------------------

    def switch(self, before: Account, after: Account, task: str | None, now: float) -> None:
        """In the middle of such a step, begin a part of `after`.

        before: whose part ends, if it is the step's first.
        """
        if self._open is None:
            self.parts.append(UnsampledPart(before, task, None, now))
        else:
            self.parts.append(self._open._replace(end=now))
        self._open = UnsampledPart(after, task, now, now)

    def end_parts(self, now: float) -> None:
        """End the part under way, with its step."""
        if self._open is not None:
            self.parts.append(self._open._replace(end=now))
            self._open = None

    def parts_until(self, now: float) -> list[UnsampledPart]:
        """Return the recent parts, the one under way included. From any thread."""
        under_way = self._open
        return [*copied(self.parts), *([under_way._replace(end=now)] if under_way is not None else [])]
