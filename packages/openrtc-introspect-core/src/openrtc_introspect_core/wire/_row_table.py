"""The rows that a server sends, what has changed in them since earlier frames, and their JSON.

A row that has not changed costs neither building nor encoding. Values that change all the time in every row are no
change: a client derives them from a frame (see Frame): `duration_s` from the moment, `cpu_pct` from the time within the
window, `mem_mb` and `peak_mb` from the equal share.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import msgspec

from .._base.gil import yield_gil
from ._messages import Block, Counts, FrameHead, SessionRow, WorkerInfo

ROWS_PER_PIECE = 512
"""Rows that are encoded without a pause: for some 0.4 ms."""
_COUNTS_PER_PIECE = 1024
MAX_STEPS = 64
"""The latest frames that another may build on."""
MAX_GONE = 10_000
"""The most ids of rows that are gone since the oldest of them."""

Building = Callable[[], AbstractContextManager[None]]
"""A context whose CPU time counts as building."""

_encode = msgspec.json.Encoder().encode


class Taken(NamedTuple):
    """What a snapshot has beside its rows."""

    seq: int
    taken_at: float
    worker: WorkerInfo
    blocks_in_progress: list[Block]
    share_mb: float | None = None
    window_s: float | None = None


# gc=False, as of SessionRow: making ten thousand sets off no collection. Nothing that a row refers to refers to it.
class TableRow(msgspec.Struct, gc=False, eq=False, kw_only=True):
    """One row, and the snapshots in which it changed."""

    row: SessionRow
    changed: int
    """`seq` of the snapshot in which the row came anew."""
    counted: int
    """`seq` of the last snapshot in which the row came anew, or its counts changed."""
    busy: float = 0.0
    """Seconds for which its session has held loops."""
    steps: int = 0
    """Its steps."""
    recent: float = 0.0
    """The part of `busy` within the window."""


class _Step(NamedTuple):
    """What one snapshot changed beside rows."""

    seq: int
    gone: list[str]
    peak_share_mb: float | None


class RowTable(ABC):
    """The rows of the latest snapshot, by session. One thread uses it."""

    def __init__(self) -> None:
        self.rows: dict[str, TableRow] = {}
        self._steps: deque[_Step] = deque()
        self._gone = 0
        """The number of ids in all steps."""
        self._before: int | None = None
        """`seq` of the snapshot before the latest."""
        self._touched: list[TableRow] = []
        """The rows that have changed since."""
        self._floor = math.inf
        """The oldest frame that another may build on; inf: there is none."""

    @abstractmethod
    def take(self) -> Taken:
        """Bring the table to this moment."""

    @abstractmethod
    def refresh(self, rows: Sequence[TableRow]) -> None:
        """Bring values that are no change to the moment of the table."""

    def _stepped(self, seq: int, touched: list[TableRow], gone: list[str], peak_share_mb: float | None = None) -> None:
        """Remember what a snapshot changed: rows or their counts, rows that are gone."""
        self._before, self._touched = self._steps[-1].seq if self._steps else None, touched
        if self._floor == math.inf:
            self._floor = seq
        self._steps.append(_Step(seq, gone, peak_share_mb))
        self._gone += len(gone)
        while len(self._steps) > MAX_STEPS or self._gone > MAX_GONE:
            oldest = self._steps.popleft()
            self._gone -= len(oldest.gone)
            self._floor = oldest.seq

    # --- JSON ----------------------------------------------------------------------------------------

    def encoded(self, building: Building) -> RowPieces:
        """Return the JSON of all rows. Read it before the table is brought to another moment."""
        return self._pieces(list(self.rows.values()), building)

    def changes(self, base: int, taken: Taken) -> list[bytes] | None:
        """Return what has changed since the frame `base`: the members of a Frame behind its id, in pieces.

        None: it is not known.
        """
        if not self._floor <= base <= taken.seq:
            return None
        steps = [step for step in self._steps if step.seq > base]
        peaks = [step.peak_share_mb for step in steps if step.peak_share_mb is not None]
        gone = list(dict.fromkeys(session_id for step in steps for session_id in step.gone))
        touched = self._touched if base == self._before else list(self.rows.values())
        head = frame_head(taken, base, max(peaks, default=taken.share_mb), gone)
        counts: list[bytes] = []
        counted = [row for row in touched if row.changed <= base < row.counted]
        for start in range(0, len(counted), _COUNTS_PER_PIECE):
            if start:
                yield_gil()
            counts.append(_encode([_counts(row) for row in counted[start : start + _COUNTS_PER_PIECE]])[1:-1])
        pieces = self._pieces([row for row in touched if row.changed > base], nullcontext)
        pieces.finish()
        return [b'%b,"counts":[%b],"rows":' % (head, b",".join(counts)), *pieces, b"]}\n"]

    def _pieces(self, rows: list[TableRow], building: Building) -> RowPieces:
        def portion(start: int, end: int) -> list[SessionRow]:
            portion = rows[start:end]
            self.refresh(portion)
            return [each.row for each in portion]

        return RowPieces(len(rows), portion, building)


class RowPieces:
    """A list of rows as JSON, without its last bracket, in pieces.

    They are encoded as they are read, once for all readers: a client reads the first ones while the others are made.
    """

    def __init__(self, length: int, portion: Callable[[int, int], list[SessionRow]], building: Building) -> None:
        self._length = length
        self._portion = portion
        self._building = building
        self._pieces: list[bytes] = [] if length else [b"["]

    def __iter__(self) -> Iterator[bytes]:
        number = 0
        while number < len(self._pieces) or self._encode_next():
            yield self._pieces[number]
            number += 1

    def finish(self) -> None:
        """Encode what nobody has read so far."""
        while self._encode_next():
            yield_gil()

    def _encode_next(self) -> bool:
        """Encode one more piece. False: there is none."""
        start = ROWS_PER_PIECE * len(self._pieces)
        if start >= self._length:
            return False
        with self._building():
            encoded = _encode(self._portion(start, start + ROWS_PER_PIECE))
            self._pieces.append((b"," if start else b"[") + memoryview(encoded)[1:-1])
        return True


def frame_head(taken: Taken, base: int | None, peak_share_mb: float | None, gone: list[str]) -> bytes:
    """Return a Frame's members from behind its id up to its counts."""
    head = FrameHead(
        seq=taken.seq,
        base=base,
        taken_at=taken.taken_at,
        worker=taken.worker,
        blocks_in_progress=taken.blocks_in_progress,
        share_mb=taken.share_mb,
        peak_share_mb=peak_share_mb,
        window_s=taken.window_s,
        gone=gone,
    )
    return _encode(head).removeprefix(b'{"type":"frame"')[:-1]


def _counts(row: TableRow) -> Counts:
    last_step_at = row.row.last_step_at
    return Counts(
        row.row.session_id,
        round(1e9 * row.busy),
        row.steps,
        round(1e9 * row.recent),
        round(1e9 * last_step_at) if last_step_at is not None else None,
    )
