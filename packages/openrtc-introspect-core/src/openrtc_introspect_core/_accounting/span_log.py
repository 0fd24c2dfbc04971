"""What a ledger keeps of steps for the blocks of its loop: sums by holder, whatever the number of steps.

A step that had several holders is one block if it overran: of the account that held most of it, or of none.
"""

from __future__ import annotations

from collections.abc import Callable

from .account import Account
from .spans import Overrun

Seconds = dict[Account, float]
"""Seconds by holder."""


class SpanLog:
    """The steps of one loop. Written by the loop's thread, read from any."""

    __slots__ = ("before_overrun", "counts_from", "limit", "on_overrun", "steps")

    def __init__(self, limit: float, on_overrun: Callable[[Overrun], None]) -> None:
        self.limit = limit
        """Seconds that a step may take. For a longer one, `on_overrun` is called: once, whatever ran inside of it."""
        self.on_overrun = on_overrun
        self.steps: Seconds = {}
        """The notable steps since the last overrun, or since the loop last waited (on uvloop: since `counts_from`)."""
        self.before_overrun: Seconds = {}
        """Those before it, up to the last overrun. None of the two has the steps that overran."""
        self.counts_from = 0.0
        """Steps that ended before this clock reading are not kept: the heartbeat was not due."""

    def ended(self, start: float, end: float, shares: Seconds) -> None:
        """Keep a notable step, and report an overrun.

        start, end: clock readings. shares: its seconds by holder.
        """
        if end - start > self.limit:
            add_seconds(self.before_overrun, self.steps)
            self.steps.clear()
            holder = max(shares, key=shares.__getitem__)
            self.on_overrun(Overrun(holder if 2 * shares[holder] >= end - start else None, start, end, shares))
        elif end > self.counts_from:
            add_seconds(self.steps, shares)

    def take_iteration(self) -> Seconds:
        """Return all steps that are kept, for the iteration that ends."""
        steps, self.before_overrun = self.before_overrun, {}
        add_seconds(steps, self.steps)
        return steps

    def begin_heartbeat(self, due: float) -> None:
        """Keep the steps that end after `due`, a clock reading, from now on."""
        self.counts_from = due
        self.steps.clear()
        self.before_overrun.clear()


def add_seconds(total: Seconds, more: Seconds) -> None:
    """Add seconds by holder to others."""
    for holder, seconds in dict(more).items():  # a copy: a collection meanwhile adds itself to the steps
        total[holder] = total.get(holder, 0.0) + seconds
