"""The rows of a snapshot.

Each live session has one, and each that failed a short while ago.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TypeVar

from .._accounting.ledger import times_steps
from .._base.units import MIB
from .._sessions.failures import Failure
from .._sessions.session import Session
from ..wire._messages import SessionRow, Status
from .moment import Moment
from .shared import Shared

_Row = TypeVar("_Row", bound=SessionRow)


class SessionRows:
    """Turns sessions into rows, all of one moment."""

    def __init__(
        self, shared: Shared, moment: Moment, *, share_mb: float, blocked: Collection[str | None], draining: bool
    ) -> None:
        self._shared = shared
        self._moment = moment
        self.share_mb = share_mb
        """RSS / live sessions."""
        self.blocked = blocked
        """The ids of the sessions that hold a loop past the threshold now."""
        self.usual_status: Status = "draining" if draining else "active"
        self.metered = shared.settings.cpu != "off"
        self.timed = shared.settings.cpu == "exact" and all(times_steps(loop.ledger) for loop, _, _ in moment.loops)
        """Whether the ends of steps are known."""
        self.stepping = {account.session for account in moment.in_progress}
        """The sessions that hold a loop now."""
        loops = {loop.name: loop for loop, _, _ in moment.loops}
        self._several = len(loops) > 1
        self._delays_available = {name: loop.hook.delays.available for name, loop in loops.items()}
        self._any_delays_available = any(self._delays_available.values())
        self._sees_threads = {name for name, loop in loops.items() if loop.sees_threads}
        self.in_threads = shared.thread_calls.under_way()

    @property
    def layout(self) -> tuple[object, ...]:
        """What the rows of all sessions have: another layout is a change of every row."""
        return self.metered, self.timed, self._several, self._delays_available, self._sees_threads

    def of_live(self, sessions: Sequence[Session], kind: type[_Row]) -> Iterator[_Row]:
        """Yield the rows of live sessions, as structs of this kind.

        All is done in one function, since a worker may have ten thousand sessions.
        """
        now, shared, metered, several = self._moment.now, self._shared, self.metered, self._several
        at, share_mb, heap = shared.wall.at, self.share_mb, shared.heap
        in_progress_of, in_threads_of = self._moment.in_progress.get, self.in_threads.get
        delays_available, any_delays_available = self._delays_available, self._any_delays_available
        blocked, usual, seeing_threads = self.blocked, self.usual_status, self._sees_threads
        timed, stepping = self.timed, self.stepping
        for session in sessions:
            busy, steps, tasks, last_step = 0.0, 0, 0, session.started
            for account in session.accounts:
                if account.last_step > last_step:
                    last_step = account.last_step
                busy += in_progress_of(account, account.busy)
                steps += account.steps
                tasks += account.tasks
            if busy < session.shown_busy:
                busy = session.shown_busy
            session.shown_busy = busy
            if share_mb > session.peak_mb:
                session.peak_mb = share_mb
            measured = heap is not None and heap.knows(session)
            growth = session.heap_growth(now) if measured else None
            delays = delays_available.get(session.loop or "", any_delays_available)
            sees_threads = session.loop in seeing_threads
            status: Status = usual
            if session.session_id in blocked:
                status = "blocked"
            elif now < session.slow_until:
                status = "slow"
            yield kind(
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
                mem_mb=share_mb,
                peak_mb=session.peak_mb,
                heap_mb=session.held / MIB if measured else None,
                heap_growth_mb_per_min=growth / MIB if growth is not None else None,
                thread_cpu_s=session.thread_cpu + in_threads_of(session, 0.0) if sees_threads else None,
                status=status,
                blocks=session.blocks,
                worst_block_ms=1000.0 * session.worst_block,
                delayed_s=session.delayed if delays else None,
                worst_delay_ms=1000.0 * session.worst_delay if delays else None,
                last_step_at=at(last_step) if timed and session not in stepping else None,
                waits=session.waits,
            )

    def of_failed(self, failure: Failure) -> SessionRow:
        """Return the row of a session that has failed.

        It has what the session used, without a share of the present RSS.
        """
        session, heap = failure.session, self._shared.heap
        delays = self._delays_available.get(session.loop or "", False)
        sees_threads = session.loop in self._sees_threads
        return SessionRow(
            session_id=session.session_id,
            agent_name=session.agent_name,
            tenant=session.tenant,
            loop=session.loop if self._several else None,
            started_at=self._shared.wall.at(session.started),
            duration_s=max(0.0, failure.ended_at - session.started),
            cpu_pct=0.0 if self.metered else None,
            cpu_s=max(session.shown_busy, self._moment.busy_of(session)) if self.metered else None,
            steps=session.steps if self.metered else None,
            tasks=session.tasks,
            peak_mb=session.peak_mb,
            heap_mb=session.held / MIB if heap is not None and heap.knows(session) else None,
            thread_cpu_s=session.thread_cpu if sees_threads else None,
            status="errored",
            error=failure.error,
            blocks=session.blocks,
            worst_block_ms=1000.0 * session.worst_block,
            delayed_s=session.delayed if delays else None,
            worst_delay_ms=1000.0 * session.worst_delay if delays else None,
            last_step_at=self._shared.wall.at(session.last_step) if self.timed else None,
        )
