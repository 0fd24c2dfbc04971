"""What the rules of a diagnosis look at: a short series of snapshots, and the blocks around it.

Nothing here reads a clock: "now" is when the last snapshot was taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from statistics import median
from typing import NamedTuple

from .wire._messages import Block, SessionRow, Snapshot, WorkerInfo

RECENT_S = 60.0
"""Blocks count for so long."""
WATCHED_S = 1.5
FULL_HOST_PCT = 90.0
FRAMES = 3
"""A rate or a share is judged over this many snapshots, and this many seconds, at least."""


class Watched(NamedTuple):
    """One session over the series."""

    row: SessionRow
    """As the last snapshot has it."""
    busy_s: float
    """Seconds it held the loop while it was watched."""
    steps: int
    """Task steps it ran meanwhile."""


class Evidence:
    """The snapshots of the worker's last start, in their order, and what can be worked out from them.

    snapshots: at least one. blocks: those that are over; the worker keeps the last 256.
    """

    def __init__(self, snapshots: Iterable[Snapshot], blocks: Iterable[Block] = ()) -> None:
        every = sorted(snapshots, key=lambda snapshot: snapshot.taken_at)
        self.last = every[-1]
        self.frames = [frame for frame in every if frame.worker.epoch == self.last.worker.epoch]
        self.first = self.frames[0]
        self.span_s = self.last.taken_at - self.first.taken_at
        """How long it was watched, seconds."""
        over = [block for block in blocks if not block.in_progress]
        window = max(RECENT_S, self.span_s)
        since = self.last.taken_at - window
        self.blocks = [block for block in over if _end(block) > since]
        """Those of the last minute; of all the time it was watched, where that is longer."""
        forgotten = [block.started_at for block in over if block.seq > 1 and len(over) >= 256]
        lived = self.worker.uptime_s or window
        kept = self.last.taken_at - min(forgotten) if forgotten else window
        self.recent_s = max(1.0, min(window, lived, kept))
        """The seconds that `blocks` are out of."""

    @property
    def worker(self) -> WorkerInfo:
        """As the last snapshot has it."""
        return self.last.worker

    @property
    def enough(self) -> bool:
        """Whether the series is long enough to judge rates by."""
        return self.span_s >= WATCHED_S and len(self.frames) >= FRAMES

    def of_cause(self, *causes: str) -> list[Block]:
        """The recent blocks of these causes."""
        return [block for block in self.blocks if block.cause in causes]

    def share_of_recent(self, milliseconds: float) -> float:
        """Blocks of so long together, in percent of the time they are out of."""
        return 0.1 * milliseconds / self.recent_s

    def median(self, figure: Callable[[WorkerInfo], float | None]) -> float | None:
        """The middle one of a gauge's values over the series. None: not measured in most of it, or not enough."""
        values = [value for frame in self.frames if (value := figure(frame.worker)) is not None]
        return median(values) if self.enough and 2 * len(values) > len(self.frames) else None

    def of_its_own(self, pct: float) -> float:
        """As much of a share of wall time as is the worker's doing.

        On a host whose cores are all taken, a step waits for a processor in its midst, and what is short looks long:
        there, no more counts than the processor time that the process got.
        """
        host = self.median(lambda worker: worker.host.cpu_pct)
        used = self.median(lambda worker: worker.host.process_cpu_pct)
        return pct if host is None or used is None or host < FULL_HOST_PCT else min(pct, used)

    def held_s(self, blocks: Iterable[Block]) -> float:
        """Seconds of these blocks that fall into the time it was watched."""
        return sum(self._within(block.started_at, _end(block)) for block in blocks)

    def going_on_s(self) -> float:
        """The same of the blocks that are in progress."""
        return sum(self._within(since(block), self.last.taken_at) for block in self.last.blocks_in_progress)

    def held_by(self) -> dict[str | None, float]:
        """The same of all blocks, recent and in progress, by session."""
        held: dict[str | None, float] = {}
        spans = [(block, block.started_at, _end(block)) for block in self.blocks]
        spans += [(block, since(block), self.last.taken_at) for block in self.last.blocks_in_progress]
        for block, start, end in spans:
            held[block.session_id] = held.get(block.session_id, 0.0) + self._within(start, end)
        return held

    @cached_property
    def sessions(self) -> list[Watched]:
        """The sessions that live at the end and whose loop time is measured."""
        before = {row.session_id: row for row in self.first.sessions}
        found = []
        for row in self.last.sessions:
            if row.cpu_s is None or row.steps is None:
                continue
            old = before.get(row.session_id)
            same = old is not None and old.started_at == row.started_at
            old_s, old_steps = (old.cpu_s or 0.0, old.steps or 0) if same and old is not None else (0.0, 0)
            found.append(Watched(row, max(0.0, row.cpu_s - old_s), max(0, row.steps - old_steps)))
        return found

    @cached_property
    def stayed(self) -> list[tuple[SessionRow, SessionRow]]:
        """(at first, at last) of each session that lived all the time."""
        before = {(row.session_id, row.started_at): row for row in self.first.sessions}
        return [
            (old, row)
            for row in self.last.sessions
            if (old := before.get((row.session_id, row.started_at))) is not None
        ]

    def _within(self, start: float, end: float) -> float:
        return max(0.0, min(end, self.last.taken_at) - max(start, self.first.taken_at))


def since(block: Block) -> float:
    """When it began, seconds."""
    return block.started_at if block.running_since is None else block.running_since


def together_ms(blocks: Sequence[Block]) -> float:
    """How long they were, all of them."""
    return sum(block.duration_ms for block in blocks)


def climbs(values: Sequence[float], least: float) -> bool:
    """Whether it rose by `least` or more, and by a quarter of that rise at least in each half of the series:
    a single jump is no trend."""
    rise = values[-1] - values[0]
    first_half = values[len(values) // 2] - values[0]
    return rise >= least and 0.25 * rise <= first_half <= 0.75 * rise


def _end(block: Block) -> float:
    return block.started_at + block.duration_ms / 1000.0
