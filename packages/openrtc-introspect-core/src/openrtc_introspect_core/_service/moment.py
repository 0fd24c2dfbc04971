"""One moment of all loops: readings of their ledgers, microseconds apart."""

from __future__ import annotations

from typing import NamedTuple

from .._accounting.account import Account
from .._accounting.spans import LedgerReading
from .._base.clock import Clock
from .._sessions.session import Session
from .attached_loop import AttachedLoop
from .attached_loops import AttachedLoops
from .loop_statistics import Mark


class Moment(NamedTuple):
    """The readings of all attached loops."""

    now: float
    loops: list[tuple[AttachedLoop, LedgerReading, Mark]]
    in_progress: dict[Account, float]
    """Seconds charged to each account that holds a loop now, the span in progress included."""

    def busy_of(self, session: Session) -> float:
        """Return the seconds that the session has held loops until now."""
        return sum(self.in_progress.get(account, account.busy) for account in session.accounts)


def read_moment(loops: AttachedLoops, clock: Clock) -> Moment:
    """Read all ledgers now. From any thread."""
    readings = []
    for loop in loops:
        reading = loop.ledger.read()
        readings.append((loop, reading, loop.times.mark(reading)))
    now = readings[-1][1].now if readings else clock()
    holding = {reading.holder: reading.busy for _, reading, _ in readings if reading.holder is not None}
    return Moment(now, readings, holding)
