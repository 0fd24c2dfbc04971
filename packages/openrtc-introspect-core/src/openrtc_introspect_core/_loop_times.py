"""Where one loop's time went over the last one to two seconds, and how late it is."""

from __future__ import annotations

from typing import NamedTuple

from ._gil import copied
from ._hook import LoopHook
from ._ledger import Standing
from ._sessions import percent
from .wire._messages import CpuMethod, LagMethod, LoopTime

MARK_INTERVAL_S = 1.0
LAG_WINDOW_S = 60.0


class Mark(NamedTuple):
    """Totals of one loop at one moment."""

    when: float
    sessions: float
    untagged: float
    gc: float
    idle: float | None
    steps: int


class Lag(NamedTuple):
    """How long something that becomes ready at a random moment waits; None: nothing measured it."""

    p99_ms: float | None = None
    longest_ms: float | None = None
    method: LagMethod | None = None


class LoopTimes:
    """Of one loop. `tick` is the service thread's; the rest is for any."""

    def __init__(self, hook: LoopHook, cpu: CpuMethod) -> None:
        self._hook = hook
        self._ledger = hook.ledger
        self._cpu = cpu
        self.begin()
        self._sorted_waits: tuple[float, float, list[float]] = (float("-inf"), 0.0, [])

    def begin(self) -> None:
        """What is told is of the time from now on."""
        mark = self.mark(self._ledger.standing())
        self._started = mark.when
        self._marks = (mark, mark)

    def tick(self, mark: Mark) -> None:
        """Called about once a second."""
        self._marks = (self._marks[1], mark)

    def mark(self, standing: Standing) -> Mark:
        ledger = self._ledger
        busy, steps = ledger.totals(standing)
        return Mark(
            when=standing.now,
            sessions=busy,
            untagged=ledger.busy_of(ledger.untagged, standing),
            gc=ledger.gc.busy,
            idle=self._hook.idle(standing.now),
            steps=steps + ledger.untagged.steps,
        )

    def shares(self, mark: Mark) -> LoopTime:
        """Where the time went until `mark`."""
        before = self._marks[0]
        span = mark.when - before.when
        if span <= 0.0:
            return LoopTime()
        idle = mark.idle - before.idle if mark.idle is not None and before.idle is not None else None
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

    def lag(self, now: float) -> Lag:
        """Iterations: a moment that falls at random into an iteration of length d waits for its rest, so
        of all moments in the window T the share sum(max(0, d - x)) / T waits longer than x. The p99
        is the x at which that is one in a hundred. Heartbeats are such moments themselves.
        """
        window, waits = self._waits(now)
        if window <= 0.0:
            return Lag()
        if not self._hook.times_iterations:
            return Lag(1000.0 * waits[len(waits) // 100], 1000.0 * waits[0], "heartbeat") if waits else Lag()
        stuck = self._hook.stuck_since(now)
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
        """(window in seconds, the waits in it, longest first), at most a second old: sorting them takes a while."""
        sorted_at, window, waits = self._sorted_waits
        if now - sorted_at < MARK_INTERVAL_S:
            return window, waits
        kept = copied(self._hook.long_waits)
        window = min(LAG_WINDOW_S, now - self._started)
        if len(kept) == self._hook.long_waits.maxlen:
            window = min(window, now - kept[0][0])
        waits = sorted((seconds for when, seconds in kept if now - when <= window), reverse=True)
        self._sorted_waits = now, window, waits
        return window, waits


def mean_of(times: list[LoopTime]) -> LoopTime:
    """Of all loops' time, where it went. A part that one of them does not tell is not told."""

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


def worst_of(lags: list[Lag]) -> Lag:
    """That of the loop where things wait the longest."""
    return max(lags, key=lambda lag: (lag.p99_ms is not None, lag.p99_ms or 0.0, lag.longest_ms or 0.0), default=Lag())
