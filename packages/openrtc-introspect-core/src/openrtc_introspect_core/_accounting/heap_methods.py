"""Two methods of reading how many bytes are in use.

heap      the allocator's own account (see _os/allocators.py): all that malloc gave away, to C libraries as well. It
          does not see the small objects (up to 512 bytes) that Python keeps in arenas of its own, unless the worker
          runs with PYTHONMALLOC=malloc. A reading of glibc's walks the free chunks: 0.3 µs in a tidy heap, a
          millisecond and more with tens of thousands of free chunks. jemalloc's takes 1 µs for each of its arenas. So
          reading every step may be too expensive (see heap.py). Where Python's objects are in no account it is refused
traced    tracemalloc: all that Python's allocators gave away, and nothing that C libraries took for
          themselves. A reading is cheap; tracing makes every allocation two to four times slower.

Neither sees memory that is mapped (mmap).
"""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Callable

from .._base.clock import Clock
from .._base.errors import ArgumentError
from .._base.gil import FREE_THREADED_BUILD
from .._native import native
from .._os.allocators import LARGE, SMALL, Allocator, allocators, has_mimalloc
from ..wire._messages import MemoryMethod
from .heap import Heap


class Malloc(Heap):
    """Readings of the allocator's own account. Raises ArgumentError if what Python allocates is in none."""

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        super().__init__(clock)
        self.allocator = _trusted(allocators())
        small = self.allocator.counts(*SMALL)
        self.blind_to = (
            f"heap_mb, read from {self.allocator.name} ({self.allocator.statistic}), leaves out mapped memory (mmap)"
            f"{'' if small else ' and, without PYTHONMALLOC=malloc, small objects of Python (up to 512 bytes)'}, "
            "and credits what is freed to whoever held the loop then"
        )

    def read(self) -> int:
        return self.allocator.in_use()

    def reading(self) -> Callable[[], int]:
        return self.allocator.in_use


def _trusted(found: list[Allocator]) -> Allocator:
    """Return the allocator whose account Python's objects are in. Raise ArgumentError if there is none."""
    for each in found:
        if each.counts(*LARGE):
            return each
    why, do = "this process allocates elsewhere", "use 'traced' or 'share'"
    if not found:
        why = "this process has none of them"
    elif FREE_THREADED_BUILD:
        why = "a free-threaded Python allocates elsewhere"
    elif (wanted := os.environ.get("PYTHONMALLOC", "")).startswith("mimalloc"):
        why, do = f"Python allocates elsewhere with PYTHONMALLOC={wanted}", f"start without it, or {do}"
    elif has_mimalloc():
        why, do = "this process allocates with mimalloc, which keeps none", f"start without it, or {do}"
    raise ArgumentError(
        f"memory='heap' reads the account of glibc (2.33 or newer), jemalloc (5 or newer) or tcmalloc, and {why}: {do}"
    )


class Traced(Heap):
    """Readings of Python's own statistics, by tracemalloc."""

    blind_to = (
        "heap_mb leaves out what C libraries allocate for themselves and mapped memory (mmap), "
        "and credits what is freed to whoever held the loop then"
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

    def reading(self) -> Callable[[], int]:
        return (native and native.traced_in_use) or self.read


def heap_for(method: MemoryMethod, clock: Clock = time.perf_counter) -> Heap | None:
    """Return the heap that `method` reads. None for "share", which reads none.

    Raise ArgumentError on a platform that lacks the method.
    """
    if method == "heap":
        return Malloc(clock)
    if method == "traced":
        return Traced(clock)
    return None
