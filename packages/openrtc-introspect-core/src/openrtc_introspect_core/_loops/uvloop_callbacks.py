"""The callbacks of a uvloop, which hides its queue: it is found among what the loop refers to.

The garbage collector sees the objects that a loop in C holds: one deque, its queue; and one dictionary from descriptors
to what polls them. If another version of uvloop holds others, nothing is seen.
"""

from __future__ import annotations

import gc
import select
from collections import deque
from collections.abc import Sequence
from contextvars import Context
from types import CodeType
from typing import Any

from .._os.signal_handlers import code_of
from .asyncio_callbacks import AsyncioCallbacks
from .connections import UVLOOP

MAX_POLLED = 256
"""The files that one sample asks about."""


class UvloopCallbacks(AsyncioCallbacks):
    """The callbacks of one loop. Which file is ready is asked of the system, beside the loop."""

    def queue(self) -> deque[Any] | None:
        found = [each for each in gc.get_referents(self._loop) if type(each) is deque]
        return found[0] if len(found) == 1 else None

    def overdue(self, seconds: float) -> Sequence[Any]:
        return ()

    def ready_now(self) -> list[tuple[int, int]]:
        asked = select.poll()
        for fd, polled in list(_table(self._loop, "UVPoll").items())[:MAX_POLLED]:
            reader, writer = _handles_of(polled)
            asked.register(fd, select.POLLIN * (reader is not None) | select.POLLOUT * (writer is not None))
        return [(fd, mask) for fd, mask in asked.poll(0) if not mask & select.POLLNVAL]

    def registered(self, fd: int, mask: int) -> Sequence[tuple[str, Any]]:
        polled = _table(self._loop, "UVPoll").get(fd)
        if polled is None:
            return ()
        reader, writer = _handles_of(polled)
        failed = select.POLLERR | select.POLLHUP
        wanted = ("reader", select.POLLIN, reader), ("writer", select.POLLOUT, writer)
        return [(source, handle) for source, event, handle in wanted if handle is not None and mask & (event | failed)]

    def callback_of(self, handle: Any) -> Any:
        held = _held(handle)
        return held[0] if held and not type(held[0]).__module__.startswith(UVLOOP) else None

    def context_of(self, handle: Any) -> Context | None:
        return next((each for each in gc.get_referents(handle) if type(each) is Context), None)

    def signal_callbacks(self) -> set[CodeType]:
        handles = _table(self._loop, "Handle").values()
        return {code for each in handles if (code := code_of(self.callback_of(each))) is not None}


def _table(loop: Any, kind: str) -> dict[int, Any]:
    """Return the dictionary of a loop whose values are of uvloop's class `kind`; a new one if there is none."""
    for each in gc.get_referents(loop):
        if type(each) is dict and each:
            values = [type(value) for value in list(each.values())]
            if all(value.__name__ == kind and value.__module__ == UVLOOP for value in values):
                return dict(each)
    return {}


def _held(handle: Any) -> list[Any]:
    """Return what a handle of uvloop's holds beside its loop and its context: the function, then its arguments."""
    if type(handle).__module__ != UVLOOP:
        return []
    return [each for each in gc.get_referents(handle) if type(each) is not Context][1:]


def _handles_of(polled: Any) -> tuple[Any, Any]:
    """Return the handles of reader and writer of what polls a file; None for one that there is not."""
    reader, writer = gc.get_referents(polled)[-2:]
    return reader, writer
