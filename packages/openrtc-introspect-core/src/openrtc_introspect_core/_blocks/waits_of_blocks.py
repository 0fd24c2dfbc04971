"""The wait of one loop's thread, as it was seen in the span that holds the loop, or that did so last."""

from __future__ import annotations

import math

from .._base.clock import perf_counter
from .._waits.blocked_loop import BlockedLoop, LoopWait

INTERVAL_S = 1.0
"""Seconds between two looks at what the thread waits for."""
MAX_COST = 20.0
"""A look is followed by a pause of so many times its own length."""
WAITING = frozenset({"sync-call", "callback", None})
"""Causes of blocks in which the loop's thread may have waited for something."""

NOTHING = LoopWait(None, None)


class WaitsOfBlocks:
    """Looks while something holds the loop, on the watchdog's thread. Read from any thread."""

    def __init__(self, blocked: BlockedLoop) -> None:
        self._blocked = blocked
        self._since = -math.inf
        """When the span began."""
        self._due = -math.inf
        """When it is to be looked at again."""
        self._latest: LoopWait | None = None
        """What the last look has seen. None: it waited for nothing."""
        self._last: LoopWait | None = None
        """The last wait that was seen in the span."""

    def see(self, since: float, now: float) -> None:
        """Look, if it is time to, at what the thread waits for in the span that began at `since`. Clock readings."""
        if since == self._since and now < self._due:
            return
        began = perf_counter()
        wait = self._blocked.look()
        if since != self._since:
            self._latest = self._last = None
            self._since = since
        self._due = now + max(INTERVAL_S, MAX_COST * (perf_counter() - began))
        self._latest, self._last = wait, wait or self._last

    def of(self, since: float, cause: str | None, *, over: bool) -> LoopWait:
        """Return what the thread waited for in the span that began at `since`.

        over: last of all; else it is what it waits for now. Both fields are None if it was nothing, or if that was not
        what held the loop, by the block's cause.
        """
        if since != self._since or cause not in WAITING:
            return NOTHING
        return (self._last if over else self._latest) or NOTHING
