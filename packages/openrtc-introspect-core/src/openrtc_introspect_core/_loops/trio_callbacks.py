"""The functions that other threads have given to a Trio run. Loaded only on Trio."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any

from trio._core._entry_queue import EntryQueue

from .callbacks import Callback, LoopCallbacks, describe_function

_ADDING = EntryQueue.run_sync_soon.__code__
_ADDING_DEPTH = 3


class TrioCallbacks(LoopCallbacks):
    """What is in the entry queue of one run: a task of Trio's own calls it."""

    def __init__(self, runner: Callable[[], Any]) -> None:
        self._runner = runner
        """A weak reference: None once the run is over."""

    def queue(self) -> deque[Any] | None:
        queue = getattr(getattr(self._runner(), "entry_queue", None), "queue", None)
        return queue if type(queue) is deque else None

    def describe(self, queued: Any) -> Callback | None:
        return describe_function(queued[0], None) if type(queued) is tuple and queued else None

    def adds_from(self, frame: FrameType) -> Any:
        each: FrameType | None = frame
        for _ in range(_ADDING_DEPTH):
            if each is None:
                return None
            if each.f_code is _ADDING and (values := each.f_locals).get("self") is getattr(
                self._runner(), "entry_queue", None
            ):
                return values.get("sync_fn")
            each = each.f_back
        return None
