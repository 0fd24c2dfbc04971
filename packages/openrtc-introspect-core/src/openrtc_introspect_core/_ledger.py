"""Who holds the event loop: charge on switch.

One ledger per loop. Whoever holds the loop is charged from the last switch to this one, so nested
holders (an eager task started in mid-step, a scope entered in mid-step) are never counted twice.

    loop, callbacks      running is None; their time is what is left of wall time
    a step begins        the meter sets running to the session bound now, or to `untagged`
    a scope in mid-step  switch(): charges the holder so far, and goes on with the next
    a step ends          the meter charges running and restores the holder outside

The meter inlines these few lines for its own steps (see _meter.py); the slow ways are here. Only
the loop's thread writes. Other threads read while it writes: `standing` reads twice and takes what
did not change in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from ._clock import Clock
from ._sessions import Account, Binding


class Span(NamedTuple):
    """A part of a step, charged to one holder."""

    holder: Account
    start: float
    end: float


class Standing(NamedTuple):
    """What a ledger says at one moment."""

    now: float
    running: Account | None
    since: float
    """When `running` began to hold the loop; in a step with several holders, when the step began."""
    unbooked: float
    """Seconds of the span in progress, not yet in `running.busy`."""


class Ledger:
    """The books of one event loop."""

    __slots__ = ("binding", "clock", "idle", "limit", "on_overrun", "running", "since", "spans", "untagged")

    def __init__(
        self,
        binding: Binding,
        clock: Clock,
        limit: float,
        on_overrun: Callable[[Account | None, float, float], None],
    ) -> None:
        self.binding = binding
        """Where a step looks which session is bound."""
        self.clock = clock
        self.limit = limit
        """Seconds a step may take before `on_overrun` is called."""
        self.on_overrun = on_overrun
        """(holder, start, end): called for a step over the limit, once for nested ones."""
        self.untagged = Account()
        self.idle: float | None = None
        """Seconds the loop has waited for events; None where the loop does not tell."""
        self.running: Account | None = None
        self.since = clock()
        self.spans: deque[Span] = deque(maxlen=64)
        """Parts of recent steps with several holders, oldest first."""

    def switch(self, holder: Account) -> None:
        """In mid-step: the loop is `holder`'s from now on."""
        running = self.running
        if running is None or running is holder:
            return
        now = self.clock()
        running.busy += now - self.since
        self.spans.append(Span(running, self.since, now))
        self.running = holder
        self.since = now

    def begin(self, holder: Account) -> tuple[Account | None, float]:
        """A step begins. Returns what `end` wants back."""
        now = self.clock()
        outside = self.running
        if outside is not None:
            outside.busy += now - self.since
        self.running = holder
        self.since = now
        return outside, now

    def end(self, outside: Account | None, start: float) -> None:
        """A step that began at `start` ends."""
        now = self.clock()
        running = self.running
        if running is not None:
            running.busy += now - self.since
            running.steps += 1
        if now - start > self.limit:
            self.overran(running, outside, start, now)
        self.running = outside
        self.since = now

    def overran(self, running: Account | None, outside: Account | None, start: float, end: float) -> None:
        """A step took longer than the limit; `since` is still its last holder's."""
        if running is None:
            return
        if outside is not None:  # it ran inside another's step: that one reports, once, for both
            self.spans.append(Span(running, self.since, end))
            return
        shares: dict[Account, float] = {running: end - self.since}
        for span in self.spans:
            if span.start >= start:
                shares[span.holder] = shares.get(span.holder, 0.0) + span.end - span.start
        self.spans.clear()
        # A step with several holders is the block of the one that held most of it, or of none.
        holder = max(shares, key=shares.__getitem__)
        self.on_overrun(holder if 2 * shares[holder] >= end - start else None, start, end)

    def standing(self) -> Standing:
        """The holder and its unbooked time now, readable from any thread."""
        for _ in range(8):
            running, since = self.running, self.since
            now = self.clock()
            if running is self.running and since == self.since:
                break
        if running is None:
            return Standing(now, None, now, 0.0)
        began = since
        for span in reversed(_copy(self.spans)):
            if span.end != began:
                break
            began = span.start
        return Standing(now, running, began, max(0.0, now - since))

    def busy_of(self, account: Account, standing: Standing) -> float:
        """Seconds charged to `account`, the span in progress included."""
        return account.busy + (standing.unbooked if account is standing.running else 0.0)


def _copy(spans: deque[Span]) -> tuple[Span, ...]:
    try:
        return tuple(spans)
    except RuntimeError:  # it grew while it was copied, from another thread
        return ()
