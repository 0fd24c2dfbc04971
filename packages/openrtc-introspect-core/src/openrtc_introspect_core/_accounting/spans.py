"""The records that a ledger gives out: overruns and readings."""

from __future__ import annotations

from typing import NamedTuple

from .account import Account

NOTABLE_S = 100e-6
"""Seconds. Shorter steps are not kept for blocks: keeping one would cost as much as a part of such a step."""


def seconds_within(seconds: float, since: float, until: float, start: float, end: float) -> float:
    """Return how many of the seconds that lie between `since` and `until` are between `start` and `end`.

    They are taken for evenly distributed. The spans overlap; all but the first are clock readings.
    """
    return seconds * (min(end, until) - max(start, since)) / (until - since) if until > since else 0.0


class Overrun(NamedTuple):
    """A step that took longer than the limit. Clock readings."""

    holder: Account | None
    """The account that held most of it; None: none held half of it."""
    start: float
    end: float
    shares: dict[Account, float]
    """Seconds of the step, by holder."""


class LedgerReading(NamedTuple):
    """A ledger at one moment. Clock readings."""

    now: float
    holder: Account | None
    """None: no step is under way, or a step that is not sampled."""
    holder_since: float
    """When the step under way began, whoever held the loop at first."""
    busy: float
    """Seconds charged to `holder`, the span in progress included."""
    shares: dict[Account, float]
    """Seconds of the step under way, by holder."""

    def busy_of(self, account: Account) -> float:
        """Return the seconds charged to `account`, the span in progress included."""
        return self.busy if account is self.holder else account.busy
