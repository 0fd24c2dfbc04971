"""What a server serves, and the latest snapshot of it, encoded once for all who ask."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from ._framing import encode, to_json
from ._messages import (
    Block,
    RequestId,
    Snapshot,
    SnapshotFrame,
    SnapshotRequest,
    Stacks,
    StacksRequest,
    Tasks,
    TasksRequest,
)

REST = 4.0
"""Seconds of rest for each second of work."""

_ROWS_PER_BREATH = 1000

Message = Sequence[bytes]
"""An encoded message, in pieces."""


class Source(Protocol):
    """What is served."""

    def snapshot(self) -> Snapshot: ...

    def blocks(self, since: int) -> list[Block]: ...

    def tasks(self, request: TasksRequest) -> Tasks | None:
        """None where no live session has that id."""

    def stacks(self, request: StacksRequest) -> Stacks: ...


class SharedSnapshot:
    """The latest snapshot, encoded once for all, for as long as it is fresh."""

    def __init__(self, source: Source, clock: Callable[[], float], cpu_clock: Callable[[], float]) -> None:
        self._source = source
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._body = b""
        self._fresh_until = -math.inf
        self.cpu_s = 0.0
        """CPU seconds spent on building so far."""

    def message(self, request_id: RequestId) -> Message:
        """A snapshot no older than four times the CPU time it takes to build."""
        if self._clock() >= self._fresh_until:
            began = self._cpu_clock()
            self._body = _encode_without_id(self._source.snapshot())
            spent = self._cpu_clock() - began
            self.cpu_s += spent
            self._fresh_until = self._clock() + REST * spent
        # Clients that take their time hold the same body, not one each.
        return to_json(SnapshotRequest(id=request_id))[:-1], self._body


def _encode_without_id(snapshot: Snapshot) -> bytes:
    """The snapshot's line from the comma behind its id on."""
    rows = []
    for start in range(0, len(snapshot.sessions), _ROWS_PER_BREATH):
        if start:
            time.sleep(1e-6)  # the encoder does not give the GIL away: let the host's thread have it
        rows.append(msgspec.json.encode(snapshot.sessions[start : start + _ROWS_PER_BREATH])[1:-1])
    frame = SnapshotFrame(
        seq=snapshot.seq,
        taken_at=snapshot.taken_at,
        worker=snapshot.worker,
        sessions=msgspec.Raw(b"[" + b",".join(rows) + b"]"),
        blocks_in_progress=snapshot.blocks_in_progress,
    )
    return encode(frame).removeprefix(b'{"type":"snapshot"')
