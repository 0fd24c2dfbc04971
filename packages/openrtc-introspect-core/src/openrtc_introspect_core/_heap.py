"""A session's own memory: what its steps have allocated, less what they freed.

The bytes in use are read where a step begins and ends, and the difference is booked to whoever held
the loop in between. Two methods to read them:

heap      glibc's mallinfo2: all that malloc gave away, its C libraries' included. It does not see the
          small objects (up to 512 bytes) that Python keeps in arenas of its own, unless the worker runs
          with PYTHONMALLOC=malloc, and on a free-threaded build nothing of Python's. Reading walks the
          allocator's free chunks: 0.3 µs in a tidy heap, a millisecond and more where tens of thousands
          of chunks are free. So not every step may be read (see `Heap`).
traced    tracemalloc: all that Python's allocators gave away, and nothing that C libraries took for
          themselves. Reading is cheap; tracing makes every allocation two to four times slower.

Neither knows who frees: memory that one session took and another's step, a callback or the garbage
collector gives back is booked as freed by whoever held the loop then. But how much was given back in
all is known, so of what a session has left behind as much as was not is held for certain.
"""

from __future__ import annotations

import ctypes
import random
import threading
import time
import tracemalloc
from abc import ABC, abstractmethod
from collections import deque
from math import ceil, log2
from statistics import median

from ._clock import Clock
from ._errors import ArgumentError
from ._gil import FREE_THREADED_BUILD, copied
from ._sessions import Session
from .wire._messages import MemoryMethod

BUDGET = 0.02
"""The share of each loop's time that reading may take."""

LONGEST_READ_S = 0.01
"""While a reading takes more, none is done in steps: two of them would hold the loop for half a block."""

WINDOW_S = 5.0
"""Seconds that the cost is judged over: one busy second of a quiet worker does not decide."""

CALM_S = 10.0
"""Seconds for which reading more of the steps must have been within the budget before it is done again."""

TRY_AGAIN_S = 60.0
"""Seconds between readings while no step is read."""

_ENOUGH_READINGS = 8
_CHEAP_S = 50e-6
"""Of readings that take less, one in `_TIMED_ONE_IN` is timed: it would cost a good part of the reading."""
_TIMED_ONE_IN = 7


class _MallInfo2(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


class Reader:
    """Reads for one loop's thread, and keeps account of what was given back between two readings, and of the cost."""

    __slots__ = (
        "_heap", "_marks", "_random", "_untimed", "drawn", "due", "given_back", "last", "raw", "spent", "times",
        "weight",
    )  # fmt: skip

    def __init__(self, heap: Heap) -> None:
        self._heap = heap
        self.raw = heap.read
        """Reads, for any thread, and keeps no account."""
        self.last = self.raw()
        self.given_back = 0
        self.drawn = True
        """Whether the step under way, or else the last one, is read."""
        self.weight = 1
        """What it counts for."""
        self.due = 0
        """Readings so far, had every step been read."""
        self.times: deque[float] = deque(maxlen=32)
        """Seconds that the latest readings took, of those that were timed."""
        self.spent = 0.0
        """Seconds spent on reading since the cost was last judged."""
        self._untimed = 0
        self._marks: deque[tuple[float, int]] = deque([(heap.clock(), 0)])
        self._random = random.Random().random  # of its own: the host's may be seeded

    @property
    def exact(self) -> bool:
        """Whether every step is read, and the one under way, or else the last one, was."""
        return self.drawn and self.weight == 1 and self._heap.exact

    @property
    def exact_since(self) -> float:
        return self._heap.exact_since

    def draw(self) -> bool:
        """Whether the step that begins now is read: one in so many, each with the same chance."""
        one_in = self.weight = self._heap.one_in
        self.drawn = self._heap.on and (one_in == 1 or self._random() * one_in < 1.0)
        if not self.drawn:
            self.due += 2
        return self.drawn

    def __call__(self) -> int:
        self.due += 1
        if self._untimed:
            self._untimed -= 1
            now = self.raw()
        else:
            now = self._timed()
        if now < self.last:
            self.given_back += self.last - now
        self.last = now
        return now

    def _timed(self) -> int:
        clock = self._heap.clock
        began = clock()
        in_use = self.raw()
        took = (ended := clock()) - began
        self.times.append(took)
        self._untimed = _TIMED_ONE_IN - 1 if took < _CHEAP_S else 0
        self.spent += took * (1 + self._untimed)
        if self.spent > BUDGET * WINDOW_S:
            self._heap.keep_to_budget(ended)  # at once: the loop is held meanwhile
        return in_use

    def share(self, now: float, took: float) -> float:
        """The share of the loop's time that reading every step would have cost lately, at so many seconds each.

        Of a second at least: what was before the first one is taken to have been quiet.
        """
        self.spent = 0.0
        marks = self._marks
        marks.append((now, self.due))
        while len(marks) > 2 and now - marks[1][0] >= WINDOW_S:
            marks.popleft()
        since, due = marks[0]
        return took * (self.due - due) / max(1.0, now - since)


class Heap(ABC):
    """A way to read how many bytes are in use, and how often it is used for what it may cost.

    One step in so many is read, drawn at random, and what it has allocated counts for as many: what a session
    holds is then an estimate without bias. What the other steps allocate is booked to nobody. Fewer steps are read
    at once, more once that has been possible for a while, and none while a single reading takes too long.
    """

    blind_to: str
    """What it cannot see, in words."""

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self.clock = clock
        """Times readings."""
        self.on = True
        """False: no step is read, for now."""
        self.one_in = 1
        """One step in so many is read, while any is."""
        self.read_since = float("-inf")
        """Clock reading since when any step may be read."""
        self.exact_since = float("-inf")
        """Clock reading since when every step is read; infinite while not each is."""
        self._calm_since: float | None = None
        """Since when reading more of the steps would be within the budget; None: it would not."""
        self._took = 0.0
        """Seconds that a reading takes, by the last ones."""
        self._try_at = 0.0
        self._judging = threading.Lock()
        self._readers: list[Reader] = []
        self._given_back_before = 0

    def reader(self) -> Reader:
        """One for the loop of the calling thread, until `retire`."""
        reader = Reader(self)
        self._readers.append(reader)
        return reader

    def retire(self, reader: Reader) -> None:
        if reader in self._readers:
            self._given_back_before += reader.given_back
            self._readers.remove(reader)

    def given_back(self) -> int:
        """Bytes that anyone has given back so far, by what the readings of all loops fell. From any thread.

        What was taken and given back between two readings is not in it. While not every step is read, it is worth
        no further reading: nothing is certain then.
        """
        readers = tuple(self._readers)
        since = max((reader.last for reader in readers), default=0) - self.read() if readers and self.exact else 0
        return self._given_back_before + sum(reader.given_back for reader in readers) + max(0, since)

    def start(self) -> None:  # noqa: B027 - nothing to do for most
        """Before the first read."""

    def stop(self) -> None:  # noqa: B027
        """After the last."""

    @abstractmethod
    def read(self) -> int:
        """Bytes in use now. From any thread."""

    @property
    def exact(self) -> bool:
        """Whether every step is read."""
        return self.on and self.one_in == 1

    def knows(self, session: Session) -> bool:
        """Whether what the session holds is known, maybe as an estimate: any of its steps may have been read."""
        return self.on and session.started >= self.read_since

    def knows_exactly(self, session: Session) -> bool:
        """Whether every step was read since the session began."""
        return self.exact and session.started >= self.exact_since

    def keep_to_budget(self, now: float) -> None:
        """Have as many of the steps read as may be. About once a second, and by a loop that has spent too much."""
        if self._judging.acquire(blocking=False):  # another thread is at it
            try:
                self._judge(now) if self.on else self._try(now)
            finally:
                self._judging.release()

    def _judge(self, now: float) -> None:
        readers = tuple(self._readers)
        times = [each for reader in readers for each in copied(reader.times)]
        if len(times) >= _ENOUGH_READINGS:
            # The median: it is not moved where the host takes the processor away in the middle of some.
            self._took = median(times)
        share = max((reader.share(now, self._took) for reader in readers), default=0.0)
        wanted = 1 << ceil(log2(share / BUDGET)) if share > BUDGET else 1
        if wanted >= self.one_in:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        if wanted > self.one_in or (self._calm_since is not None and now - self._calm_since >= CALM_S):
            self.one_in, self._calm_since = wanted, None
        if self._took > LONGEST_READ_S:
            self.on, self._try_at = False, now + TRY_AGAIN_S
        if not self.exact:
            self.exact_since = float("inf")
        elif self.exact_since == float("inf"):
            self.exact_since = now

    def _try(self, now: float) -> None:
        """Have steps read again, no more than before, where one reading is short enough."""
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

    def told(self) -> str | None:
        """What the reader of the figures must know; None: every step is read."""
        if not self.on:
            return f"reading the bytes in use takes {1000 * self._took:.0f} ms: heap_mb is not told for now"
        if self.one_in == 1:
            return None
        return (
            f"one step in {self.one_in}, drawn at random, has the bytes in use read, which takes "
            f"{1e6 * self._took:.0f} µs: heap_mb is an estimate, and leaves out calls in threads"
        )


class Malloc(Heap):
    """glibc's own account. Raises ArgumentError where there is none."""

    blind_to = (
        "heap_mb leaves out Python's small objects (up to 512 bytes) unless PYTHONMALLOC=malloc, "
        "and books what is freed to whoever held the loop then"
    )

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        super().__init__(clock)
        if FREE_THREADED_BUILD:
            raise ArgumentError(
                "memory='heap' reads malloc's account, and a free-threaded Python allocates elsewhere: "
                "use 'traced' or 'share'"
            )
        try:
            # Not CDLL: giving the GIL away around each call costs more than the call.
            self._mallinfo2 = ctypes.PyDLL(None).mallinfo2
        except (OSError, AttributeError, TypeError):
            raise ArgumentError(
                "memory='heap' needs glibc 2.33 or newer, which this platform lacks: use 'traced' or 'share'"
            ) from None
        self._mallinfo2.restype = _MallInfo2

    def read(self) -> int:
        info = self._mallinfo2()
        in_use: int = info.uordblks + info.hblkhd
        return in_use


class Traced(Heap):
    """Python's own account, by tracemalloc."""

    blind_to = (
        "heap_mb leaves out what C libraries allocate for themselves, "
        "and books what is freed to whoever held the loop then"
    )

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        super().__init__(clock)
        self._started = False

    def start(self) -> None:
        if not tracemalloc.is_tracing():
            tracemalloc.start(1)
            self._started = True

    def stop(self) -> None:
        if self._started:
            self._started = False
            tracemalloc.stop()

    def read(self) -> int:
        return tracemalloc.get_traced_memory()[0]


def heap_for(method: MemoryMethod, clock: Clock = time.perf_counter) -> Heap | None:
    """How `method` reads; None for "share", which does not. Raises ArgumentError where the platform lacks it."""
    if method == "heap":
        return Malloc(clock)
    if method == "traced":
        return Traced(clock)
    return None
