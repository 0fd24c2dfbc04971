"""The worker's record in its black box: made of a snapshot, the latest blocks and the trend of memory.

It is written on the service thread: once a second while sessions live, less often if that takes more than a hundredth
of a core; once when the last session has ended; then once a minute, so that an idle worker's death is known to a
minute. Where no thread in C records what holds a loop, it is written five times a second while the watchdog sees that
something does: if C code keeps the GIL from then on, it is the last look.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec

from .._base.gil import yield_gil
from ..black_box._files import remove_old
from ..black_box._layout import MAX_LOOPS
from ..black_box._records import MAX_BLOCKS, MAX_POINTS, MemoryPoint
from ..black_box._writer import MAX_WORKER_RECORD, BoxWriter
from ..wire._messages import Block, SessionRow, WorkerInfo
from .attached_loops import AttachedLoops
from .own_box import BOX_TOPIC
from .shared import Shared
from .snapshot_builder import Reading, SnapshotBuilder

INTERVAL_S = 1.0
"""Seconds between two records while sessions live."""
IDLE_INTERVAL_S = 60.0
MAX_SHARE = 0.01
"""The share of a core that records may take."""

HOLDS_EVERY_S = 0.2
"""Seconds between two records while the watchdog sees that a loop is held."""

_POINTS_EVERY_S = 60.0
_ROWS_PER_PIECE = 64
"""Rows that are made and encoded without a pause."""
_MAX_BLOCK_BYTES = MAX_WORKER_RECORD // 2
_SPARE_BYTES = 16 * 1024
"""For the names, numbers and memory points of a record."""

_encode = msgspec.json.Encoder().encode


class BoxRecord:
    """Makes the records of one worker, and writes them when they are due."""

    def __init__(self, box: BoxWriter, builder: SnapshotBuilder) -> None:
        self._box = box
        self._builder = builder
        self._shared: Shared = builder.shared
        self._loops: AttachedLoops = builder.loops
        self._due = float("-inf")
        self._hold_due = float("-inf")
        self._points: deque[MemoryPoint] = deque(maxlen=MAX_POINTS - 1)
        self._point_due = float("-inf")
        self._held = False
        """Whether a loop was held at the last record: the next one, which says that it is over, comes soon."""
        self._sessions: tuple[bool, int] | None = None
        """Whether sessions lived when the last record was written, and, if none did, how many had started by then."""
        self._blocks = msgspec.Raw(b"[]")
        self._last_block = 0

    def tick(self, now: float) -> None:
        """Write a record if one is due. If it cannot be written, note that, and write no more."""
        if BOX_TOPIC in self._shared.notes:
            return
        try:
            self._tick(now)
        except Exception as error:
            reason = getattr(error, "strerror", None) or repr(error)
            problem = f"the black box is no longer written, it keeps what it has: {reason}"
            self._shared.notes.add(BOX_TOPIC, problem, None if isinstance(error, OSError) else error)

    def hold_seen(self, now: float) -> bool:
        """Take note that a loop is held. Return whether the next tick, which is to come soon, writes that down.

        From the watchdog's thread.
        """
        if now < self._hold_due or BOX_TOPIC in self._shared.notes:
            return False
        self._due = float("-inf")
        return True

    def _tick(self, now: float) -> None:
        self._box.erase_used()
        memory = self._builder.memory
        if now >= self._point_due:
            self._point_due = now + _POINTS_EVERY_S
            self._points.append(MemoryPoint(at=self._shared.wall.at(now), rss_mb=memory.rss_mb))
        live, started = bool(self._shared.sessions.live), self._shared.sessions.started
        sessions = (live, 0 if live else started)
        if now < self._due - 0.05 and sessions == self._sessions:
            return
        if self._sessions is None:
            self._remove_old()
        began = time.thread_time()
        self._box.write_worker(self._record(now))
        spent = time.thread_time() - began
        self._hold_due = now + max(HOLDS_EVERY_S, spent / MAX_SHARE)
        self._due = now + (max(INTERVAL_S, spent / MAX_SHARE) if live or self._held else IDLE_INTERVAL_S)
        self._sessions = sessions

    def _remove_old(self) -> None:
        with suppress(OSError):  # no descriptor is left, for one: the next worker that starts will
            remove_old(self._box.path.parent)

    # --- the record ------------------------------------------------------------------------------

    def _record(self, now: float) -> bytes:
        reading = self._builder.read()
        self._held = bool(reading.in_progress)
        threads, names = [0] * MAX_LOOPS, [""] * MAX_LOOPS
        for loop in self._loops:
            if loop.box_index is not None:
                threads[loop.box_index], names[loop.box_index] = loop.hook.thread_id or 0, loop.name
        blocks = self._encoded_blocks()
        worker = self._encoded_worker(reading)
        in_progress = _encode(reading.in_progress[:MAX_LOOPS])
        room = MAX_WORKER_RECORD - _SPARE_BYTES - len(bytes(blocks)) - len(worker) - len(in_progress)
        rows, left_out = self._encoded_rows(reading, room)
        at = self._shared.wall.at(reading.moment.now)
        snapshot: dict[str, Any] = {
            "type": "snapshot",
            "seq": reading.seq,
            "taken_at": at,
            "worker": msgspec.Raw(worker),
            "sessions": msgspec.Raw(rows),
            "blocks_in_progress": msgspec.Raw(in_progress),
        }
        present = MemoryPoint(at=self._shared.wall.at(now), rss_mb=reading.rss_mb)
        return _encode(
            {
                "at": at,
                "threads": threads,
                "names": names,
                "memory": [*self._points, present],
                "blocks": blocks,
                "snapshot": snapshot,
                "rows_left_out": left_out,
            }
        )

    def _encoded_blocks(self) -> msgspec.Raw:
        """Return the JSON of the latest blocks, which is made anew once there is another one."""
        last = self._shared.history.last_seq
        if last != self._last_block:
            latest: list[Block] = self._shared.history.since(0)[-MAX_BLOCKS:]
            encoded = _encode(latest)
            while len(encoded) > _MAX_BLOCK_BYTES:
                latest = latest[len(latest) // 2 + 1 :]
                encoded = _encode(latest)
            self._blocks, self._last_block = msgspec.Raw(encoded), last
        return self._blocks

    def _encoded_worker(self, reading: Reading) -> bytes:
        worker: WorkerInfo = self._builder.worker(reading)
        encoded = _encode(worker)
        if len(encoded) > MAX_WORKER_RECORD // 4:  # the host's own notes may be of any length
            encoded = _encode(msgspec.structs.replace(worker, notes=[], loops=[]))
        return encoded

    def _encoded_rows(self, reading: Reading, room: int) -> tuple[bytes, int]:
        """Return the JSON of as many rows as fit, and the number of those that do not."""
        pieces: list[bytes] = []
        left_out = len(reading.live) + len(reading.failed)
        for number, rows in enumerate(_portions(reading)):
            if number:
                yield_gil()
            piece = _encode(rows)[1:-1]
            room -= len(piece) + 1
            if room < 0:
                break
            pieces.append(piece)
            left_out -= len(rows)
        return b"[%b]" % b",".join(pieces), left_out


def _portions(reading: Reading) -> Iterator[list[SessionRow]]:
    """Yield the rows of live sessions, those that hold a loop first, and then those that have failed."""
    live, blocked = reading.live, reading.rows.blocked
    if blocked:
        live = sorted(live, key=lambda session: session.session_id not in blocked)
    for start in range(0, len(live), _ROWS_PER_PIECE):
        yield list(reading.rows.of_live(live[start : start + _ROWS_PER_PIECE], SessionRow))
    for start in range(0, len(reading.failed), _ROWS_PER_PIECE):
        yield list(map(reading.rows.of_failed, reading.failed[start : start + _ROWS_PER_PIECE]))
