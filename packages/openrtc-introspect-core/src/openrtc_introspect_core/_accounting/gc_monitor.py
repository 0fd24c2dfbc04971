"""Garbage collections, by thread, and who has called for those that the collector would not have made by itself.

No session is charged with them.

A collection on a loop's thread is charged to that loop, in whoever's step it runs. A collection on another thread
keeps the GIL, or, without a GIL, stops all threads: of a loop that waits for it, only the waiting time is known.

Python 3.15 reports the `duration` of a collection, 0.5 µs less than the time between two readings of our clock. It
saves none of them: the one at the start is needed while the collection runs, the one at the end says when it was.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Hashable
from types import FrameType
from typing import TYPE_CHECKING, Any

from .._base.clock import Clock
from .._base.interrupts import is_interrupt
from .._native import native
from .._os.stacks import Calls, take
from .account import Owner
from .collection_log import Asked, Collection, CollectionLog, most_objects
from .ledger import Ledger

NOTABLE_S = 0.0002
"""Seconds. Shorter collections are charged to the holder of the loop: there are many, and they block no session."""

FULL = 2
"""The generation of a full collection, as `gc.collect()` makes it."""

FREED_SINCE = 20
"""Of what makes a collection due, one part in so many may be freed before it begins."""


class CollectionsInPython:
    """The callback of the collector, which runs one collection at a time.

    If the meter in C is installed, its type `Collections` does the same: a young collection is short, and comes often.
    """

    __slots__ = ("_clock", "_monitor", "began", "thread_id")

    def __init__(self, monitor: GcMonitor, clock: Clock) -> None:
        self._monitor = monitor
        self._clock = clock
        self.began: float | None = None
        """When the collection under way began; None: none is."""
        self.thread_id = 0
        """The thread of the collection under way."""

    def __call__(self, phase: str, info: dict[str, Any]) -> None:
        try:
            now, thread_id = self._clock(), threading.get_ident()
            if phase == "start":
                self.thread_id, self.began = thread_id, now
                if info["generation"] == FULL:
                    self._monitor.full_begins()
            elif self.began is not None and self.thread_id == thread_id:
                began, self.began = self.began, None
                if now - began > NOTABLE_S:
                    self._monitor.collected(began, now, info, thread_id)
        except Exception as error:
            if self._monitor.failed(error):
                raise


Collections = CollectionsInPython
if not TYPE_CHECKING and native is not None:
    Collections = native.Collections


class GcMonitor:
    """A callback of the collector that charges ledgers with notable collections."""

    def __init__(
        self,
        clock: Clock,
        ledger_of: Callable[[int], Ledger | None],
        on_fault: Callable[[str, BaseException], None] = lambda problem, error: None,
    ) -> None:
        self._on_fault = on_fault
        self._ledger_of = ledger_of
        """Returns the ledger of the loop on a thread. None: no attached loop runs there."""
        self.owner_here: Callable[[], Owner | None] = lambda: None
        """Returns the session that is bound here."""
        self.calls_of: Callable[[FrameType, int], Calls] = lambda frame, thread_id: tuple(take(frame, ())[0])
        """Returns the calls of a frame that runs on a thread: those of the task's own."""
        self._is_asked_for = False
        """Whether the full collection under way was called for."""
        self._log = CollectionLog()
        self._called = Collections(self, clock)
        """What the collector calls."""

    def attach(self) -> None:
        """See collections from now on."""
        gc.callbacks.append(self._called)

    def detach(self) -> None:
        """See no more collections. Idempotent."""
        if self._called in gc.callbacks:
            gc.callbacks.remove(self._called)

    # --- what the callback calls -----------------------------------------------------------------

    def collected(self, start: float, end: float, info: dict[str, Any], thread_id: int) -> None:
        """Charge the loop of this thread with a notable collection."""
        generation = int(info.get("generation", 0))
        asked = self._asked(thread_id) if generation == FULL and self._is_asked_for else None
        objects = info.get("candidates")  # since Python 3.15
        self._log.add(Collection(start, end, end - start, generation, thread_id, asked, objects))
        ledger = self._ledger_of(thread_id)
        if ledger is not None:
            ledger.collected(start, end)

    def full_begins(self) -> None:
        """Find out whether the full collection that begins was called for.

        The collector begins by itself only if it is switched on, and more has been made than the youngest generation
        may have; the counter still has that number. So whatever it is that calls `gc.collect()`, Python code, a thread
        or a library in C, is shown by the counter. From Python 3.12 on the collector begins a little later, when some
        of that may have been freed: a full collection that is due is its own with nearly that number.
        """
        threshold, _, of_oldest = gc.get_threshold()
        made, _, oldest = gc.get_count()
        is_due = made > (threshold - threshold // FREED_SINCE if oldest > of_oldest else threshold)
        self._is_asked_for = not gc.isenabled() or threshold == 0 or not is_due

    def _asked(self, thread_id: int) -> Asked | None:
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_code.co_filename == __file__:
            frame = frame.f_back
        return Asked(self.owner_here(), self.calls_of(frame, thread_id)) if frame is not None else None

    def failed(self, error: Exception) -> bool:
        """See no more collections after a fault of ours.

        Return True, and change nothing, if the error is no fault but an interrupt. No exception leaves a collection:
        the collector reports it to `sys.unraisablehook`.
        """
        if is_interrupt(error):
            return True
        self.detach()
        self._on_fault(f"garbage collections are not seen any more: {error!r}", error)
        return False

    # --- from any thread -------------------------------------------------------------------------

    def generation(self, start: float, end: float, thread_id: int) -> int:
        """Return the oldest generation collected on this thread in this span, or 0."""
        return max((c.generation for c in self._log.within(start, end) if c.thread_id == thread_id), default=0)

    def objects(self, start: float, end: float, thread_id: int) -> int | None:
        """Return the most objects that a collection on this thread went through in this span.

        None: not known, as before Python 3.15.
        """
        return most_objects(each for each in self._log.within(start, end) if each.thread_id == thread_id)

    def here(self, start: float, end: float, thread_id: int) -> float:
        """Return the seconds of this span in which this thread collected."""
        return self._seconds(start, end, lambda collector: collector == thread_id)

    def elsewhere(self, start: float, end: float, thread_id: int) -> float:
        """Return the seconds of this span in which other threads collected.

        A collection that has not reported its end (its thread has released the GIL by then) ends with the span.
        """
        return self._seconds(start, end, lambda collector: collector != thread_id)

    def asked(self, start: float, end: float, thread_id: int | None, least_s: float) -> Asked | None:
        """Return the call of `gc.collect()` that collected longest in this span, on this thread; None: on any.

        Calls of one session at one line count as one. None: collections that were called for took less than so many
        seconds of the span.
        """
        calls: dict[Hashable, Asked] = {}
        seconds: dict[Hashable, float] = {}
        for each in self._log.within(start, end):
            if each.asked is not None and thread_id in (None, each.thread_id):
                place = each.asked.place
                calls[place] = each.asked
                seconds[place] = seconds.get(place, 0.0) + each.seconds_within(start, end)
        if not calls or sum(seconds.values()) < least_s:
            return None
        return calls[max(seconds, key=seconds.__getitem__)]

    def _seconds(self, start: float, end: float, counts: Callable[[int], bool]) -> float:
        found = sum(c.seconds_within(start, end) for c in self._log.within(start, end) if counts(c.thread_id))
        began = self._called.began
        if began is not None and began < end and counts(self._called.thread_id):
            found += end - max(start, began)
        return found
