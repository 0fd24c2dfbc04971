"""Snapshots: from accounts and probes to what is shown.

Built on any thread while the loop goes on. Rates look one to two seconds back, to the marks that
`tick` leaves about once a second.
"""

from __future__ import annotations

import itertools
import os
import platform
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ._asyncio import AsyncioHook, loop_name
from ._blocks import BlockLog
from ._clock import WallTime
from ._ledger import Ledger, Standing
from ._sessions import Session, SessionTable, percent
from ._settings import Settings
from .wire._messages import (
    LagMethod,
    LoopTime,
    SessionRow,
    Snapshot,
    Status,
    WorkerInfo,
)

if TYPE_CHECKING:
    from ._detector import Detector
    from ._host import HostVitals
    from ._memory import ShareOfRss
    from ._sampler import Sampler
    from ._usage import ThreadUsage
    from ._watchdog import Watchdog

MARK_INTERVAL_S = 1.0
LAG_WINDOW_S = 60.0
_ROWS_PER_BREATH = 128


@dataclass(slots=True)
class Costs:
    """What introspection itself has used so far."""

    step_s: float = 0.0
    """Seconds that metering adds to one step, measured at the start."""
    thread_s: float = 0.0
    """CPU seconds of the service thread, the sampler's not included."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Totals at one moment."""

    when: float
    sessions: float
    untagged: float
    gc: float
    idle: float | None
    cost: float


@dataclass(slots=True)
class Reporter:
    """Everything a snapshot is made from."""

    settings: Settings
    wall: WallTime
    sessions: SessionTable
    ledger: Ledger
    hook: AsyncioHook
    blocks: BlockLog
    detector: Detector
    usage: ThreadUsage
    memory: ShareOfRss
    host: HostVitals
    sampler: Sampler | None
    watchdog: Watchdog | None
    notes: Callable[[], list[str]]
    costs: Costs = field(default_factory=Costs)
    draining: bool = False
    epoch: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    _started: float = 0.0
    _marks: tuple[Mark, Mark] = field(init=False)
    _memory_due: float = float("-inf")
    _mark_due: float = float("-inf")
    _sorted_waits: tuple[float, float, list[float]] = field(default=(float("-inf"), 0.0, []))
    _sequence: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        mark = self._mark(self.ledger.standing())
        self._started = mark.when
        self._marks = (mark, mark)

    # --- once a second ---------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Takes the samples that are due. Called by the service thread."""
        # A little early is better than a whole interval late.
        if now >= self._memory_due - 0.05 * self.settings.memory_interval_s:
            self._memory_due = now + self.settings.memory_interval_s
            self.memory.sample(now, list(self.sessions.live.values()))
        if now >= self._mark_due - 0.05:
            self._mark_due = now + MARK_INTERVAL_S
            self.host.sample(now, self._accounted_cpu())
            if self.sessions.live:  # without sessions there is no block that it would be evidence for
                self.detector.pressure.mark()
            self.sessions.retire()
            standing = self.ledger.standing()
            self._marks = (self._marks[1], self._mark(standing))
            for session in list(self.sessions.live.values()):
                session.mark(standing.now, self.ledger.busy_of(session, standing))

    def _accounted_cpu(self) -> float | None:
        """CPU seconds of the loop's thread and of our own; None where the platform does not tell."""
        loop_s = self.usage.read().cpu_s
        return loop_s + self._threads_cpu() if loop_s is not None else None

    def _threads_cpu(self) -> float:
        threads = (self.sampler, self.watchdog)
        return self.costs.thread_s + sum(thread.cpu_s for thread in threads if thread is not None)

    def _mark(self, standing: Standing) -> Mark:
        busy, steps = self.sessions.totals(lambda account: self.ledger.busy_of(account, standing))
        untagged = self.ledger.untagged
        cost = self._threads_cpu()
        if self.settings.cpu == "exact":
            cost += (steps + untagged.steps) * self.costs.step_s
        return Mark(
            when=standing.now,
            sessions=busy,
            untagged=self.ledger.busy_of(untagged, standing),
            gc=self.ledger.gc.busy,
            idle=self.hook.idle(standing.now),
            cost=cost,
        )

    # --- on demand -------------------------------------------------------------------------------

    def snapshot(self, *, breathe: bool = False) -> Snapshot:
        """Everything now. `breathe`: give the GIL away now and then, when not on the loop's thread."""
        standing = self.ledger.standing()
        now = standing.now
        live = list(self.sessions.live.values())
        in_progress = self.detector.in_progress(standing)
        blocked = in_progress.session_id if in_progress is not None else None
        return Snapshot(
            seq=next(self._sequence),
            taken_at=self.wall.at(now),
            worker=self._worker(standing, len(live)),
            sessions=self._rows(live, standing, blocked, breathe=breathe),
            blocks_in_progress=[in_progress] if in_progress is not None else [],
        )

    def _rows(self, live: list[Session], standing: Standing, blocked: str | None, *, breathe: bool) -> list[SessionRow]:
        now = standing.now
        share = self.memory.rss_mb / len(live) if live else 0.0
        metered = self.settings.cpu != "off"
        delays = self.detector.victims.known
        at = self.wall.at
        rows = []
        for index, session in enumerate(live):
            busy = self.ledger.busy_of(session, standing)
            if share > session.peak_mb:
                session.peak_mb = share
            status: Status = "active"
            if session.session_id == blocked:
                status = "blocked"
            elif now < session.slow_until:
                status = "slow"
            elif self.draining:
                status = "draining"
            rows.append(
                SessionRow(
                    session_id=session.session_id,
                    agent_name=session.agent_name,
                    tenant=session.tenant,
                    started_at=at(session.started),
                    duration_s=max(0.0, now - session.started),
                    cpu_pct=session.share(now, busy) if metered else None,
                    cpu_s=busy if metered else None,
                    steps=session.steps if metered else None,
                    tasks=session.tasks,
                    mem_mb=share,
                    peak_mb=session.peak_mb,
                    status=status,
                    blocks=session.blocks,
                    worst_block_ms=1000.0 * session.worst_block,
                    delayed_s=session.delayed if delays else None,
                    worst_delay_ms=1000.0 * session.worst_delay if delays else None,
                )
            )
            if breathe and index % _ROWS_PER_BREATH == _ROWS_PER_BREATH - 1:
                _breathe()
        return rows

    def _worker(self, standing: Standing, live: int) -> WorkerInfo:
        now = standing.now
        p99, longest, method = self._lag(now)
        mark = self._mark(standing)
        before = self._marks[0]
        return WorkerInfo(
            name=self.settings.name,
            pid=os.getpid(),
            epoch=self.epoch,
            loop=loop_name(self.hook.loop),
            python=platform.python_version(),
            started_at=self.wall.at(self._started),
            uptime_s=now - self._started,
            cpu=self.settings.cpu,
            memory=self.settings.memory,
            slow_session_threshold_ms=1000.0 * self.settings.threshold_s,
            sessions=live,
            max_sessions=self.settings.max_sessions,
            started=self.sessions.started,
            errored=self.sessions.errored,
            blocks=self.blocks.last_seq,
            draining=self.draining,
            rss_mb=self.memory.rss_mb,
            rss_trend_mb_per_min=self.memory.trend_mb_per_min(),
            memory_limit_mb=self.settings.memory_limit_mb,
            loop_time=self._loop_time(before, mark),
            lag_p99_ms=p99,
            lag_max_ms=longest,
            lag_method=method,
            introspection_pct=percent(mark.cost - before.cost, now - before.when) if now > before.when else None,
            host=self.host.now(),
            notes=[*self.notes(), *filter(None, (self.memory.trouble, self.host.trouble))],
        )

    def _loop_time(self, before: Mark, mark: Mark) -> LoopTime:
        span = mark.when - before.when
        if span <= 0.0:
            return LoopTime()
        idle = mark.idle - before.idle if mark.idle is not None and before.idle is not None else None
        idle_pct = percent(idle, span) if idle is not None else None
        gc = mark.gc - before.gc
        if self.settings.cpu != "exact":
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

    def _lag(self, now: float) -> tuple[float | None, float | None, LagMethod | None]:
        """(p99 ms, longest ms, method): how long something that becomes ready at a random moment waits.

        Iterations: a moment that falls at random into an iteration of length d waits for its rest, so
        of all moments in the window T the share sum(max(0, d - x)) / T waits longer than x. The p99
        is the x at which that is one in a hundred. Heartbeats are such moments themselves.
        """
        window, waits = self._waits(now)
        if window <= 0.0:
            return None, None, None
        if not self.hook.times_iterations:
            if not waits:
                return None, None, None
            return 1000.0 * waits[len(waits) // 100], 1000.0 * waits[0], "heartbeat"
        stuck = self.hook.stuck_since(now)
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
                return 1000.0 * max(0.0, x), longest, "iterations"
        return 0.0, longest, "iterations"

    def _waits(self, now: float) -> tuple[float, list[float]]:
        """(window in seconds, the waits in it, longest first), at most a second old: sorting them takes a while."""
        sorted_at, window, waits = self._sorted_waits
        if now - sorted_at < MARK_INTERVAL_S:
            return window, waits
        kept = list(self.hook.long_waits)
        window = min(LAG_WINDOW_S, now - self._started)
        if len(kept) == self.hook.long_waits.maxlen:
            window = min(window, now - kept[0][0])
        waits = sorted((seconds for when, seconds in kept if now - when <= window), reverse=True)
        self._sorted_waits = now, window, waits
        return window, waits


def _breathe() -> None:
    # A pause of any length gives the GIL to the loop's thread, should it wait for it; without it,
    # that takes the switch interval of 5 ms. A pause of 0 would be taken back before it wakes.
    time.sleep(1e-6)
