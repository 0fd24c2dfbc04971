"""Garbage collections on the loop's thread: whose step they fall into has nothing to do with it."""

from __future__ import annotations

import gc
import threading
from collections import deque
from typing import Any, NamedTuple

from ._ledger import Ledger

NOTABLE_S = 0.0002
"""Shorter collections stay with whoever holds the loop: there are many, and they block nobody."""


class Collection(NamedTuple):
    start: float
    end: float
    generation: int


class Collections:
    """Books notable collections to the ledger's `gc` account while attached."""

    def __init__(self, ledger: Ledger, thread_id: int) -> None:
        self._ledger = ledger
        self._clock = ledger.clock
        self._thread_id = thread_id
        self._began: float | None = None
        self.recent: deque[Collection] = deque(maxlen=32)

    def attach(self) -> None:
        gc.callbacks.append(self._called)

    def detach(self) -> None:
        if self._called in gc.callbacks:
            gc.callbacks.remove(self._called)

    def _called(self, phase: str, info: dict[str, Any]) -> None:
        if threading.get_ident() != self._thread_id:
            return
        now = self._clock()
        if phase == "start":
            self._began = now
        elif self._began is not None:
            began, self._began = self._began, None
            if now - began > NOTABLE_S:
                self.recent.append(Collection(began, now, int(info.get("generation", 0))))
                self._ledger.collected(began, now)

    def generation(self, start: float, end: float) -> int:
        """The oldest generation that was collected in this span."""
        return max((c.generation for c in self.recent if c.start < end and c.end > start), default=0)
