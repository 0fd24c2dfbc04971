"""Snapshots: from accounts and probes to what is shown.

Built on any thread while the loops go on. Rates look one to two seconds back, to the marks that
`tick` leaves about once a second. What is told of the worker as a whole is, of shares of loop time,
the mean of all its loops; of lag, the worst loop's. With one loop both are simply its own.
"""

from __future__ import annotations

import itertools
import os
import platform
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ._blocks import BlockLog
from ._budget import Budget, taken
from ._clock import Clock, WallTime
from ._failures import Failure, Failures
from ._ledger import Standing
from ._loop_times import MARK_INTERVAL_S, Lag, Mark, mean_of, worst_of
from ._sessions import MIB, Account, Session, SessionTable, percent
from ._settings import Settings
from .wire._messages import (
    Block,
    LeftBehind,
    LoopInfo,
    LoopTime,
    SessionRow,
    Snapshot,
    Status,
    WorkerInfo,
)

if TYPE_CHECKING:
    from ._attached import AttachedLoop
    from ._heap import Heap
    from ._host import HostVitals
    from ._memory import ShareOfRss
    from ._notes import Notes
    from ._sampler import Sampler
    from ._threadwork import ThreadWork
    from ._usage import HostPressure
    from ._watchdog import Watchdog

LEFT_BEHIND_S = 600.0
MAX_LEFT_BEHIND = 10
_ROWS_PER_BREATH = 128


class Moment(NamedTuple):
    """What the ledgers say at one moment, a few microseconds long."""

    now: float
    loops: list[tuple[AttachedLoop, Standing, Mark]]
    in_progress: dict[Account, float]
    """Seconds charged to those who hold a loop now, the span in progress included."""

    def busy_of(self, session: Session) -> float:
        return sum(self.in_progress.get(account, account.busy) for account in session.accounts)


@dataclass(slots=True)
class Reporter:
    """Everything a snapshot is made from."""

    settings: Settings
    clock: Clock
    wall: WallTime
    sessions: SessionTable
    failures: Failures
    loops: Sequence[AttachedLoop]
    """Those attached now, the first one first: it changes."""
    blocks: BlockLog
    pressure: HostPressure
    thread_work: ThreadWork
    heap: Heap | None
    """None: what sessions have allocated is not measured."""
    memory: ShareOfRss
    host: HostVitals
    threads: Sequence[Watchdog | Sampler]
    """Introspection's own, besides the service's."""
    notes: Notes
    budget: Budget
    service_cpu_s: float = 0.0
    """CPU seconds that the service thread has used."""
    draining: bool = False
    epoch: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    _kind: str = ""
    _started: float = 0.0
    _spent: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    _taken: dict[str, tuple[float, int]] = field(default_factory=dict)
    _gone_cost_s: float = 0.0
    _gone_cpu_s: float = 0.0
    _memory_due: float = float("-inf")
    _mark_due: float = float("-inf")
    _sequence: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self._started = self.clock()
        self._spent = (self._started, 0.0, self._started, 0.0)

    def moment(self) -> Moment:
        loops = []
        for loop in tuple(self.loops):
            standing = loop.ledger.standing()
            loops.append((loop, standing, loop.times.mark(standing)))
        now = loops[-1][1].now if loops else self.clock()
        holding = {standing.running: standing.busy for _, standing, _ in loops if standing.running is not None}
        return Moment(now, loops, holding)

    def let_go(self, loop: AttachedLoop) -> None:
        """The loop is attached no more: what it has cost stays in the totals."""
        self._kind = self._kind or loop.hook.kind
        self._gone_cost_s += loop.metering_s(loop.times.mark(loop.ledger.standing()).steps)
        self._gone_cpu_s += loop.cpu_s() or 0.0

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
            # Without sessions there is no block that it would be evidence for.
            if self.sessions.live or not self.pressure.marked:
                self.pressure.mark()
            self.failures.forget(now)
            for session in self.sessions.retire():
                for loop in tuple(self.loops):
                    loop.ledger.retire(session)
            moment = self.moment()
            for loop, _, mark in moment.loops:
                loop.times.tick(mark)
            self._spent = (*self._spent[2:], moment.now, self._cost(moment))
            for session in list(self.sessions.live.values()):
                session.mark(moment.now, moment.busy_of(session))
                if self.heap is not None:
                    session.mark_heap(moment.now)
            if self.heap is not None:
                self.heap.keep_to_budget(moment.now)
                self.notes.of_host("heap", self.heap.told())
            self._keep_to_budget(moment)

    def _keep_to_budget(self, moment: Moment) -> None:
        """Has as many of the steps timed as may be."""
        before, self._taken = self._taken, {}
        rates = []
        for loop, _, mark in moment.loops:
            steps = taken(loop.ledger, mark.steps)
            self._taken[loop.name] = moment.now, steps
            since, were = before.get(loop.name, (moment.now, steps))
            if moment.now - since >= MARK_INTERVAL_S / 2:
                rates.append(((steps - were) / (moment.now - since), loop.step_cost))
        one_in = self.budget.decide(rates if self.heap is None else [])
        for loop, _, _ in moment.loops:
            loop.ledger.thin(one_in)
        self.notes.of_host("metering", self.budget.told())

    def _accounted_cpu(self) -> float | None:
        """CPU seconds of the loops' threads and of our own; None where the platform does not tell."""
        known = [cpu_s for loop in tuple(self.loops) if (cpu_s := loop.cpu_s()) is not None]
        return self._gone_cpu_s + sum(known) + self._threads_cpu() if len(known) == len(self.loops) else None

    def _threads_cpu(self) -> float:
        return self.service_cpu_s + sum(thread.cpu_s for thread in self.threads)

    def _cost(self, moment: Moment) -> float:
        cost = self._threads_cpu()
        if self.settings.cpu == "exact":
            cost += self._gone_cost_s + sum(loop.metering_s(mark.steps) for loop, _, mark in moment.loops)
        return cost

    # --- on demand -------------------------------------------------------------------------------

    def snapshot(self, *, breathe: bool = False) -> Snapshot:
        """Everything now. `breathe`: give the GIL away now and then, when not on the loop's thread."""
        moment = self.moment()
        errored = self.failures.shown(moment.now, self.sessions.live)  # first, so that no session is in both
        live = list(self.sessions.live.values())
        rss_mb = self.memory.rss_mb  # once: it is sampled meanwhile, and rows add up to it
        in_progress = [
            block for loop, standing, _ in moment.loops if (block := loop.detector.in_progress(standing)) is not None
        ]
        return Snapshot(
            seq=next(self._sequence),
            taken_at=self.wall.at(moment.now),
            worker=self._worker(moment, live, rss_mb),
            sessions=[
                *self._rows(live, moment, in_progress, rss_mb, breathe=breathe),
                *(self._errored_row(failure, moment) for failure in errored),
            ],
            blocks_in_progress=in_progress,
        )

    def _rows(
        self, live: list[Session], moment: Moment, in_progress: list[Block], rss_mb: float, *, breathe: bool
    ) -> list[SessionRow]:
        now = moment.now
        share = rss_mb / len(live) if live else 0.0
        metered = self.settings.cpu != "off"
        blocked = {block.session_id for block in in_progress}
        several = len(moment.loops) > 1
        tells_delays = {loop.name: loop.hook.victims.known for loop, _, _ in moment.loops}
        some_tells_delays = any(tells_delays.values())
        sees_threads = {loop.name for loop, _, _ in moment.loops if loop.sees_threads}
        in_progress_of = moment.in_progress.get
        at = self.wall.at
        in_threads = self.thread_work.under_way()
        rows = []
        for index, session in enumerate(live):
            busy, steps, tasks = 0.0, 0, 0
            for account in session.accounts:
                busy += in_progress_of(account, account.busy)
                steps += account.steps
                tasks += account.tasks
            if share > session.peak_mb:
                session.peak_mb = share
            heap = self.heap is not None and self.heap.knows(session)
            delays = tells_delays.get(session.loop or "", some_tells_delays)
            status: Status = "active"
            if session.session_id in blocked:
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
                    loop=session.loop if several else None,
                    started_at=at(session.started),
                    duration_s=max(0.0, now - session.started),
                    cpu_pct=session.share(now, busy) if metered else None,
                    cpu_s=busy if metered else None,
                    steps=steps if metered else None,
                    tasks=max(0, tasks),
                    mem_mb=share,
                    peak_mb=session.peak_mb,
                    heap_mb=session.held / MIB if heap else None,
                    heap_growth_mb_per_min=_mib(session.heap_growth(now)) if heap else None,
                    thread_cpu_s=session.thread_cpu + in_threads.get(session, 0.0)
                    if session.loop in sees_threads
                    else None,
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

    def _errored_row(self, failure: Failure, moment: Moment) -> SessionRow:
        """Of a session that has ended: what it has used, and no share of what there is now."""
        session = failure.session
        metered = self.settings.cpu != "off"
        loops = {loop.name: loop for loop, _, _ in moment.loops}
        home = loops.get(session.loop) if session.loop is not None else None
        delays = home is not None and home.hook.victims.known
        return SessionRow(
            session_id=session.session_id,
            agent_name=session.agent_name,
            tenant=session.tenant,
            loop=session.loop if len(loops) > 1 else None,
            started_at=self.wall.at(session.started),
            duration_s=max(0.0, failure.ended_at - session.started),
            cpu_pct=0.0 if metered else None,
            cpu_s=moment.busy_of(session) if metered else None,
            steps=session.steps if metered else None,
            tasks=session.tasks,
            peak_mb=session.peak_mb,
            heap_mb=session.held / MIB if self.heap is not None and self.heap.knows(session) else None,
            thread_cpu_s=session.thread_cpu if home is not None and home.sees_threads else None,
            status="errored",
            error=failure.error,
            blocks=session.blocks,
            worst_block_ms=1000.0 * session.worst_block,
            delayed_s=session.delayed if delays else None,
            worst_delay_ms=1000.0 * session.worst_delay if delays else None,
        )

    def _worker(self, moment: Moment, live: list[Session], rss_mb: float) -> WorkerInfo:
        now = moment.now
        lags = [loop.times.lag(now) for loop, _, _ in moment.loops]
        shares = [loop.times.shares(mark) for loop, _, mark in moment.loops]
        lag = worst_of(lags)
        loops = _loop_infos(moment, shares, lags, live) if len(moment.loops) > 1 else []
        since, spent, _, _ = self._spent
        return WorkerInfo(
            name=self.settings.name,
            pid=os.getpid(),
            epoch=self.epoch,
            loop=moment.loops[0][0].hook.kind if moment.loops else self._kind,
            python=platform.python_version(),
            started_at=self.wall.at(self._started),
            uptime_s=now - self._started,
            cpu=self.settings.cpu,
            memory=self.settings.memory,
            slow_session_threshold_ms=1000.0 * self.settings.threshold_s,
            sessions=len(live),
            max_sessions=self.settings.max_sessions,
            started=self.sessions.started,
            errored=self.sessions.errored,
            blocks=self.blocks.last_seq,
            draining=self.draining,
            rss_mb=rss_mb,
            rss_trend_mb_per_min=self.memory.trend_mb_per_min(),
            memory_limit_mb=self.settings.memory_limit_mb,
            loop_time=mean_of(shares),
            lag_p99_ms=lag.p99_ms,
            lag_max_ms=lag.longest_ms,
            lag_method=lag.method,
            timed_one_in=self.budget.one_in,
            introspection_pct=percent(self._cost(moment) - spent, now - since) if now > since else None,
            left_behind=self._left_behind(now, self.heap) if self.heap is not None and self.heap.exact else [],
            host=self.host.now(),
            notes=[*self.notes.told(), *filter(None, (self.memory.trouble, self.host.trouble))],
            loops=loops,
        )

    def _left_behind(self, now: float, heap: Heap) -> list[LeftBehind]:
        """Those of which all is known: what they hold is certain, or nothing is said."""
        given_back = heap.given_back()
        left = [session for session in self.sessions.holding(now - LEFT_BEHIND_S) if heap.knows_exactly(session)]
        return [
            LeftBehind(
                session_id=session.session_id,
                agent_name=session.agent_name,
                tenant=session.tenant,
                ended_at=self.wall.at(session.ended_at),
                heap_mb=session.held / MIB,
                at_least_mb=session.held_at_least(given_back) / MIB,
                tasks=session.tasks,
                referenced=session.trace() is not None if session.trace is not None else None,
            )
            for session in left[:MAX_LEFT_BEHIND]
        ]


def _loop_infos(moment: Moment, shares: list[LoopTime], lags: list[Lag], live: list[Session]) -> list[LoopInfo]:
    sessions = Counter(session.loop for session in live)
    return [
        LoopInfo(
            name=loop.name,
            loop=loop.hook.kind,
            thread=loop.hook.thread.name,
            sessions=sessions[loop.name],
            loop_time=shares[index],
            lag_p99_ms=lags[index].p99_ms,
            lag_max_ms=lags[index].longest_ms,
            lag_method=lags[index].method,
        )
        for index, (loop, _, _) in enumerate(moment.loops)
    ]


def _mib(count: float | None) -> float | None:
    return count / MIB if count is not None else None


def _breathe() -> None:
    # A pause of any length gives the GIL to the loop's thread, should it wait for it; without it,
    # that takes the switch interval of 5 ms. A pause of 0 would be taken back before it wakes.
    time.sleep(1e-6)
