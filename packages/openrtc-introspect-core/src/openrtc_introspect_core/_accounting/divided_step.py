"""The step under way as blocks see it: when it began, whoever held the loop at first, and its parts.

A step has several holders if an eager task begins in its middle, a scope is entered or left, or a collection runs. Of
its parts the sums are kept, so their number has no bound.
"""

from __future__ import annotations

from collections.abc import Callable

from .account import Account
from .fields import LedgerFields
from .span_log import Seconds, SpanLog
from .spans import NOTABLE_S, LedgerReading, Overrun
from .suspended_step import SuspendedStep


class DividedStep(LedgerFields):
    """The part of a ledger that knows the step under way. Only the loop's thread writes."""

    __slots__ = ("parked", "spans")

    def __init__(self, limit: float, on_overrun: Callable[[Overrun], None]) -> None:
        self.spans = SpanLog(limit, on_overrun)
        self.step_since: float | None = None
        """When the step under way began, if it has had other holders before. None: at `holder_since`.

        It holds until the next step begins, which takes the slow path for its sake."""
        self.parts: Seconds = {}
        """The parts of such a step up to the last switch."""
        self.parked = Account()
        """Stands in as the holder while the threads that observe the loop sleep."""

    def divide(self, holder: Account, seconds: float) -> None:
        """Count a part of the step under way, up to now, for `holder`. The caller sets `holder_since`."""
        if self.step_since is None:
            self.rest_begins(self.holder_since)
        self.parts[holder] = self.parts.get(holder, 0.0) + seconds

    def rest_begins(self, now: float) -> None:
        """Let the step under way be one that began `now`, with no parts so far."""
        self.parts.clear()
        self.step_since = now
        self.slow_path = True  # the next step resets it, and `step_since`

    def take_parts(self) -> Seconds:
        """Return the parts of the step under way, which ends."""
        parts, self.parts, self.step_since = self.parts, {}, None
        return parts

    def note(self, current: Account, outside: Account | None, start: float, since: float, end: float) -> None:
        """Take account, for blocks, of a step that was charged: of a notable one, or one inside of another.

        current: the account that had the step last, since `since`. outside: the holder inside of whose step it ran.
        start, end: of the step. All times are clock readings.
        """
        went_on = type(current) is SuspendedStep
        if isinstance(current, SuspendedStep):
            current, start = current.holder, since
        is_part = outside is not None and not (type(outside) is SuspendedStep and outside.runs_others())
        if is_part and not went_on:  # the step around it reports, once, for both
            self.divide(current, end - since)
            return
        if self.step_since is None:
            shares = {current: end - start}
        else:
            self.divide(current, end - since)
            start, shares = self.step_since, self.take_parts()
        if is_part:  # others ran in its middle, and in that of the step around it
            self.rest_begins(end)
        if end - start > NOTABLE_S:
            self.spans.ended(start, end, shares)

    def stands_in(self, current: Account) -> bool:
        """Return whether `current` only stands in for a holder, and is never charged."""
        return current is self.parked or current is self.unsampled

    def read(self) -> LedgerReading:
        """Return the holder and its time until now. From any thread."""
        for _ in range(8):
            current, since, step_since = self.holder, self.holder_since, self.step_since
            suspended = current if type(current) is SuspendedStep else None
            holder = suspended.holder if suspended is not None else current
            charged_until, charged = (holder.last_step, holder.busy) if holder is not None else (since, 0.0)
            parts = {} if step_since is None else dict(self.parts)
            now = self.clock()
            unchanged = current is self.holder and since == self.holder_since and step_since == self.step_since
            if unchanged and (holder is None or charged_until == holder.last_step):
                break
        if holder is None or self.stands_in(holder):
            return LedgerReading(now, None, now, 0.0, {})
        weight = suspended.weight if suspended is not None else self.weight
        # Without a GIL, a step that has ended and is charged may have its holder still.
        held = max(0.0, now - (since if suspended is not None else max(since, charged_until)))
        parts[holder] = parts.get(holder, 0.0) + held
        return LedgerReading(now, holder, since if step_since is None else step_since, charged + weight * held, parts)
