"""Garbage collections, thread by thread: whose step they fall into has nothing to do with it.

A collection on a loop's thread is that loop's. One on another thread keeps the GIL, or stops all threads
where there is none, and no more than that is said of the loops that wait for it.
"""

from __future__ import annotations

import gc
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ._clock import Clock
from ._gil import copied
from ._ledger import Ledger

NOTABLE_S = 0.0002
"""Shorter collections stay with whoever holds the loop: there are many, and they block nobody."""


class Collection(NamedTuple):
    start: float
    end: float
    generation: int
    thread_id: int


class Collections:
    """Books notable collections to the `gc` account of the ledger whose thread they ran on, while attached."""

    def __init__(
        self,
        clock: Clock,
        ledger_of: Callable[[int], Ledger | None],
        on_fault: Callable[[str, BaseException], None] = lambda problem, error: None,
    ) -> None:
        self._clock = clock
        self._on_fault = on_fault
        self._ledger_of = ledger_of
        """The ledger of the loop that runs on this thread."""
        self._began: dict[int, float] = {}
        self.recent: deque[Collection] = deque(maxlen=32)

    def attach(self) -> None:
        gc.callbacks.append(self._called)

    def detach(self) -> None:
        if self._called in gc.callbacks:
            gc.callbacks.remove(self._called)

    def _called(self, phase: str, info: dict[str, Any]) -> None:
        try:
            self._note(phase, info)
        except Exception as error:
            self.detach()
            self._on_fault(f"garbage collections are not seen any more: {error!r}", error)

    def _note(self, phase: str, info: dict[str, Any]) -> None:
        now, thread_id = self._clock(), threading.get_ident()
        if phase == "start":
            self._began[thread_id] = now
            return
        began = self._began.pop(thread_id, None)
        if began is None or now - began <= NOTABLE_S:
            return
        self.recent.append(Collection(began, now, int(info.get("generation", 0)), thread_id))
        ledger = self._ledger_of(thread_id)
        if ledger is not None:
            ledger.collected(began, now)

    def generation(self, start: float, end: float, thread_id: int) -> int:
        """The oldest generation that was collected on this thread in this span."""
        return max((c.generation for c in self._within(start, end) if c.thread_id == thread_id), default=0)

    def elsewhere(self, start: float, end: float, thread_id: int) -> float:
        """Seconds of this span that other threads collected.

        One that has let go of the GIL right at its end, and could not say so yet, is over by the span's.
        """
        others = [(c.start, c.end) for c in self._within(start, end) if c.thread_id != thread_id]
        others += [(began, end) for thread, began in list(self._began.items()) if thread != thread_id and began < end]
        return sum(min(end, until) - max(start, since) for since, until in others)

    def _within(self, start: float, end: float) -> Iterator[Collection]:
        return (c for c in copied(self.recent) if c.start < end and c.end > start)
