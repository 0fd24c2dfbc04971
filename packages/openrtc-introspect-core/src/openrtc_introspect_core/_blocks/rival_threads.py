"""The other threads that compute while something holds the loop: which of them kept the GIL.

Each stall sample that came late reads the CPU time of all threads, and takes the stacks of those that used the most of
it since the reading before. The reading before the block is up to a second old. What a thread used in the block itself
is therefore known between two bounds: at least what cannot have been used before the block, nor by others in it.
"""

from __future__ import annotations

import concurrent.futures.thread
import queue
import selectors
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from types import FrameType

from .._os.stacks import Calls, take
from .._os.thread_clocks import cpu_by_thread, name_of_thread
from .._os.thread_usage import Usage

COMPETES = 0.1
"""A thread that has used this share of a block as CPU time may have kept the GIL, if it used most of what all others
did. The share is small, because on a crowded machine a thread that has the GIL waits for a processor like any other."""

ALIKE = 0.5
"""If a second thread may have used this share of the first one's CPU time, no single one is named."""

MARK_S = 0.5
"""Seconds between two readings while nothing is held."""

_STACKS = 2
"""The threads of a sample whose stacks are taken."""

_MIN_USED_S = 0.001
"""CPU seconds since the reading before, from which on a thread's stack is worth taking."""


_WAITS = frozenset(module.__file__ for module in (threading, queue, selectors, concurrent.futures.thread))
"""The files whose functions wait: a thread whose innermost call is there does not compute."""


@dataclass(slots=True)
class Rival:
    """One thread in one block."""

    thread_id: int
    name: str
    least_s: float = 0.0
    """CPU seconds that it has used in the block, at least."""
    most_s: float = 0.0
    """CPU seconds that it has used in the block, at most."""
    places: dict[Calls, float] = field(default_factory=dict)
    """The CPU seconds that each stack stands for, at most."""

    @property
    def calls(self) -> Calls:
        """Return the stack that stands for the most CPU time, the innermost call first; empty if none was taken."""
        return max(self.places.items(), key=itemgetter(1), default=((), 0.0))[0]


Rivals = dict[int, Rival]
"""The other threads of one block, by thread id."""

_UNKNOWN = 0
"""Stands for the threads that `threading` does not know, and for those that have ended."""


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU times of one moment."""

    usage: Usage
    """Of the loop's thread and of the process."""
    by_thread: Mapping[int, float]

    @property
    def others_s(self) -> float | None:
        """Return the CPU seconds of all threads but the loop's. None: not known."""
        usage = self.usage
        return None if usage.process_s is None or usage.cpu_s is None else usage.process_s - usage.cpu_s


class RivalThreads:
    """The readings for one loop. The watchdog's thread takes them."""

    def __init__(self) -> None:
        self._last: Reading | None = None
        self._after_hold: Sample | None = None

    def mark(self, usage: Usage, loop_thread: int) -> None:
        """Read while nothing is held, each half a second."""
        if self._last is None or usage.when - self._last.usage.when >= MARK_S:
            self._last = Reading(usage, cpu_by_thread((loop_thread,)))

    def sample(self, frames: Mapping[int, FrameType], usage: Usage, loop_thread: int) -> Sample | None:
        """Read now. None: there was no reading before, or the other threads have computed next to nothing since."""
        before = self._last
        if before is None or _nobody_competed(before.usage, usage):
            return None
        self._last = Reading(usage, cpu_by_thread((loop_thread,)))
        return Sample(before, self._last, frames)

    def sample_after_hold(self, frames: Mapping[int, FrameType], usage: Usage, loop_thread: int) -> None:
        """Read as the watchdog has got the GIL late, and nothing is held any more."""
        self._after_hold = self.sample(frames, usage, loop_thread)

    def at_end(self, since: float, frames: Mapping[int, FrameType], usage: Usage, loop_thread: int) -> list[Sample]:
        """Return what no span has of a block that began at `since` and ends now. From any thread.

        The next sample is compared with the same reading as this one.
        """
        after_hold, before = self._after_hold, self._last
        found = [after_hold] if after_hold is not None and after_hold.when > since else []
        if before is not None:
            found.append(Sample(before, Reading(usage, cpu_by_thread((loop_thread,))), frames))
        return found


class Sample:
    """What the threads have used between two readings."""

    def __init__(self, before: Reading, after: Reading, frames: Mapping[int, FrameType]) -> None:
        self._before = before
        self._after = after
        self.used = {
            thread_id: max(0.0, cpu_s - before.by_thread.get(thread_id, 0.0))
            for thread_id, cpu_s in after.by_thread.items()
        }
        most = sorted((each for each in self.used.items() if each[1] >= _MIN_USED_S), key=itemgetter(1), reverse=True)
        self.stacks: dict[int, Calls] = {}
        for thread_id, _ in most[:_STACKS]:
            calls, _ = take(frames.get(thread_id), (), gil_kept=True)
            if calls and calls[0].file not in _WAITS:  # it has ended what it computed
                self.stacks[thread_id] = tuple(calls)

    @property
    def when(self) -> float:
        """Return the clock reading of the later one."""
        return self._after.usage.when

    def add_to(self, rivals: Rivals, since: float, before_block: Usage) -> None:
        """Add what was used in the block that began at `since`.

        before_block: the usage of the loop's thread and of the process at the last tick before the block.
        """
        when = self._before.usage.when
        span = self._after.usage.when - max(when, since)
        least_of_all, earlier = self._bounds(since, before_block)
        known, first, last = sum(self.used.values()), self._before.others_s, self._after.others_s
        total = max(known, last - first) if first is not None and last is not None else known  # with unknown threads
        for thread_id, used in (*self.used.items(), (_UNKNOWN, total - known)):
            if used < _MIN_USED_S:
                continue
            rival = rivals.get(thread_id)
            if rival is None:
                rival = rivals[thread_id] = Rival(thread_id, name_of_thread(thread_id))
            most = min(used, span)
            if thread_id != _UNKNOWN:  # else it may be several
                rival.least_s += min(most, max(0.0, used - earlier, least_of_all - (total - used)))
            rival.most_s += most
            if (calls := self.stacks.get(thread_id)) is not None:
                rival.places[calls] = rival.places.get(calls, 0.0) + most

    def _bounds(self, since: float, before_block: Usage) -> tuple[float, float]:
        """Return (CPU seconds that all other threads used in the block, at least; and before the block, at most)."""
        first, last, between = self._before.others_s, self._after.others_s, Reading(before_block, {}).others_s
        if self._before.usage.when >= since:
            return (last - first if first is not None and last is not None else 0.0), 0.0
        if first is None or last is None or between is None:
            return 0.0, float("inf")
        ahead = max(0.0, since - before_block.when)  # the tick may be a little ahead of the block
        return max(0.0, last - between - ahead), max(0.0, between - first) + ahead


def _nobody_competed(before: Usage, now: Usage) -> bool:
    """Return whether the threads but the loop's have used less CPU time than counts, since the reading before."""
    first, last = Reading(before, {}).others_s, Reading(now, {}).others_s
    return first is not None and last is not None and last - first < COMPETES * (now.when - before.when)


def keeper_of(rivals: Rivals, duration: float) -> Rival | None:
    """Return the thread that kept the GIL in a block of this length; None: none did, or not one alone."""
    rival = max(rivals.values(), key=lambda each: each.least_s, default=None)
    if rival is None or rival.least_s < COMPETES * duration:
        return None
    others = (each.most_s for each in rivals.values() if each is not rival)
    return rival if max(others, default=0.0) <= ALIKE * rival.least_s else None


def alike(rivals: Rivals, duration: float) -> Collection[str]:
    """Return the names of the threads that together kept the GIL busy, the likeliest first; at most four.

    Empty: there are no two that did.
    """
    busy = sorted((each for each in rivals.values() if each.least_s >= COMPETES * duration), key=_by_use)
    return [each.name for each in busy[:4]] if len(busy) > 1 else []


def _by_use(rival: Rival) -> float:
    return -rival.least_s
