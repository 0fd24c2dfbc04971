"""Allocators of memory that count the bytes in use, and whether what Python allocates is in their account.

glibc      `mallinfo2`, since 2.33: all arenas, and blocks that malloc maps. It walks the free chunks
jemalloc   `stats.allocated`, drawn up anew, less the free blocks in the caches of threads; since 5
tcmalloc   `generic.current_allocated_bytes`, of gperftools

An account counts what its allocator has handed out in the whole process, on any thread. None knows of memory that a
program maps by itself (mmap).

An allocator that is preloaded takes malloc's place, and glibc's functions are found as before: they then report 0.
Python has allocators of its own, too: of small objects, and with PYTHONMALLOC=mimalloc or without a GIL of all objects.
So an account is trusted only if it rises and falls with what Python takes and gives back.

mimalloc has no such account. What its process maps moves in steps of megabytes, and a thread's own blocks do not show
what other threads have freed of them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple

from .._native import native

LARGE = (16384, 64)
"""Bytes of an object that Python always takes from an allocator, and how many objects a trial takes."""

SMALL = (400, 2000)
"""The same for objects that Python keeps in arenas of its own, unless told otherwise (PYTHONMALLOC=malloc)."""

_MAX_TRIES = 5
_ALL_ARENAS = 4096  # jemalloc's MALLCTL_ARENAS_ALL


class Allocator(NamedTuple):
    """An allocator that counts the bytes in use."""

    name: str
    statistic: str
    """The name of its account, as its documentation has it."""
    in_use: Callable[[], int]
    """Return the bytes in use in the whole process. From any thread."""

    def counts(self, size: int, number: int) -> bool:
        """Return whether the account rises and falls with so many objects of Python's.

        Other threads may allocate meanwhile: one trial of some has to agree.
        """
        return any(self._agrees(size, number) for _ in range(_MAX_TRIES))

    def _agrees(self, size: int, number: int) -> bool:
        before = self.in_use()
        held = [bytes(size) for _ in range(number)]
        during = self.in_use()
        del held
        taken, given_back = during - before, during - self.in_use()
        return all(0.5 < bytes_moved / (size * number) < 2.0 for bytes_moved in (taken, given_back))


def allocators() -> list[Allocator]:
    """Return those of the three whose functions this process has, whether or not it allocates with them."""
    found = []
    for name, statistic, by_ctypes in (
        ("glibc", "mallinfo2", glibc_by_ctypes),
        ("jemalloc", "stats.allocated", jemalloc_by_ctypes),
        ("tcmalloc", "generic.current_allocated_bytes", tcmalloc_by_ctypes),
    ):
        in_use = by_ctypes() if native is None else getattr(native, f"{name}_in_use")
        if in_use is not None:
            found.append(Allocator(name, statistic, in_use))
    return found


def has_mimalloc() -> bool:
    """Return whether a mimalloc is loaded that other programs can call; Python's own is not."""
    return _function("mi_version") is not None


def _function(name: str) -> Any:
    """Return the function of the process that has this name, or None."""
    try:
        # Not CDLL: to release the GIL around each call costs more than the call.
        return getattr(ctypes.PyDLL(None), name)
    except (OSError, AttributeError, TypeError):  # there is none; a static or a Windows program
        return None


class _MallInfo2(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


def glibc_by_ctypes() -> Callable[[], int] | None:
    """Return the function that reads glibc's account, or None. Also below: for the meter in Python."""
    mallinfo2 = _function("mallinfo2")
    if mallinfo2 is None:
        return None
    mallinfo2.restype = _MallInfo2

    def in_use() -> int:
        info = mallinfo2()
        return info.uordblks + info.hblkhd  # type: ignore[no-any-return]

    return in_use


def jemalloc_by_ctypes() -> Callable[[], int] | None:
    """Return the function that reads jemalloc's account, or None."""
    find, control = _function("mallctlnametomib"), _function("mallctlbymib")
    if find is None or control is None:
        return None

    def named(name: str) -> tuple[Any, ctypes.c_size_t] | None:
        numbers, length = (ctypes.c_size_t * 6)(), ctypes.c_size_t(6)
        return (numbers, length) if find(name.encode(), numbers, ctypes.byref(length)) == 0 else None

    def size(name: tuple[Any, ctypes.c_size_t]) -> int:
        value, its_size = ctypes.c_size_t(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_size_t))
        if control(*name, ctypes.byref(value), ctypes.byref(its_size), None, ctypes.c_size_t(0)) != 0:
            raise OSError("jemalloc does not give its account")
        return value.value

    epoch, handed_out = named("epoch"), named("stats.allocated")
    cached = named(f"stats.arenas.{_ALL_ARENAS}.tcache_bytes")
    if epoch is None or handed_out is None or cached is None:
        return None

    def in_use() -> int:
        following = ctypes.c_uint64(1)  # any write has the account drawn up anew
        control(*epoch, None, None, ctypes.byref(following), ctypes.c_size_t(ctypes.sizeof(following)))
        return size(handed_out) - size(cached)

    return in_use


def tcmalloc_by_ctypes() -> Callable[[], int] | None:
    """Return the function that reads tcmalloc's account, or None."""
    get = _function("MallocExtension_GetNumericProperty")
    if get is None:
        return None

    def in_use() -> int:
        value = ctypes.c_size_t()
        if not get(b"generic.current_allocated_bytes", ctypes.byref(value)):
            raise OSError("tcmalloc does not give its account")
        return value.value

    return in_use
