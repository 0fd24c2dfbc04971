"""The row table of a worker's sessions.

A session that has done nothing since the snapshot before costs a comparison, about 0.2 µs. Its row is kept, and
brought to the moment of a snapshot only if all rows are sent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._accounting.account import Account, Owner
from .._base.gil import yield_gil
from .._base.units import percent
from .._sessions.session import Session
from ..wire._messages import SessionRow, Status
from ..wire._row_table import RowTable, TableRow, Taken
from .snapshot_builder import Reading, SnapshotBuilder

if TYPE_CHECKING:  # loaded when needed: programs that only import the package do not wait for it
    from .._accounting.heap import Heap

_SESSIONS_PER_PAUSE = 1024
"""Sessions that are compared without a pause: for some 0.4 ms."""
_ROWS_PER_PAUSE = 128
"""Rows that are made without a pause."""


class LiveRow(SessionRow, frozen=False, kw_only=True, gc=False):  # type: ignore[misc]
    """A row that is brought from one moment to the next. It stays on the thread that serves it."""


_NO_ROW = LiveRow(session_id="", agent_name="")
"""The row of a session until it is made."""


class _Live(TableRow, gc=False, eq=False, kw_only=True):
    """The row of a live session, and the values that it was made from: if one differs, the row is made anew.

    Counts and what clients derive are no such values.
    """

    row: Any
    """A LiveRow, which a type checker takes for frozen."""
    session: Session
    started: float
    """The session's, for `refresh`, which then reads nothing of the session."""
    account: Account | None = None
    """The session's only account, if it can have no other."""
    status: Status = "active"
    slow: bool = False
    """Whether it will not be slow for ever."""
    tasks: int = 0
    noted: int = -1
    """The session's; -1: the row is to be made."""
    others: tuple[Any, ...] = ()
    """Values that few workers have."""
    peak_mb: float = 0.0
    before: float = 0.0
    """The session's `busy` when the window began."""


class SessionTable(RowTable):
    """The rows of one introspector. The service thread uses it."""

    def __init__(self, builder: SnapshotBuilder) -> None:
        super().__init__()
        self._builder = builder
        self._live: list[_Live] = []
        """In the order in which the sessions started."""
        self._lowest_peak_mb = 0.0
        self._layout: tuple[object, ...] = ()
        self._metered = False
        self._stepping: set[Owner | None] = set()
        """The sessions that held a loop at the snapshot before."""
        self._now = self._share_mb = self._window_s = 0.0

    def take(self) -> Taken:
        builder = self._builder
        reading = builder.read()
        live, rows = reading.live, reading.rows
        highest_mb = builder.memory.highest_share()
        if rows.layout != self._layout:
            self._layout, self._live = rows.layout, []
        self._now, self._share_mb, self._metered = reading.moment.now, rows.share_mb, rows.metered
        # Each mark is made of all sessions at once, so the oldest session's window is that of all that are as old.
        self._window_s = self._now - live[0].marks[0] if live else 0.0
        touched: list[TableRow] = []
        for failure in reading.failed:
            self._put_failed(rows.of_failed(failure), reading.seq, touched)
        self._match(live, reading.seq)
        if highest_mb > self._lowest_peak_mb:
            self._raise_peaks(highest_mb)
        for start in range(0, len(live), _SESSIONS_PER_PAUSE):
            if start:
                yield_gil()
            stale = self._compare(self._live[start : start + _SESSIONS_PER_PAUSE], reading, touched)
            for first in range(0, len(stale), _ROWS_PER_PAUSE):
                if first:
                    yield_gil()
                self._make(stale[first : first + _ROWS_PER_PAUSE], reading)
            touched += stale
        self._stepping = rows.stepping
        self._stepped(reading.seq, touched, self._drop_gone(reading), highest_mb)
        return Taken(
            seq=reading.seq,
            taken_at=builder.shared.wall.at(self._now),
            worker=builder.worker(reading),
            blocks_in_progress=reading.in_progress,
            share_mb=self._share_mb,
            window_s=self._window_s if rows.metered else None,
        )

    def _match(self, sessions: list[Session], seq: int) -> None:
        """Find the sessions' rows. They are in the order in which sessions started, which end at any place."""
        known = self._live
        if len(known) == len(sessions) and (not known or known[-1].session is sessions[-1]):
            return  # none has started since, so none has ended
        before, self._live = iter(known), []
        for session in sessions:
            live = next(before, None)
            while live is not None and live.session is not session:
                live = next(before, None)
            if live is None:
                live = _Live(row=_NO_ROW, session=session, started=session.started, changed=seq, counted=seq)
                self.rows[session.session_id] = live
                self._lowest_peak_mb = 0.0
            self._live.append(live)

    def _raise_peaks(self, highest_mb: float) -> None:
        """Raise the peaks to shares since the last snapshot, of which `highest_mb` is the highest."""
        share_mb, lowest_mb = self._share_mb, math.inf
        for number, live in enumerate(self._live):
            if number % _SESSIONS_PER_PAUSE == _SESSIONS_PER_PAUSE - 1:
                yield_gil()
            session = live.session
            peak_mb = session.peak_mb
            if peak_mb < share_mb:
                session.peak_mb = peak_mb = share_mb
            if peak_mb < highest_mb or peak_mb not in (highest_mb, live.peak_mb):
                live.noted = -1  # a client would take it for another
            live.peak_mb = peak_mb
            if peak_mb < lowest_mb:
                lowest_mb = peak_mb
        self._lowest_peak_mb = lowest_mb

    def _compare(self, rows: Sequence[_Live], reading: Reading, touched: list[TableRow]) -> list[_Live]:
        """Bring counts to now. Return the rows that are to be made anew.

        All is done in one function, since a worker may have ten thousand sessions.
        """
        of_all, now, seq = reading.rows, self._now, reading.seq
        metered, usual, blocked, in_threads = of_all.metered, of_all.usual_status, of_all.blocked, of_all.in_threads
        heap, in_progress = self._builder.shared.heap, reading.moment.in_progress
        has_others = heap is not None or bool(in_threads)
        timed, stepping, at = of_all.timed, of_all.stepping, self._builder.shared.wall.at
        moved = stepping ^ self._stepping
        stale: list[_Live] = []
        for live in rows:
            session = live.session
            if (account := live.account) is not None:
                busy, steps, tasks = account.busy, account.steps, account.tasks
                if in_progress and account in in_progress:
                    busy = in_progress[account]
            else:
                busy, steps, tasks = reading.moment.busy_of(session), session.steps, session.tasks
            status = usual
            if blocked and session.session_id in blocked:
                status = "blocked"
            elif live.slow and now < session.slow_until:
                status = "slow"
            others = _others(session, in_threads, heap, now) if has_others else ()
            if session.noted != live.noted or tasks != live.tasks or status != live.status or others != live.others:
                live.tasks, live.others = tasks, others
                stale.append(live)
            elif metered and (live.recent or busy != live.busy or steps != live.steps or (moved and session in moved)):
                # Only of these can the part before the window have changed, or the end of the last step.
                before = session.marks[1]
                if busy < session.shown_busy:
                    busy = session.shown_busy
                session.shown_busy = busy
                if busy != live.busy or steps != live.steps or before != live.before or session in moved:
                    live.busy, live.steps, live.before, live.counted = busy, steps, before, seq
                    live.recent = busy - before if busy > before else 0.0
                    row = live.row
                    row.cpu_s, row.steps = busy, steps
                    if timed:
                        row.last_step_at = at(session.last_step) if session not in stepping else None
                    touched.append(live)
        return stale

    def _make(self, stale: Sequence[_Live], reading: Reading) -> None:
        """Make rows anew."""
        one_loop = len(reading.moment.loops) == 1
        for live in stale:  # read before the row is made: what is noted meanwhile makes it anew next time
            live.noted = live.session.noted
        made = reading.rows.of_live([live.session for live in stale], LiveRow)
        for live, row in zip(stale, made, strict=True):
            session, accounts = live.session, live.session.accounts
            live.row, live.changed, live.counted = row, reading.seq, reading.seq
            live.account = accounts[0] if len(accounts) == 1 and one_loop else None
            live.busy, live.steps, live.before = row.cpu_s or 0.0, row.steps or 0, session.marks[1]
            live.recent = max(0.0, live.busy - live.before)
            live.status, live.slow = row.status, self._now < session.slow_until
            live.peak_mb = session.peak_mb

    def _put_failed(self, row: SessionRow, seq: int, touched: list[TableRow]) -> None:
        known = self.rows.get(row.session_id)
        if known is None or known.row != row:
            self.rows[row.session_id] = known = TableRow(row=row, changed=seq, counted=seq)
            touched.append(known)

    def _drop_gone(self, reading: Reading) -> list[str]:
        """Remove the rows that are not in the reading, and return their ids."""
        if len(self.rows) == len(reading.live) + len(reading.failed):
            return []
        shown = {session.session_id for session in reading.live}
        shown.update(failure.session.session_id for failure in reading.failed)
        gone = [session_id for session_id in self.rows if session_id not in shown]
        for session_id in gone:
            del self.rows[session_id]
        return gone

    def refresh(self, rows: Sequence[TableRow]) -> None:
        now, share_mb, window_s = self._now, self._share_mb, self._window_s
        metered, highest_pct = self._metered, 100.0 * max(1, len(self._builder.loops))
        for each in rows:
            if type(each) is not _Live:
                continue
            row = each.row
            row.duration_s = duration_s = max(0.0, now - each.started)
            row.mem_mb, row.peak_mb = share_mb, each.peak_mb
            if metered:
                recent = each.recent
                row.cpu_pct = percent(recent, min(window_s, duration_s), highest_pct) if recent else 0.0


def _others(session: Session, in_threads: Mapping[Owner, float], heap: Heap | None, now: float) -> tuple[Any, ...]:
    """Return values that few workers have: those of calls in threads and of memory by session."""
    held = (heap.knows(session), session.held, session.heap_growth(now)) if heap is not None else ()
    return in_threads.get(session), *held
