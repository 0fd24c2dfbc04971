"""Who was kept waiting by a block: read from the loop's own queues at the moment it ends.

On loops written in Python: what is in the ready queue has waited since before the block or since the
block itself made it ready; a timer that is overdue has waited since it was due, which it tells. What
the next look at the sockets finds ready has waited for some unknown part of the block. Loops that
keep their queues to themselves (uvloop) tell nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Any

from ._gil import copied
from ._sessions import Binding, Session
from .wire._messages import MAX_DELAYED, Delayed


class QueuesOfLoop:
    """What one asyncio loop's queues tell."""

    def __init__(self, loop: asyncio.AbstractEventLoop, binding: Binding) -> None:
        self._loop = loop
        self._binding = binding
        self.known = hasattr(loop, "_ready") and hasattr(loop, "_scheduled")
        """Whether this loop tells."""

    def waiting(self, seconds: float) -> dict[Session, float]:
        """The sessions that wait now, at the end of a block of so many seconds, and for how long."""
        waits: dict[Session, float] = {}
        now = self._loop.time()
        for handle in copied(getattr(self._loop, "_ready", deque())):  # other threads call soon, too
            self._note(waits, handle, seconds)
        for timer in _overdue(getattr(self._loop, "_scheduled", ()), now):
            self._note(waits, timer, min(seconds, now - timer._when))
        return waits

    def _note(self, waits: dict[Session, float], handle: Any, seconds: float) -> None:
        context = getattr(handle, "_context", None)
        if context is None or handle.cancelled():
            return
        session = context.get(self._binding)
        if session is not None and not session.ended:
            waits[session] = max(seconds, waits.get(session, 0.0))

    def ready(self, events: Any) -> set[Session]:
        """The sessions whose sockets the selector has just found ready."""
        found: dict[Session, float] = {}
        for key, _ in events:
            for handle in key.data if isinstance(key.data, tuple) else ():
                if handle is not None:
                    self._note(found, handle, 0.0)
        return set(found)


def charge(waits: dict[Session, float], culprit: Session | None, *, exact: bool = True) -> list[Delayed]:
    """Books the waits to the sessions; those that waited longest, in that order, for the block to name.

    Where only a bound is known, half of it counts.
    """
    longest = sorted((wait for wait in waits.items() if wait[0] is not culprit), key=lambda wait: -wait[1])
    for session, seconds in longest:
        session.was_delayed(seconds, exact=exact)
    return [Delayed(session.session_id, 1000.0 * seconds, exact) for session, seconds in longest[:MAX_DELAYED]]


def _overdue(timers: Any, now: float) -> Iterator[Any]:
    """The timers of a heap that are due: its root's descendants, as long as they are."""
    pending = [0]
    while pending:
        index = pending.pop()
        if index < len(timers) and timers[index]._when <= now:
            yield timers[index]
            pending += (2 * index + 1, 2 * index + 2)
