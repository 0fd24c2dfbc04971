"""Samples that were taken without the GIL, where the meter in C is installed.

While the watchdog waits for the GIL, a thread in C reads the frames of the loop's thread, which stand still meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from types import CodeType
from typing import Any, NamedTuple

from .._loops.running_calls import within
from .._native import native
from .._os.stacks import Call, Calls, task_part

UNKNOWN_KEEPER = 0
OWN_THREAD = 1
"""The keeper of the GIL is the loop's own thread; 2: another thread is."""

Frames = tuple[tuple[str, int, str], ...]
"""(file, line, function), innermost first."""

read: Callable[[Any, float, float], list[tuple[float, float, int, Frames]]] = getattr(
    native, "samples_without_gil", lambda sampler, since, until: []
)
"""Returns (first, last, keeper, frames) of a sampler's stacks between two clock readings: each was there from `first`
to `last`."""


class WithoutGil(NamedTuple):
    """A stack that was seen without the GIL."""

    first: float
    """Clock reading of the first sample that saw it."""
    last: float
    """Clock reading of the last one."""
    keeper: int
    """Who kept the GIL."""
    calls: Calls


def samples_without_gil(
    sampler: Any,
    since: float,
    until: float,
    ends: Collection[CodeType],
    sample: Calls,
    compiled: Sequence[Call] = (),
    *,
    unbounded: bool = False,
) -> list[WithoutGil]:
    """Return the stacks of a task that were seen between two clock readings, oldest first.

    ends, sample, unbounded: where the calls of the task end, see `task_part`. compiled: those around them, which have
    no frame.
    """
    return [
        WithoutGil(first, last, keeper, within(task_part(frames, ends, sample, unbounded=unbounded), compiled))
        for first, last, keeper, frames in read(sampler, since, until)
        if last > since and first < until
    ]
