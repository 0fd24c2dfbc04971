"""The use of one loop's time in the last seconds, and its lag in the last minute."""

from __future__ import annotations

from typing import NamedTuple

from .._accounting.spans import LedgerReading
from .._base.gil import copied
from .._base.units import percent
from .._loops.hook import LoopHook
from ..wire._messages import CpuMethod, LagMethod, LoopTime

MARK_INTERVAL_S = 1.0
LAG_WINDOW_S = 60.0


class Mark(NamedTuple):
    """Totals of one loop at one moment: seconds since it was attached, and steps."""

    when: float
    sessions: float
    untagged: float
    gc: float
    idle: float | None
    steps: int
    iterations: int | None
    """None: they are not timed, and not counted."""


class Lag(NamedTuple):
    """How long a callback that becomes ready at a random moment waits.

    None: the loop's lag is not measured.
    """

    p99_ms: float | None = None
    max_ms: float | None = None
    method: LagMethod | None = None


class LoopTimes:
    """The use of one loop's time from `begin` on.

    The service thread calls `tick`; any thread reads.
    """

    def __init__(self, hook: LoopHook, cpu: CpuMethod) -> None:
        self._hook = hook
        self._ledger = hook.ledger
        self._cpu = cpu
        self._started: float
        self._marks: tuple[Mark, Mark]
        """The last two ticks. Set, as `_started` is, by `begin`: the loop's idle time is not known before."""
        self._sorted_waits: tuple[float, float, list[float]] = (float("-inf"), 0.0, [])

    def begin(self) -> None:
        """Report the time from now on."""
        mark = self.mark(self._ledger.read())
        self._started = mark.when
        self._marks = (mark, mark)

    def tick(self, mark: Mark) -> None:
        """Remember the totals, so that `shares` covers the last one to two seconds.

        About once a second.
        """
        self._marks = (self._marks[1], mark)

    def mark(self, reading: LedgerReading) -> Mark:
        """Return the loop's totals at the moment of a ledger reading."""
        ledger = self._ledger
        busy, steps = ledger.accounts.totals(reading)
        after_end = ledger.accounts.after_end(reading)
        return Mark(
            when=reading.now,
            sessions=busy - after_end,
            untagged=reading.busy_of(ledger.untagged) + after_end,
            gc=ledger.gc.busy,
            idle=self._hook.iterations.idle(reading.now),
            steps=steps + ledger.untagged.steps,
            iterations=self._hook.iterations.count if ledger.idle is not None else None,
        )

    def shares(self, mark: Mark) -> LoopTime:
        """Return the shares of the loop's time since the last mark but one.

        They are empty if no time has passed until `mark`.
        """
        before = self._marks[0]
        span = mark.when - before.when
        if span <= 0.0:
            return LoopTime()
        idle = None
        if self._hook.iterations.timed and mark.idle is not None and before.idle is not None:
            idle = mark.idle - before.idle
        idle_pct = percent(idle, span) if idle is not None else None
        gc = mark.gc - before.gc
        if self._cpu != "exact":
            return LoopTime(gc_pct=percent(gc, span), idle_pct=idle_pct)
        sessions = mark.sessions - before.sessions
        untagged = mark.untagged - before.untagged
        return LoopTime(
            sessions_pct=percent(sessions, span),
            untagged_pct=percent(untagged, span),
            gc_pct=percent(gc, span),
            other_pct=percent(span - idle - sessions - untagged - gc, span) if idle is not None else None,
            idle_pct=idle_pct,
        )

    def iterations_per_s(self, mark: Mark) -> float | None:
        """Return the iterations a second since the last mark but one.

        None: they are not counted, or no time has passed until `mark`.
        """
        before = self._marks[0]
        span = mark.when - before.when
        if span <= 0.0 or not self._hook.iterations.timed or mark.iterations is None or before.iterations is None:
            return None
        return (mark.iterations - before.iterations) / span

    def lag(self, now: float) -> Lag:
        """Return the lag over the last minute.

        A moment that falls at random into an iteration of length d waits for the rest of the iteration. So of all
        moments in the window T, the share sum(max(0, d - x)) / T waits longer than x, and the p99 is the x at which
        this share is one in a hundred. Heartbeats are random moments themselves: their p99 is read off directly.
        """
        window, waits = self._waits(now)
        if window <= 0.0:
            return Lag()
        if not self._hook.iterations.timed:
            return Lag(1000.0 * waits[len(waits) // 100], 1000.0 * waits[0], "heartbeat") if waits else Lag()
        stuck = self._hook.iterations.stuck_since(now)
        if stuck is not None and now - stuck > 0.0:
            waits = sorted([*waits, now - stuck], reverse=True)
        longest = 1000.0 * waits[0] if waits else 0.0
        allowed = 0.01 * window
        total = 0.0
        for count, wait in enumerate(waits, start=1):
            total += wait
            following = waits[count] if count < len(waits) else 0.0
            x = (total - allowed) / count
            if x >= following:
                return Lag(1000.0 * max(0.0, x), longest, "iterations")
        return Lag(0.0, longest, "iterations")

    def _waits(self, now: float) -> tuple[float, list[float]]:
        """Return (window in seconds, the waits in it, longest first).

        The result may be a second old: sorting is expensive.
        """
        sorted_at, window, waits = self._sorted_waits
        if now - sorted_at < MARK_INTERVAL_S:
            return window, waits
        kept = copied(self._hook.iterations.long_waits)
        window = min(LAG_WINDOW_S, now - self._started)
        if len(kept) == self._hook.iterations.long_waits.maxlen:
            window = min(window, now - kept[0][0])
        waits = sorted((seconds for when, seconds in kept if now - when <= window), reverse=True)
        self._sorted_waits = now, window, waits
        return window, waits


def mean_of(times: list[LoopTime]) -> LoopTime:
    """Return the mean of all loops' shares.

    A share that one of the loops does not have is None.
    """

    def mean(parts: list[float | None]) -> float | None:
        known = [part for part in parts if part is not None]
        return sum(known) / len(known) if known and len(known) == len(parts) else None

    return LoopTime(
        sessions_pct=mean([time.sessions_pct for time in times]),
        untagged_pct=mean([time.untagged_pct for time in times]),
        gc_pct=mean([time.gc_pct for time in times]),
        other_pct=mean([time.other_pct for time in times]),
        idle_pct=mean([time.idle_pct for time in times]),
    )


def sum_of(rates: list[float | None]) -> float | None:
    """Return the sum of all loops' rates; None: there is no loop, or that of one is not known."""
    known = [rate for rate in rates if rate is not None]
    return sum(known) if known and len(known) == len(rates) else None


def worst_of(lags: list[Lag]) -> Lag:
    """Return the lag of the loop whose p99 is the longest."""
    return max(lags, key=lambda lag: (lag.p99_ms is not None, lag.p99_ms or 0.0, lag.max_ms or 0.0), default=Lag())
