"""A session's own memory: what its steps have allocated, less what they freed.

The bytes in use are read where a step begins and ends, and the difference is booked to whoever held
the loop in between. Two methods to read them:

heap      glibc's mallinfo2: all that malloc gave away, its C libraries' included. It does not see the
          small objects (up to 512 bytes) that Python keeps in arenas of its own, unless the worker runs
          with PYTHONMALLOC=malloc, and on a free-threaded build nothing of Python's. Reading walks the
          allocator's free chunks: 0.3 µs in a tidy heap, a millisecond and more where tens of thousands
          of chunks are free. So its cost is watched, and above a budget it is switched off and said so:
          see docs/decisions/0007-memory-by-session.md.
traced    tracemalloc: all that Python's allocators gave away, and nothing that C libraries took for
          themselves. Reading is cheap; tracing makes every allocation two to four times slower.

Neither knows who frees: memory that one session took and another's step, a callback or the garbage
collector gives back is booked as freed by whoever held the loop then. But how much was given back in
all is known, so of what a session has left behind as much as was not is held for certain.
"""

from __future__ import annotations

import ctypes
import time
import tracemalloc
from abc import ABC, abstractmethod
from collections.abc import Callable

from ._errors import ArgumentError
from ._gil import FREE_THREADED_BUILD
from .wire._messages import MemoryMethod

BUDGET = 0.02
"""The share of wall time that reading may take before it is switched off."""

_LONGEST_READ_S = 200e-6


class _MallInfo2(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


class Reader:
    """Reads for one loop's thread, and keeps account of what was given back between two readings."""

    __slots__ = ("given_back", "last", "raw")

    def __init__(self, raw: Callable[[], int]) -> None:
        self.raw = raw
        """Reads, for any thread, and keeps no account."""
        self.last = raw()
        self.given_back = 0

    def __call__(self) -> int:
        now = self.raw()
        if now < self.last:
            self.given_back += self.last - now
        self.last = now
        return now


class Heap(ABC):
    """A way to read how many bytes are in use."""

    blind_to: str
    """What it cannot see, in words."""
    on = True
    """False: it was switched off, for good."""

    def __init__(self) -> None:
        self._readers: list[Reader] = []
        self._given_back_before = 0

    def reader(self) -> Reader:
        """One for the loop of the calling thread, until `retire`."""
        reader = Reader(self.read)
        self._readers.append(reader)
        return reader

    def retire(self, reader: Reader) -> None:
        if reader in self._readers:
            self._given_back_before += reader.given_back
            self._readers.remove(reader)

    def given_back(self) -> int:
        """Bytes that anyone has given back so far, by what the readings of all loops fell. From any thread.

        What was taken and given back between two readings is not in it.
        """
        readers = tuple(self._readers)
        since = max((reader.last for reader in readers), default=0) - self.read() if readers else 0
        return self._given_back_before + sum(reader.given_back for reader in readers) + max(0, since)

    def start(self) -> None:  # noqa: B027 - nothing to do for most
        """Before the first read."""

    def stop(self) -> None:  # noqa: B027
        """After the last."""

    @abstractmethod
    def read(self) -> int:
        """Bytes in use now. From any thread."""

    def too_dear(self, reads_per_s: float) -> str | None:
        """Why it is to be switched off, in words; None where it may go on."""
        cost = min(self._time_to_read() for _ in range(3))
        if cost <= _LONGEST_READ_S and cost * reads_per_s <= BUDGET:
            return None
        return (
            f"reading the bytes in use takes {1e6 * cost:.0f} µs, {reads_per_s:.0f} times a second: "
            f"heap_mb is switched off"
        )

    def _time_to_read(self) -> float:
        began = time.perf_counter()
        self.read()
        return time.perf_counter() - began


class Malloc(Heap):
    """glibc's own account. Raises ArgumentError where there is none."""

    blind_to = (
        "heap_mb leaves out Python's small objects (up to 512 bytes) unless PYTHONMALLOC=malloc, "
        "and books what is freed to whoever held the loop then"
    )

    def __init__(self) -> None:
        super().__init__()
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

    def __init__(self) -> None:
        super().__init__()
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


def heap_for(method: MemoryMethod) -> Heap | None:
    """How `method` reads; None for "share", which does not. Raises ArgumentError where the platform lacks it."""
    if method == "heap":
        return Malloc()
    if method == "traced":
        return Traced()
    return None
