"""The division of a session's wall time: it runs, is delayed, or waits, by what for."""

from __future__ import annotations

from .._sessions.session import Session
from ..wire._messages import WaitedFor, WallTime
from .wait_sampler import NAMES


def wall_time(session: Session, now: float, *, busy: float, delays_known: bool, passed: float) -> WallTime:
    """Return the division at the clock reading `now`. Its parts add up to the whole, and none is below 0.

    busy: seconds for which the session's steps have held loops. delays_known: whether the session's loop shows who is
    delayed. passed: clock reading of the last round of samples.
    """
    total = max(0.0, now - session.started)
    running = min(busy, total)  # on several loops its steps may run at the same time
    delayed = min(session.delayed, total - running) if delays_known else 0.0
    rest = total - running - delayed
    waited = _waited(session, now, rest, passed)
    seen = sum(waited.values())
    scale = min(1.0, rest / seen) if seen else 1.0  # blocks are charged when they end, maybe after a sample
    parts = {kind: scale * seconds for kind, seconds in waited.items()}
    unknown = max(0.0, rest - sum(parts.values()))
    queued, in_threads = parts.pop("executor", 0.0), parts.pop("thread", 0.0)
    return WallTime(
        total_s=total,
        running_s=running,
        delayed_s=delayed if delays_known else None,
        queued_s=queued,
        in_threads_s=in_threads,
        waited=[
            WaitedFor(kind=kind, seconds=parts[kind]) for kind in sorted(parts, key=parts.__getitem__, reverse=True)
        ],
        unknown_s=unknown,
    )


def _waited(session: Session, now: float, rest: float, passed: float) -> dict[str, float]:
    """Return the seconds that the session has waited, by kind, as far as samples show."""
    waited = session.waited
    if waited is None:
        return {}
    until = now if waited.holds(session.steps, session.last_step) else passed
    return {NAMES[kind]: seconds for kind, seconds in waited.seconds(rest, until).items() if seconds > 0.0}
