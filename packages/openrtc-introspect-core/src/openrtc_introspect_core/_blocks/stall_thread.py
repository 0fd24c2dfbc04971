"""The stall sampler in C: it samples a loop while C code keeps the GIL, and the watchdog cannot.

Its thread is in _native/stall_thread.c. Here is what it is told, and whether it can read this Python's stacks at all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from types import CodeType, FrameType
from typing import TYPE_CHECKING

from .._native import native
from .._os.stacks import MAX_FRAMES, Folders, Places

if TYPE_CHECKING:
    from .stall_sampler import StallSampler

Frame = tuple[str, int, str]
"""(file, line, function)."""

NO_FILE = -1
"""Stands for no descriptor."""

stalls_cpu_s: Callable[[], float] = native.stall_thread_cpu_s if native is not None else lambda: 0.0
"""Returns the CPU seconds that the stall sampler has used."""


@lru_cache(maxsize=1)
def blind() -> str | None:
    """Return why stacks cannot be sampled without the GIL, in one line. None: they can."""
    if native is None:
        return "the meter in Python samples no stacks while C code keeps the GIL"
    seen, real = native.own_stack(), _stack_here()  # on one line: both are of the same moment
    if seen is None:
        return "this system or this Python does not let stacks be read without the GIL"
    if len(seen) != len(real) or not all(map(_is_same, seen, real)):
        return "stacks that are read without the GIL are not those of this Python: none is"
    return None


def _stack_here() -> list[Frame]:
    """Return the calls of the caller and outside of it, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    places = list[Frame]()
    while frame is not None and len(places) < MAX_FRAMES:
        code = frame.f_code
        places.append((code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_qualname))
        frame = frame.f_back
    return places


def _is_same(seen: Frame, real: Frame) -> bool:
    """Return whether C has read a call right. Of long names it reads the end."""
    return seen[1] == real[1] and _readable(real[0]).endswith(seen[0]) and _readable(real[2]).endswith(seen[2])


def _readable(name: str) -> str:
    """Return a name as C reads it: without halves of surrogate pairs."""
    return name.encode("utf-8", "replace").decode()


def watch(
    sampler: StallSampler,
    limit: float,
    places: Places,
    ends: Collection[CodeType],
    *,
    stall_log: int | None = None,
    box: tuple[int, int, int] | None = None,
) -> None:
    """Have the stall sampler watch a loop, until `sampler.stop_watching()`.

    limit: the threshold in seconds. ends: the code that runs the loop's tasks, which is left out with all outside of
    it. stall_log: the descriptor to write [blocked-now] lines to. box: the descriptor of the black box, and the offset
    and the size, in bytes, of the slots of this loop's section. None: nowhere. Both descriptors are duplicated.

    Raises RuntimeError if no thread can be started.
    """
    entries = b"".join(_readable(entry).encode() + b"\0" for entry in _entries(places.folders, ends))
    descriptor, offset, size = box or (NO_FILE, 0, 0)
    sampler.watch_without_gil(limit, entries, NO_FILE if stall_log is None else stall_log, descriptor, offset, size)


def _entries(folders: Folders, ends: Collection[CodeType]) -> Iterator[str]:
    """Yield what _native/folders.c knows of folders, in the order in which they are tried."""
    yield f"p{folders.own}"
    yield from (f"u{folder}" for folder in folders.roots or ())
    yield f"c{folders.cwd}"
    yield from (f"o{folder}" for folder in (*folders.installed, *folders.stdlib))
    yield from (f"e{code.co_qualname}:{code.co_filename}" for code in ends)
