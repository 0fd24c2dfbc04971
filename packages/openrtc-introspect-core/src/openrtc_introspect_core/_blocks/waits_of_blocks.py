"""The wait of one loop's thread, as it was seen in the span that holds the loop, or that did so last."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._base.clock import perf_counter
from .._waits.blocked_loop import BlockedLoop, LoopWait

INTERVAL_S = 1.0
"""Seconds between two looks at what the thread waits for."""
MAX_COST = 20.0
"""A look is followed by a pause of so many times its own length."""
WAITING = frozenset({"sync-call", "callback", None})
"""Causes of blocks in which the loop's thread may have waited for something."""

NOTHING = LoopWait(None, None)


@dataclass(slots=True)
class _Span:
    """What was seen in one span that held the loop."""

    since: float
    """When it began."""
    due: float = -math.inf
    """When it is to be looked at again."""
    latest: LoopWait | None = None
    """What the last look has seen. None: it waited for nothing."""
    last: LoopWait | None = None
    """The last wait that was seen."""


class WaitsOfBlocks:
    """Looks while something holds the loop, on the watchdog's thread. Read from any thread."""

    def __init__(self, blocked: BlockedLoop) -> None:
        self._blocked = blocked
        self._span = _Span(-math.inf)
        self._before = self._span
        """The span before: when a step has ended, and before it is recorded, the watchdog sees its iteration."""

    def see(self, since: float, now: float) -> None:
        """Look, if it is time to, at what the thread waits for in the span that began at `since`. Clock readings."""
        span = self._span if since == self._span.since else _Span(since)
        if now < span.due:
            return
        began = perf_counter()
        wait = self._blocked.look()
        span.due = now + max(INTERVAL_S, MAX_COST * (perf_counter() - began))
        span.latest, span.last = wait, wait or span.last
        if span is not self._span:
            self._before, self._span = self._span, span

    def of(self, since: float, cause: str | None, *, over: bool) -> LoopWait:
        """Return what the thread waited for in the span that began at `since`.

        over: last of all; else it is what it waits for now. Both fields are None if it was nothing, or if that was not
        what held the loop, by the block's cause.
        """
        span = next((each for each in (self._span, self._before) if each.since == since), None)
        if span is None or cause not in WAITING:
            return NOTHING
        return (span.last if over else span.latest) or NOTHING
