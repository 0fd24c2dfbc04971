"""Work in short slices, so that the loops get the GIL in between, and until a deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import TypeVar

from .._base.gil import yield_gil

Item = TypeVar("Item")

SLICE_S = 0.001
"""Seconds of work without a pause: what a loop that wakes meanwhile waits at most."""
DEADLINE_S = 0.65
"""Seconds after which an answer is given of what was looked at so far."""

_PER_READING = 16
"""Small pieces of work between two readings of the clock."""


def _nothing() -> None:
    pass


class Slices:
    """The slices of one piece of work on the calling thread.

    beside: called after each slice.
    """

    def __init__(self, deadline_s: float = DEADLINE_S, beside: Callable[[], object] = _nothing) -> None:
        self._beside = beside
        self.began = self._since = perf_counter()
        self._deadline = self.began + deadline_s
        self._count = 0

    def go_on(self) -> bool:
        """Take note of a small piece of work, of a few microseconds; give the GIL away if it is time.

        Return False after the deadline.
        """
        self._count += 1
        if self._count % _PER_READING:
            return True
        now = perf_counter()
        if now - self._since >= SLICE_S:
            yield_gil()
            self._beside()
            now = self._since = perf_counter()
        return now < self._deadline

    def extend(self, seconds: float) -> None:
        """Set the deadline so much later."""
        self._deadline += seconds

    def through(self, pieces: Iterable[Item]) -> Iterator[Item]:
        """Yield small pieces of work that must all be done, in slices."""
        for piece in pieces:
            self.go_on()
            yield piece

    def took_s(self) -> float:
        """Return the seconds since the beginning."""
        return perf_counter() - self.began
