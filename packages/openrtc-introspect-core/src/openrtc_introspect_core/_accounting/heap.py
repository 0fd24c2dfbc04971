"""A session's own memory: what its steps have allocated, less what they freed.

The bytes in use are read at the beginning and the end of a step, and the difference is charged to the
holder of the loop in between. See heap_methods.py for the methods of reading.

No method knows who frees: memory that one session took may be given back by another's step, by a callback
or by the garbage collector, and is then credited to the holder of the loop at that time. But the bytes that
were given back in all are known: what a session has left behind, less those bytes, is held for certain.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from math import ceil, log2
from statistics import median

from .._base.clock import Clock
from .._base.gil import copied
from .account import Owner
from .fields import HeapFields
from .heap_reader import BUDGET, HeapReader

LONGEST_READ_S = 0.01
"""Seconds. While a reading takes longer, no step is read: its two readings would hold the loop for half a block."""

CALM_S = 10.0
"""Seconds for which reading more steps must have been within the budget before more steps are read."""

TRY_AGAIN_S = 60.0
"""Seconds between attempts while no step is read."""

_ENOUGH_READINGS = 8
"""Timed readings that make their median worth knowing."""


class Heap(HeapFields, ABC):
    """A method of reading the bytes in use, sampled to stay within its budget.

    One step in so many is read, drawn at random, and what it has allocated counts for as many: what a session
    holds is then an estimate without bias. What the other steps allocate is charged to no session. If reading costs too
    much, fewer steps are read at once; more steps are read after a while in which this was possible, and none while
    a single reading takes too long.
    """

    blind_to: str
    """What the method cannot see, in words."""

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self.clock = clock
        """The clock that readings are timed with."""
        self.on = True
        """Whether steps are read at present."""
        self.sampling_period = 1
        """One step in so many is read, if `on`."""
        self.read_since = float("-inf")
        """The time (clock reading) since which any step may be read."""
        self.exact_since = float("-inf")
        """The time since which every step is read; infinite while not every step is."""
        self._calm_since: float | None = None
        """The time since which reading more steps would be within the budget; None: it would not."""
        self._took = 0.0
        """Seconds that a reading takes, by the latest ones."""
        self._try_at = 0.0
        """The time of the next attempt while no step is read."""
        self._adjusting = threading.Lock()
        self._readers: list[HeapReader] = []
        self._given_back_before = 0
        """Bytes given back on loops that are gone."""

    def reader(self) -> HeapReader:
        """Return a reader for the loop of the calling thread, in use until `retire`."""
        reader = HeapReader(self)
        self._readers.append(reader)
        return reader

    def retire(self, reader: HeapReader) -> None:
        """Let go of a reader whose loop is gone. What it saw given back still counts."""
        if reader in self._readers:
            self._given_back_before += reader.given_back
            self._readers.remove(reader)

    def given_back(self) -> int:
        """Return the bytes that anyone has given back so far. From any thread.

        This is the sum of all falls between two readings. Bytes that were taken and given back between two readings
        are not seen. While not every step is read, nothing is certain, and no further reading is made.
        """
        readers = tuple(self._readers)
        since = max((reader.last for reader in readers), default=0) - self.read() if readers and self.exact else 0
        return self._given_back_before + sum(reader.given_back for reader in readers) + max(0, since)

    def start(self) -> None:
        """Prepare for the first reading."""

    def stop(self) -> None:
        """Undo `start`, after the last reading. Idempotent."""

    @abstractmethod
    def read(self) -> int:
        """Return the bytes in use now. From any thread."""

    def reading(self) -> Callable[[], int]:
        """Return the function that reads, for a loop's reader: `read`, or the same in C."""
        return self.read

    @property
    def exact(self) -> bool:
        """Return whether every step is read."""
        return self.on and self.sampling_period == 1

    def knows(self, session: Owner) -> bool:
        """Return whether what the session holds is known, if only by an estimate.

        It is, if any of the session's steps may have been read.
        """
        return self.on and session.started >= self.read_since

    def knows_exactly(self, session: Owner) -> bool:
        """Return whether every step was read since the session began."""
        return self.exact and session.started >= self.exact_since

    def adjust_sampling(self, now: float) -> None:
        """Have as many steps read as the budget allows.

        Called about once a second, and by a loop that has spent too much. now: clock reading.
        """
        if self._adjusting.acquire(blocking=False):  # another thread is at it
            try:
                self._adjust(now) if self.on else self._try_reading(now)
            finally:
                self._adjusting.release()

    def _adjust(self, now: float) -> None:
        readers = tuple(self._readers)
        times = [each for reader in readers for each in copied(reader.times)]
        if len(times) >= _ENOUGH_READINGS:
            # The median: it does not move if the host takes the processor away in the middle of some readings.
            self._took = median(times)
        share = max((reader.share(now, self._took) for reader in readers), default=0.0)
        wanted = 1 << ceil(log2(share / BUDGET)) if share > BUDGET else 1
        if wanted >= self.sampling_period:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        if wanted > self.sampling_period or (self._calm_since is not None and now - self._calm_since >= CALM_S):
            self.sampling_period, self._calm_since = wanted, None
        if self._took > LONGEST_READ_S:
            self.on, self._try_at = False, now + TRY_AGAIN_S
        if not self.exact:
            self.exact_since = float("inf")
        elif self.exact_since == float("inf"):
            self.exact_since = now

    def _try_reading(self, now: float) -> None:
        """Have steps read again, as many as before, if one reading is short enough."""
        if now < self._try_at:
            return
        began = self.clock()
        self.read()
        self._took = self.clock() - began
        self._try_at = now + TRY_AGAIN_S
        if self._took <= LONGEST_READ_S:
            for reader in tuple(self._readers):
                reader.times.clear()
            self.on, self.read_since = True, now

    def note(self) -> str | None:
        """Describe the sampling, for who reads the figures. None: every step is read."""
        if not self.on:
            return f"reading the bytes in use takes {1000 * self._took:.0f} ms: heap_mb is not reported for now"
        if self.sampling_period == 1:
            return None
        return (
            f"one step in {self.sampling_period}, drawn at random, has the bytes in use read, which takes "
            f"{1e6 * self._took:.0f} µs: heap_mb is an estimate, and leaves out calls in threads"
        )
