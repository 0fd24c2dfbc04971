"""The source that a server serves from; its latest snapshot, encoded once for all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Protocol, runtime_checkable

import msgspec

from ._framing import to_json
from ._messages import (
    Block,
    RequestId,
    Snapshot,
    SnapshotHead,
    Stacks,
    StacksRequest,
    Tasks,
    TasksRequest,
    Waits,
    WaitsRequest,
)
from ._row_table import RowPieces, RowTable, Taken, frame_head
from ._snapshot_table import SnapshotTable

REST = 4.0
"""Seconds of rest for each second of work."""

MAX_BASES = 8
"""The most frames that changes are encoded against while a snapshot is the latest; others get all of it."""

Message = Iterable[bytes]
"""An encoded message, in pieces. Its last ones may be encoded only when they are read. False if it is empty."""


class Source(Protocol):
    """The source of a server's replies.

    Whatever it raises becomes an error of the request.
    """

    def snapshot(self) -> Snapshot:
        """Return everything at this moment."""

    def blocks(self, since: int) -> list[Block]:
        """Return the blocks kept whose `seq` is above `since`, oldest first."""

    def tasks(self, request: TasksRequest) -> Tasks | None:
        """Return the reply; None if no live session has that id."""

    def stacks(self, request: StacksRequest) -> Stacks:
        """Return the reply."""

    def waits(self, request: WaitsRequest) -> Waits:
        """Return the reply."""


@runtime_checkable
class TableSource(Protocol):
    """A source that knows which of its rows have changed without making them all."""

    def table(self) -> RowTable:
        """Return a new table of its rows."""


class SharedSnapshot:
    """The latest snapshot, encoded once for all, for as long as it is fresh."""

    def __init__(self, source: Source, clock: Callable[[], float], cpu_clock: Callable[[], float]) -> None:
        self._source = source
        self._clock = clock
        self._cpu_clock = cpu_clock
        self.cpu_s = 0.0
        """CPU seconds spent on building so far."""
        self.forget()

    def forget(self) -> None:
        """Free all that is kept of snapshots. No later frame builds on one before this."""
        self._table: RowTable | None = None
        self._drop()

    def _drop(self) -> None:
        self._taken: Taken | None = None
        self._began = self._fresh_until = -math.inf
        self._rows: RowPieces | None = None
        """All rows, once they are needed."""
        self._changes: dict[int, list[bytes]] = {}
        """What has changed since a frame, by its `seq`: a Frame behind its id."""

    def message(self, request_id: RequestId, within_s: float = 0.0) -> Message:
        """Return a snapshot, at most four times as old as the CPU time it took to build.

        within_s: the age in seconds that is good enough as well.
        """
        taken, table = self._latest(within_s)
        head = SnapshotHead(seq=taken.seq, taken_at=taken.taken_at, worker=taken.worker)
        begin = to_json(head).removeprefix(b'{"type":"snapshot"')[:-1] + b',"sessions":'
        end = b'],"blocks_in_progress":' + msgspec.json.encode(taken.blocks_in_progress) + b"}\n"
        # Clients that read slowly hold the same rows, not some each.
        return chain([_begin("snapshot", request_id), begin], self._all_rows(table), [end])

    def frame(self, request_id: RequestId, base: int, within_s: float = 0.0) -> tuple[int, Message]:
        """Return a frame and its `seq`: what has changed since the frame `base`, or everything if that is not known.

        within_s: as of `message`.
        """
        taken, table = self._latest(within_s)
        frame: Message | None = self._changes.get(base)
        if frame is None and len(self._changes) < MAX_BASES:
            with self._building():
                changes = table.changes(base, taken)
            if changes is not None:
                frame = self._changes[base] = changes
        if frame is None:
            begin = frame_head(taken, None, None, []) + b',"counts":[],"rows":'
            frame = chain([begin], self._all_rows(table), [b"]}\n"])
        return taken.seq, chain([_begin("frame", request_id)], frame)

    def _latest(self, within_s: float) -> tuple[Taken, RowTable]:
        now = self._clock()
        if self._taken is None or self._table is None or now >= max(self._fresh_until, self._began + within_s):
            if self._rows is not None:
                self._rows.finish()  # for clients that read them still
            self._drop()
            table, self._table = self._table or self._new_table(), None
            with self._building():
                self._taken = table.take()
            self._table = table  # one that could not be brought to this moment is not used again
            self._began = now
            return self._taken, table
        return self._taken, self._table

    def _new_table(self) -> RowTable:
        source = self._source
        return source.table() if isinstance(source, TableSource) else SnapshotTable(source.snapshot)

    def _all_rows(self, table: RowTable) -> RowPieces:
        if self._rows is None:
            self._rows = table.encoded(self._building)
        return self._rows

    @contextmanager
    def _building(self) -> Iterator[None]:
        began = self._cpu_clock()
        yield
        spent = self._cpu_clock() - began
        self.cpu_s += spent
        self._fresh_until = max(self._fresh_until, self._clock()) + REST * spent


def _begin(kind: str, request_id: RequestId) -> bytes:
    return b'{"type":"%b","id":%b' % (kind.encode(), msgspec.json.encode(request_id))
