"""The row table of a source that only takes whole snapshots, such as a worker in process mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from ._messages import SessionRow, Snapshot
from ._row_table import Building, RowPieces, RowTable, TableRow, Taken

_ROUNDING_S = 0.001


class SnapshotTable(RowTable):
    """Each row is compared with the one of the snapshot before."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        super().__init__()
        self._snapshot = snapshot
        self._seq = 0
        self._sessions: list[SessionRow] = []

    def take(self) -> Taken:
        snapshot = self._snapshot()
        before, self.rows = self.rows, {}
        touched = []
        for row in snapshot.sessions:
            known = before.pop(row.session_id, None)
            if known is None or not _only_older(known.row, row, snapshot.taken_at):
                known = TableRow(row=row, changed=snapshot.seq, counted=snapshot.seq)
                touched.append(known)
            known.row = row
            self.rows[row.session_id] = known
        self._sessions = snapshot.sessions
        if snapshot.seq > self._seq and len(self.rows) == len(snapshot.sessions):
            self._stepped(snapshot.seq, touched, list(before))
        else:  # the snapshot is no later one, or two rows have one id: none builds on it
            self._steps.clear()
            self._before = None
            self._floor = max(snapshot.seq, self._seq) + 1
        self._seq = max(snapshot.seq, self._seq)
        return Taken(snapshot.seq, snapshot.taken_at, snapshot.worker, snapshot.blocks_in_progress)

    def refresh(self, rows: Sequence[TableRow]) -> None:
        """Do nothing: all rows are of this moment."""

    def encoded(self, building: Building) -> RowPieces:
        rows = self._sessions
        return RowPieces(len(rows), lambda start, end: rows[start:end], building)


def _only_older(before: SessionRow, row: SessionRow, taken_at: float) -> bool:
    """Return whether a client that has `before` knows all of `row`."""
    if row.status == "errored":
        return row == before
    on_time = abs(taken_at - row.started_at - row.duration_s) < _ROUNDING_S
    return on_time and row == replace(before, duration_s=row.duration_s)
