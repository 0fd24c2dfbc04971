"""What black boxes say: of a worker that does not answer, and of workers that died.

A relay passes these structs on as they are. Times are Unix time in seconds, by the clock of the worker's machine.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct, structs

from openrtc_introspect_core.black_box import LoopState, MemoryPoint
from openrtc_introspect_core.wire import Block, SessionRow, Snapshot

_TREND_S = 600.0
"""The trend of memory is that of so many seconds before the end."""
_MIN_TREND_S = 30.0
"""In a shorter time memory says nothing of a trend."""


class BoxReading(Struct, frozen=True, kw_only=True):
    """One reading of a worker's black box."""

    box: str
    """The path of the box on the worker's machine."""
    worker: str
    pid: int
    alive: bool
    """False: the worker has ended without closing."""
    now: float
    """The time of the reading."""
    at: float
    """The time of the latest record in the box."""
    started_at: float = 0.0
    version: str = ""
    """The version of the core that wrote it."""
    recorded: bool = True
    """The worker has come to write a snapshot. False: nothing is known but its loops."""
    snapshot: Snapshot
    """The worker's last snapshot, with the blocks in progress at `now`; of a dead worker, at its end."""
    rows_left_out: int = 0
    """Sessions that the snapshot has no row of."""
    blocks: list[Block] = []
    """The last blocks that were over, oldest first."""
    loops: list[LoopState] = []
    """What each loop did by its latest record."""
    memory: list[MemoryPoint] = []
    """The memory once a minute, and last that of the last record."""

    @property
    def age_s(self) -> float:
        """How old the snapshot is at the reading, seconds."""
        return max(0.0, self.now - self.snapshot.taken_at)

    @property
    def held(self) -> Block | None:
        """The block in progress that has lasted longest. None: no loop is known to be held."""
        return max(self.snapshot.blocks_in_progress, key=lambda block: block.duration_ms, default=None)

    @property
    def blind(self) -> bool:
        """Whether no thread of the worker can look while C code keeps the GIL, as with the meter in Python.

        The block in progress is as of the snapshot then, and whether it has ended since is not known.
        """
        return not self.loops

    @property
    def gil_kept(self) -> bool:
        """Whether something keeps the GIL while a loop is held: no thread of the worker can answer then."""
        return any(loop.state == "held" and loop.keeper for loop in self.loops)

    @property
    def rss_mb(self) -> float:
        """The process's memory by the last record, MB."""
        return self.memory[-1].rss_mb if self.memory else self.snapshot.worker.rss_mb

    @property
    def trend_mb_per_min(self) -> float | None:
        """How fast the memory grew over the last minutes, MB a minute. None: not known."""
        points = [point for point in self.memory if point.at >= self.memory[-1].at - _TREND_S]
        lasted = points[-1].at - points[0].at if points else 0.0
        if lasted >= _MIN_TREND_S:
            return 60.0 * (points[-1].rss_mb - points[0].rss_mb) / lasted
        return self.snapshot.worker.rss_trend_mb_per_min


class DeadWorker(Struct, frozen=True, kw_only=True):
    """A worker that died, in the few words of a list."""

    box: str
    """The path of its box on its machine."""
    name: str
    pid: int | None = None
    """None: the box cannot be read, and its file name has no process id."""
    user: str | None = None
    """Its owner. None: the user who looks."""
    age_s: float = 0.0
    """Seconds since its last record: it died no longer ago than that."""
    held: Block | None = None
    """What held its loop at the end, without stack. None: nothing is known to have, as of a blind reading."""
    error: str | None = None
    """The reason why the box cannot be read, in one line. None: it can."""


class DeadHere(NamedTuple):
    """A worker that died, and the machine it died on."""

    host: str | None
    """As the user called it. None: this one."""
    worker: DeadWorker
    via: str | None = None
    """The value of `--via` that reaches it. None: this one."""


def dead_worker(reading: BoxReading, user: str | None = None) -> DeadWorker:
    """Return a dead worker's entry in a list."""
    held = None if reading.blind else reading.held
    return DeadWorker(
        box=reading.box,
        name=reading.worker,
        pid=reading.pid,
        user=user,
        age_s=max(0.0, reading.now - reading.at),
        held=None if held is None else structs.replace(held, stack=[], delayed=None),
    )


def overlaid(shown: Snapshot | None, reading: BoxReading) -> Snapshot:
    """Return what is known of a worker: the newer snapshot, with the blocks in progress of the reading.

    A box may have no room for all rows; those of the snapshot that is shown stay then.
    """
    told = reading.snapshot
    if shown is None or shown.worker.epoch != told.worker.epoch:
        return told
    if told.taken_at > shown.taken_at and not reading.rows_left_out:
        return told
    if reading.blind and told.taken_at <= shown.taken_at:  # its block in progress is not of now either
        return shown
    blocked = {block.session_id for block in told.blocks_in_progress}
    known = {row.session_id for row in shown.sessions}
    rows = [_with_status(row, row.session_id in blocked) for row in shown.sessions]
    rows += [row for row in told.sessions if row.session_id in blocked and row.session_id not in known]
    return structs.replace(shown, sessions=rows, blocks_in_progress=told.blocks_in_progress)


def _with_status(row: SessionRow, blocked: bool) -> SessionRow:
    if blocked:
        return structs.replace(row, status="blocked")
    return structs.replace(row, status="slow") if row.status == "blocked" else row
