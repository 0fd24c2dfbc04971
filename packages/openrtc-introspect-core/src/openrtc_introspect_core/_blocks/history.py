"""The block history, and its log line."""

from __future__ import annotations

import threading
from collections import deque

from .._base.clock import WallTime
from .._base.log import QueuedLogger
from .._sessions.session import Session
from ..wire._messages import Block, Delayed, Holder, Location

MAX_KEPT = 256
"""Blocks that the history keeps; older ones make room."""

LOG_INTERVAL_S = 1.0
"""Seconds in which a session has one line at most; the next line counts the blocks without one."""

logger = QueuedLogger("openrtc.introspect")


class BlockHistory:
    """One worker's blocks, numbered from 1.

    Recorded on the loops' threads, read from any.
    """

    def __init__(self, wall: WallTime, slow_status_s: float) -> None:
        self._wall = wall
        self._slow_status_s = slow_status_s
        self._kept: deque[Block] = deque(maxlen=MAX_KEPT)
        self._lock = threading.Lock()
        self._lines: dict[str | None, tuple[float, int]] = {}
        self.last_seq = 0
        self.logged = True
        """Whether blocks are logged."""

    def record(
        self,
        session: Session | None,
        start: float,
        end: float,
        *,
        loop: str | None = None,
        task_name: str | None = None,
        cause: str | None = None,
        detail: str | None = None,
        location: Location | None = None,
        stack: list[Location] | None = None,
        waiting_on: str | None = None,
        holder: Holder | None = None,
        delayed: list[Delayed] | None = None,
        logged: bool = True,
    ) -> Block:
        """Record a block of `session`, or an unattributed one.

        start, end: clock readings.
        """
        duration = end - start
        if session is not None:
            session.has_blocked(duration, end + self._slow_status_s)
        with self._lock:
            block = Block(
                seq=self.last_seq + 1,
                session_id=session.session_id if session is not None else None,
                agent_name=session.agent_name if session is not None else None,
                tenant=session.tenant if session is not None else None,
                loop=loop,
                task_name=task_name,
                started_at=self._wall.at(start),
                duration_ms=1000.0 * duration,
                cause=cause,
                detail=detail,
                location=location,
                stack=stack or [],
                waiting_on=waiting_on,
                holder=holder,
                delayed=delayed,
            )
            self._kept.append(block)
            self.last_seq = block.seq
        if logged and self.logged:
            self._log(block, end)
        return block

    def since(self, seq: int) -> list[Block]:
        """Return the blocks kept whose number is above `seq`, oldest first."""
        with self._lock:
            return [block for block in self._kept if block.seq > seq]

    def log_hold(self, block: Block, *, stack: bool) -> None:
        """Log a block that goes on. stack: log its stack as well, the innermost line last."""
        if not self.logged:
            return
        session = f"session_id={_printable(block.session_id)}" if block.session_id is not None else "no session"
        lines = [f"\n    {_printable(str(location))}" for location in block.stack] if stack else []
        logger.warning(
            "[blocked-now] %s has been holding the loop for %.0f s%s%s%s%s",
            session,
            block.duration_ms / 1000.0,
            _where(block),
            _why(block),
            _waits(block, "waits"),
            "".join(lines),
        )

    def _log(self, block: Block, now: float) -> None:
        last, unlogged = self._lines.get(block.session_id, (float("-inf"), 0))
        if now - last < LOG_INTERVAL_S:
            self._lines[block.session_id] = (last, unlogged + 1)
            return
        if len(self._lines) >= MAX_KEPT:  # ids of past sessions
            self._lines = {key: line for key, line in list(self._lines.items()) if now - line[0] < LOG_INTERVAL_S}
        self._lines[block.session_id] = (now, 0)
        where, why = _where(block), _why(block) + _waits(block, "waited")
        more = f" (and {unlogged} more since the last line)" if unlogged else ""
        if block.session_id is None:
            start = "[slow-loop] event loop blocked for %.0fms by no session%s%s%s"
            logger.warning(start, block.duration_ms, where, why, more)
        else:
            start = "[slow-session] session_id=%s blocked event loop for %.0fms%s%s%s"
            logger.warning(start, _printable(block.session_id), block.duration_ms, where, why, more)


def _where(block: Block) -> str:
    return _printable(f" at {block.location}") if block.location is not None else ""


def _why(block: Block) -> str:
    reason = f"{block.cause}: {block.detail}" if block.detail else block.cause
    return _printable(f" ({reason})") if reason is not None else ""


def _waits(block: Block, waits: str) -> str:
    if block.waiting_on is None:
        return ""
    holder = describe(block.holder) if block.holder is not None else None
    return _printable(f"; it {waits} for {block.waiting_on}" + (f", which {holder}" if holder is not None else ""))


def describe(holder: Holder) -> str:
    """Return who has what others wait for, as a clause without its object: `session call-7 holds, suspended at …`."""
    if holder.thread is not None:
        who, there = f"thread {holder.thread}", "at"
    else:
        who = f"session {holder.session_id}" if holder.session_id is not None else f"task {holder.task_name}"
        there = "suspended at"
    where = f", {there} {holder.location}" if holder.location is not None else ""
    taken = holder.taken_at
    inside = f" inside the `with` at {taken.file}:{taken.line}" if taken is not None and holder.certain else ""
    if taken is not None and not holder.certain:
        inside = f", taken at {taken.file}:{taken.line}"
    return f"{who} {'holds' if holder.certain else 'probably holds'}{where}{inside}"


def _printable(text: str) -> str:
    """Return the text with what a terminal would act upon escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
