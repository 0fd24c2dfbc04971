"""Snapshots: from ledgers, accounts and probes to the messages that show them.

They are built on any thread while the loops go on. Rates cover the last one to two seconds, since the marks that
housekeeping makes about once a second. For the worker as a whole a snapshot shows the mean of all loops' shares of
loop time, and the lag of the worst loop. With one loop both are that loop's own.
"""

from __future__ import annotations

import itertools
import os
import platform
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from .._accounting.budget import Budget
from .._base.units import MIB
from .._native import meter
from .._sessions.failures import Failure
from .._sessions.session import Session
from ..wire._messages import Block, LeftBehind, LoopInfo, LoopTime, SessionRow, Snapshot, WorkerInfo
from .attached_loop import AttachedLoop
from .attached_loops import AttachedLoops
from .loop_statistics import Lag, mean_of, sum_of, worst_of
from .moment import Moment, read_moment
from .outlived import OutlivedSessions
from .own_cost import OwnCost
from .session_rows import SessionRows
from .shared import Shared

if TYPE_CHECKING:  # loaded when needed: programs that only import the package do not wait for them
    from .._accounting.heap import Heap
    from .._os.host_vitals import HostVitals
    from .rss_shares import ShareOfRss

LEFT_BEHIND_S = 600.0
"""Seconds after its end for which a session is listed that still holds memory."""
MAX_LEFT_BEHIND = 10
"""The number of such sessions listed: those that hold the most."""


class Reading(NamedTuple):
    """What one snapshot is made of."""

    seq: int
    moment: Moment
    live: list[Session]
    failed: list[Failure]
    rss_mb: float
    in_progress: list[Block]
    rows: SessionRows


@dataclass(slots=True)
class SnapshotBuilder:
    """Builds the snapshots of one introspector.

    It changes nothing but their sequence number.
    """

    shared: Shared
    loops: AttachedLoops
    memory: ShareOfRss
    host: HostVitals
    budget: Budget
    cost: OwnCost
    outlived: OutlivedSessions
    draining: bool = False
    """Whether the host takes no new sessions."""
    epoch: str = field(default_factory=lambda: os.urandom(8).hex())
    _kind: str = ""
    """The kind of the loop that was detached first: shown once no loop is attached."""
    _started: float = field(init=False)
    _sequence: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self._started = self.shared.clock()

    def loop_detached(self, loop: AttachedLoop) -> None:
        """Take note of a loop that is no longer attached."""
        self._kind = self._kind or loop.hook.kind

    def snapshot(self) -> Snapshot:
        """Return a snapshot of now."""
        reading = self.read()
        rows = reading.rows
        listed = [*rows.of_live(reading.live, SessionRow), *map(rows.of_failed, reading.failed)]
        return Snapshot(
            seq=reading.seq,
            taken_at=self.shared.wall.at(reading.moment.now),
            worker=self.worker(reading),
            sessions=listed,
            blocks_in_progress=reading.in_progress,
        )

    def read(self) -> Reading:
        """Return what a snapshot of now is made of."""
        moment = read_moment(self.loops, self.shared.clock)
        sessions = self.shared.sessions
        failed = sessions.failures.shown(moment.now, sessions.live)  # before `live`, so that no session is in both
        live = list(sessions.live.values())
        rss_mb = self.memory.rss_mb  # read once: it is sampled meanwhile, and the rows add up to it
        in_progress = [
            block for loop, reading, _ in moment.loops if (block := loop.detector.in_progress(reading)) is not None
        ]
        share_mb = self.memory.share_of(rss_mb, len(live))
        blocked = {block.session_id for block in in_progress}
        rows = SessionRows(self.shared, moment, share_mb=share_mb, blocked=blocked, draining=self.draining)
        return Reading(next(self._sequence), moment, live, failed, rss_mb, in_progress, rows)

    def worker(self, reading: Reading) -> WorkerInfo:
        """Return a snapshot's worker."""
        moment, live = reading.moment, reading.live
        now, settings, sessions, heap = moment.now, self.shared.settings, self.shared.sessions, self.shared.heap
        lags = [loop.times.lag(now) for loop, _, _ in moment.loops]
        shares = [loop.times.shares(mark) for loop, _, mark in moment.loops]
        rates = [loop.times.iterations_per_s(mark) for loop, _, mark in moment.loops]
        lag = worst_of(lags)
        troubles = (self.memory.trouble, self.host.trouble)
        return WorkerInfo(
            name=settings.name,
            pid=os.getpid(),
            epoch=self.epoch,
            loop=moment.loops[0][0].hook.kind if moment.loops else self._kind,
            python=platform.python_version(),
            meter=meter,
            started_at=self.shared.wall.at(self._started),
            uptime_s=now - self._started,
            cpu=settings.cpu,
            memory=settings.memory,
            slow_session_threshold_ms=1000.0 * settings.threshold_s,
            sessions=len(live),
            max_sessions=settings.max_sessions,
            started=sessions.started,
            errored=sessions.errored,
            blocks=self.shared.history.last_seq,
            draining=self.draining,
            rss_mb=reading.rss_mb,
            rss_trend_mb_per_min=self.memory.trend_mb_per_min(),
            memory_limit_mb=settings.memory_limit_mb,
            loop_time=mean_of(shares),
            lag_p99_ms=lag.p99_ms,
            lag_max_ms=lag.max_ms,
            lag_method=lag.method,
            timed_one_in=self.budget.sampling_period,
            introspection_pct=self.cost.share(moment),
            left_behind=self._left_behind(now, heap) if heap is not None and heap.exact else [],
            outlived=self.outlived.infos(moment),
            iterations_per_s=sum_of(rates),
            host=self.host.now(),
            cgroup=self.host.cgroup,
            notes=[*self.shared.notes.lines(), *filter(None, troubles)],
            loops=_loop_infos(moment, shares, lags, rates, live) if len(moment.loops) > 1 else [],
        )

    def _left_behind(self, now: float, heap: Heap) -> list[LeftBehind]:
        """Return ended sessions that certainly still hold memory.

        These are only sessions whose every step was read.
        """
        given_back = heap.given_back()
        held = self.shared.sessions.holding(now - LEFT_BEHIND_S)
        return [
            LeftBehind(
                session_id=session.session_id,
                agent_name=session.agent_name,
                tenant=session.tenant,
                ended_at=self.shared.wall.at(session.ended_at),
                heap_mb=session.held / MIB,
                at_least_mb=session.held_at_least(given_back) / MIB,
                tasks=session.tasks,
                referenced=session.context_marker() is not None if session.context_marker is not None else None,
            )
            for session in [each for each in held if heap.knows_exactly(each)][:MAX_LEFT_BEHIND]
        ]


def _loop_infos(
    moment: Moment, shares: list[LoopTime], lags: list[Lag], rates: list[float | None], live: list[Session]
) -> list[LoopInfo]:
    sessions = Counter(session.loop for session in live)
    return [
        LoopInfo(
            name=loop.name,
            loop=loop.hook.kind,
            thread=loop.hook.thread.name,
            sessions=sessions[loop.name],
            loop_time=shares[index],
            lag_p99_ms=lags[index].p99_ms,
            lag_max_ms=lags[index].max_ms,
            lag_method=lags[index].method,
            iterations_per_s=rates[index],
        )
        for index, (loop, _, _) in enumerate(moment.loops)
    ]
