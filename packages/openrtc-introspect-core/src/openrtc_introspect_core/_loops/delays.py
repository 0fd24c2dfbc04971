"""The sessions that a block delayed.

They are read from the loop's own queues at the moment the block ends.

On loops written in Python the ready queue, the timers and the selector are read. A callback in the ready queue has
waited since before the block, or since the block itself made it ready. A timer that is overdue has waited since its
due time. A socket that the next `select` finds ready has waited for an unknown part of the block. On loops that do
not show their queues (uvloop), delayed sessions are not known.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Any

from .._base.gil import copied
from .._sessions.session import Binding, Session
from ..wire._messages import MAX_DELAYED, Delayed


class AsyncioDelays:
    """The delayed sessions of one asyncio loop, from its queues."""

    def __init__(self, loop: asyncio.AbstractEventLoop, binding: Binding) -> None:
        self._loop = loop
        self._binding = binding
        self.available = hasattr(loop, "_ready") and hasattr(loop, "_scheduled")
        """Whether this loop shows its queues."""

    def waiting(self, seconds: float) -> dict[Session, float]:
        """Return the waits, in seconds, at the end of a block of `seconds`."""
        waits: dict[Session, float] = {}
        now = self._loop.time()
        for handle in copied(getattr(self._loop, "_ready", deque())):  # other threads may add to it meanwhile
            self._note(waits, handle, seconds)
        for timer in overdue(getattr(self._loop, "_scheduled", ()), now):
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
        """Return the sessions whose sockets the selector has just found ready."""
        found: dict[Session, float] = {}
        for key, _ in events:
            for handle in key.data if isinstance(key.data, tuple) else ():
                if handle is not None:
                    self._note(found, handle, 0.0)
        return set(found)


def charge_delays(waits: dict[Session, float], culprit: Session | None, *, exact: bool = True) -> list[Delayed]:
    """Charge the waits to the sessions.

    Return those that waited longest, in that order, for the block to name.

    The culprit's own wait does not count, nor that of tasks whose session is over. Without `exact` the waits are upper
    bounds, of which half is charged.
    """
    of_live = [wait for wait in waits.items() if not wait[0].ended]
    longest = sorted((wait for wait in of_live if wait[0] is not culprit), key=lambda wait: -wait[1])
    for session, seconds in longest:
        session.was_delayed(seconds, exact=exact)
    return [Delayed(session.session_id, 1000.0 * seconds, exact) for session, seconds in longest[:MAX_DELAYED]]


def overdue(timers: Any, now: float) -> Iterator[Any]:
    """Yield the timers of a heap that are due.

    The search goes from the root down, as far as timers are due.
    """
    pending = [0]
    while pending:
        index = pending.pop()
        if index < len(timers) and timers[index]._when <= now:
            yield timers[index]
            pending += (2 * index + 1, 2 * index + 2)
