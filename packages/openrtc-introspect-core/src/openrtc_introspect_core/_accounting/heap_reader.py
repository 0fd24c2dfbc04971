"""Readings of the bytes in use at the steps of one loop, with what they cost.

If the meter in C is installed, it draws and reads, and does the same.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from .._base.clock import Clock
from .._native import native

BUDGET = 0.02
"""The share of each loop's time that readings may take."""

WINDOW_S = 5.0
"""Seconds over which the cost of readings is averaged: one busy second of a quiet worker does not decide."""

CHEAP_S = 50e-6
"""Seconds. Of readings that take less, one in `TIMED_ONE_IN` is timed: timing would cost a good part of a reading."""
TIMED_ONE_IN = 7


class SampledHeap(Protocol):
    """The heap, as far as its readers know it. See `Heap`."""

    clock: Clock
    on: bool
    sampling_period: int
    exact_since: float

    @property
    def exact(self) -> bool: ...

    def reading(self) -> Callable[[], int]: ...

    def adjust_sampling(self, now: float) -> None: ...


class ReaderInPython:
    """The fields of a reader, and what it does at each step."""

    __slots__ = (
        "clock", "due", "given_back", "heap", "last", "random", "raw", "sampled", "spent_s", "times", "untimed",
        "weight",
    )  # fmt: skip

    raw: Callable[[], int]
    """Reads, on any thread, and keeps no account of the reading."""
    last: int
    """Bytes in use at the latest reading."""
    given_back: int
    """Bytes by which readings have fallen, in all."""
    sampled: bool
    """Whether the step under way, or else the latest one, is read."""
    weight: int
    """How many steps this step counts for."""
    due: int
    """Readings that there would have been so far if every step had been read."""
    times: deque[float]
    """Seconds that the latest timed readings took."""
    spent_s: float
    """Seconds spent on readings since the sampling was adjusted."""
    untimed: int
    """Readings to make until the next one is timed."""
    random: Callable[[], float]
    """A generator of its own: the host's may be seeded."""

    def _use(self, heap: SampledHeap, clock: Clock) -> None:
        """Read this heap, and time readings with this clock."""
        self.heap = heap
        self.clock = clock

    def draw(self) -> bool:
        """Return whether the step that begins now is read: each with the same chance."""
        period = self.weight = self.heap.sampling_period
        self.sampled = self.heap.on and (period == 1 or self.random() * period < 1.0)
        if not self.sampled:
            self.due += 2
        return self.sampled

    def __call__(self) -> int:
        """Read the bytes in use, and keep account of the reading."""
        self.due += 1
        if self.untimed:
            self.untimed -= 1
            now = self.raw()
        else:
            now = self._timed()
        if now < self.last:
            self.given_back += self.last - now
        self.last = now
        return now

    def _timed(self) -> int:
        clock = self.clock
        began = clock()
        in_use = self.raw()
        took = (ended := clock()) - began
        self.times.append(took)
        self.untimed = TIMED_ONE_IN - 1 if took < CHEAP_S else 0
        self.spent_s += took * (1 + self.untimed)
        if self.spent_s > BUDGET * WINDOW_S:
            self.heap.adjust_sampling(ended)  # at once: the loop is held meanwhile
        return in_use


ReaderFields = ReaderInPython
if not TYPE_CHECKING and native is not None:
    ReaderFields = native.HeapReaderFields


class HeapReader(ReaderFields):
    """The reader of one loop's thread, with account of bytes given back and of cost."""

    __slots__ = ("_heap", "_marks")

    def __init__(self, heap: SampledHeap) -> None:
        self._heap = heap
        self._use(heap, heap.clock)
        self.raw = heap.reading()
        self.last = self.raw()
        self.given_back = 0
        self.sampled = True
        self.weight = 1
        self.due = 0
        self.times = deque(maxlen=32)
        self.spent_s = 0.0
        self.untimed = 0
        self.random = random.Random().random
        self._marks: deque[tuple[float, int]] = deque([(heap.clock(), 0)])
        """(clock reading, `due`) of the latest adjustments."""

    @property
    def exact(self) -> bool:
        """Return whether every step is read, the one under way included."""
        return self.sampled and self.weight == 1 and self._heap.exact

    @property
    def exact_since(self) -> float:
        """Return the time since which every step is read; infinite if not every step is."""
        return self._heap.exact_since

    def share(self, now: float, took: float) -> float:
        """Return the share of recent loop time that reading every step would have taken.

        took: seconds that a reading takes. The share is that of a second at least: before its first second, a loop is
        taken to have been quiet.
        """
        self.spent_s = 0.0
        marks = self._marks
        marks.append((now, self.due))
        while len(marks) > 2 and now - marks[1][0] >= WINDOW_S:
            marks.popleft()
        since, due = marks[0]
        return took * (self.due - due) / max(1.0, now - since)
