"""The block history, and its log line."""

from __future__ import annotations

import threading
from collections import deque

from ._clock import WallTime
from ._log import QueuedLogger
from ._sessions import Session
from .wire._messages import Block, Delayed, Location

KEPT = 256
"""Blocks the history holds; older ones make room."""

LOG_INTERVAL_S = 1.0
"""At most one line per session in this time; the next one tells how many were left out."""

logger = QueuedLogger("openrtc.introspect")


class BlockLog:
    """The worker's blocks, numbered from 1. Recorded on the loops' threads, read from any."""

    def __init__(self, wall: WallTime, slow_status_s: float) -> None:
        self._wall = wall
        self._slow_status_s = slow_status_s
        self._kept: deque[Block] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self._lines: dict[str | None, tuple[float, int]] = {}
        self.last_seq = 0
        self.logged = True
        """Whether each block has its line."""

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
        delayed: list[Delayed] | None = None,
        logged: bool = True,
    ) -> Block:
        """A block from `start` to `end` (clock readings), by `session` or by none."""
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
                delayed=delayed,
            )
            self._kept.append(block)
            self.last_seq = block.seq
        if logged and self.logged:
            self._log(block, end)
        return block

    def since(self, seq: int) -> list[Block]:
        """The blocks kept whose number is above `seq`, oldest first."""
        with self._lock:
            return [block for block in self._kept if block.seq > seq]

    def _log(self, block: Block, now: float) -> None:
        last, left_out = self._lines.get(block.session_id, (float("-inf"), 0))
        if now - last < LOG_INTERVAL_S:
            self._lines[block.session_id] = (last, left_out + 1)
            return
        if len(self._lines) >= KEPT:  # ids of sessions long gone
            self._lines = {key: line for key, line in list(self._lines.items()) if now - line[0] < LOG_INTERVAL_S}
        self._lines[block.session_id] = (now, 0)
        where = _printable(f" at {block.location}") if block.location is not None else ""
        told = f"{block.cause}: {block.detail}" if block.detail else block.cause
        why = _printable(f" ({told})") if told is not None else ""
        more = f" (and {left_out} more since the last line)" if left_out else ""
        if block.session_id is None:
            start = "[slow-loop] event loop blocked for %.0fms by no session%s%s%s"
            logger.warning(start, block.duration_ms, where, why, more)
        else:
            start = "[slow-session] session_id=%s blocked event loop for %.0fms%s%s%s"
            logger.warning(start, _printable(block.session_id), block.duration_ms, where, why, more)


def _printable(text: str) -> str:
    """The text with what a terminal would act upon written out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
