"""Snapshots from frames: what a client does with the changes that it is sent."""

from __future__ import annotations

from msgspec.structs import replace

from .._base.units import percent
from ._messages import Counts, Frame, SessionRow, Snapshot

_NS = 1e-9


class OutOfStep(Exception):
    """A frame builds on one that the reader does not have: ask for one of everything."""


class FrameReader:
    """The rows of the last frame that was read."""

    def __init__(self) -> None:
        self.seq = 0
        """The last frame's `seq`; 0: none was read."""
        self._rows: dict[str, SessionRow] = {}
        self._recent: dict[str, float] = {}
        """By session: the seconds within the window, if there are any."""

    def read(self, frame: Frame) -> Snapshot:
        """Return the snapshot that the frame is of. Raises OutOfStep."""
        if frame.base is None:
            self._rows, self._recent = {}, {}
        elif frame.base != self.seq or not self.seq:
            raise OutOfStep(f"frame {frame.seq} builds on frame {frame.base}, and the last one was {self.seq}")
        rows, recent = self._rows, self._recent
        for session_id in frame.gone:
            rows.pop(session_id, None)
            recent.pop(session_id, None)
        counts = {each.session_id: each for each in frame.counts}
        if missing := next((session_id for session_id in counts if session_id not in rows), None):
            raise OutOfStep(f"frame {frame.seq} has counts of session {missing!r}, which has no row")
        if frame.base is not None:
            _advance(rows, recent, frame, counts)
        for row in frame.rows:
            rows[row.session_id] = row
            recent[row.session_id] = _recent_s(row, frame)
        self.seq = frame.seq
        return Snapshot(
            id=frame.id,
            seq=frame.seq,
            taken_at=frame.taken_at,
            worker=frame.worker,
            sessions=list(rows.values()),
            blocks_in_progress=frame.blocks_in_progress,
        )


def _advance(rows: dict[str, SessionRow], recent: dict[str, float], frame: Frame, counts: dict[str, Counts]) -> None:
    """Bring the rows that a frame leaves out to that frame's moment, and their seconds within the window.

    One loop does it for all: a client of many workers has ten thousand rows each second.
    """
    anew = {row.session_id for row in frame.rows}
    taken_at, window_s, share_mb, peak_share_mb = frame.taken_at, frame.window_s, frame.share_mb, frame.peak_share_mb
    highest_pct = 100.0 * max(1, len(frame.worker.loops))
    for session_id, row in rows.items():
        if session_id in anew:
            continue
        cpu_s, steps, last_step_at = row.cpu_s, row.steps, row.last_step_at
        if (each := counts.get(session_id)) is not None:
            cpu_s, steps, recent_s = _NS * each.cpu_ns, each.steps, _NS * each.recent_ns
            recent[session_id] = recent_s
            last_step_at = None if each.last_step_ns is None else _NS * each.last_step_ns
        elif row.status == "errored":
            continue
        else:
            recent_s = recent.get(session_id, 0.0)
        duration_s, cpu_pct, mem_mb, peak_mb = row.duration_s, row.cpu_pct, row.mem_mb, row.peak_mb
        if row.status != "errored":
            duration_s = max(0.0, taken_at - row.started_at)
            if window_s is not None and cpu_pct is not None:
                cpu_pct = percent(recent_s, min(window_s, duration_s), highest_pct) if recent_s else 0.0
            if share_mb is not None:
                mem_mb = share_mb
            if peak_share_mb is not None and peak_share_mb > peak_mb:
                peak_mb = peak_share_mb
        rows[session_id] = replace(
            row,
            duration_s=duration_s,
            cpu_pct=cpu_pct,
            mem_mb=mem_mb,
            peak_mb=peak_mb,
            cpu_s=cpu_s,
            steps=steps,
            last_step_at=last_step_at,
        )


def _recent_s(row: SessionRow, frame: Frame) -> float:
    if frame.window_s is None or not row.cpu_pct:
        return 0.0
    return row.cpu_pct / 100.0 * min(frame.window_s, row.duration_s)
