"""The evidence for a diagnosis: snapshots, recent blocks, and what sessions wait for.

No code here reads a clock: "now" is the moment of the last snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from statistics import median
from typing import NamedTuple

from ..wire._messages import Block, SessionRow, Snapshot, Waits, WorkerInfo
from .waiting import Waiting

RECENT_S = 60.0
"""Seconds for which blocks count."""
MIN_SPAN_S = 1.5
MIN_FRAMES = 3
"""Rates and shares need so many seconds and so many snapshots."""
FULL_HOST_PCT = 90.0
"""The use of all cores from which on wall time counts only up to the processor time of the process."""


class Watched(NamedTuple):
    """One session over the series."""

    row: SessionRow
    """Its row in the last snapshot."""
    busy_s: float
    """Seconds that it held the loop during the series."""
    steps: int
    """Task steps that it ran during the series."""


class Evidence:
    """The snapshots since the worker's last start, and figures derived from them.

    snapshots: at least one. blocks: the worker's history of blocks that are over, at most 256. waits: answers to waits
    requests, none if the worker does not know them.
    """

    def __init__(
        self, snapshots: Iterable[Snapshot], blocks: Iterable[Block] = (), waits: Iterable[Waits] = ()
    ) -> None:
        every = sorted(snapshots, key=lambda snapshot: snapshot.taken_at)
        self.last = every[-1]
        self.frames = [frame for frame in every if frame.worker.epoch == self.last.worker.epoch]
        self.first = self.frames[0]
        self.rows = [row for row in self.last.sessions if row.status != "errored"]
        """The sessions that are live in the last snapshot, without those that failed and are still shown."""
        self.span_s = self.last.taken_at - self.first.taken_at
        """Seconds from the first snapshot to the last."""
        over = [block for block in blocks if not block.in_progress]
        window = max(RECENT_S, self.span_s)
        since = self.last.taken_at - window
        self.blocks = [block for block in over if _end(block) > since]
        """The blocks of the last minute, or of the series if that is longer."""
        forgotten = [block.started_at for block in over if block.seq > 1 and len(over) >= 256]
        lived = self.worker.uptime_s or window
        kept = self.last.taken_at - min(forgotten) if forgotten else window
        self.recent_s = max(1.0, min(window, lived, kept))
        """The seconds that `blocks` covers: fewer if the worker is younger or its history shorter."""

        answers = [answer for answer in waits if answer.taken_at >= self.worker.started_at]
        self.waiting = Waiting(sorted(answers, key=lambda answer: answer.taken_at))
        """What sessions wait for, by the answers since the worker's last start."""

    @property
    def worker(self) -> WorkerInfo:
        """The worker as the last snapshot shows it."""
        return self.last.worker

    @property
    def enough(self) -> bool:
        """Whether the series is long enough for rates and shares."""
        return self.span_s >= MIN_SPAN_S and len(self.frames) >= MIN_FRAMES

    def of_cause(self, *causes: str) -> list[Block]:
        """Return the recent blocks of these causes."""
        return [block for block in self.blocks if block.cause in causes]

    def share_of_recent(self, milliseconds: float) -> float:
        """Return a total duration of recent blocks in percent of `recent_s`."""
        return 0.1 * milliseconds / self.recent_s

    def median(self, figure: Callable[[WorkerInfo], float | None]) -> float | None:
        """Return the median of a gauge.

        None: most snapshots lack it, or the series is too short.
        """
        values = [value for frame in self.frames if (value := figure(frame.worker)) is not None]
        return median(values) if self.enough and 2 * len(values) > len(self.frames) else None

    def of_its_own(self, pct: float) -> float:
        """Return the part of a share of wall time that the worker caused, in percent.

        On a host whose cores are all in use, a step waits for a processor in its midst, so short steps look long.
        There, at most the processor time that the process got counts.
        """
        host = self.median(lambda worker: worker.host.cpu_pct)
        used = self.median(lambda worker: worker.host.process_cpu_pct)
        return pct if host is None or used is None or host < FULL_HOST_PCT else min(pct, used)

    def held_s(self, blocks: Iterable[Block]) -> float:
        """Return the seconds of these blocks that fall into the series."""
        return sum(self._within(block.started_at, _end(block)) for block in blocks)

    def going_on_s(self, blocks: Iterable[Block] | None = None) -> float:
        """Return the same of blocks in progress: of `blocks`, or of all if it is None."""
        going_on = self.last.blocks_in_progress if blocks is None else blocks
        return sum(self._within(since(block), self.last.taken_at) for block in going_on)

    def held_by(self) -> dict[str | None, float]:
        """Return the same of all blocks, recent and in progress, by session id."""
        held: dict[str | None, float] = {}
        spans = [(block, block.started_at, _end(block)) for block in self.blocks]
        spans += [(block, since(block), self.last.taken_at) for block in self.last.blocks_in_progress]
        for block, start, end in spans:
            held[block.session_id] = held.get(block.session_id, 0.0) + self._within(start, end)
        return held

    @cached_property
    def sessions(self) -> list[Watched]:
        """The live sessions whose loop time is measured; none in process mode."""
        if self.worker.isolation == "process":
            return []
        before = {row.session_id: row for row in self.first.sessions}
        found = []
        for row in self.rows:
            if row.cpu_s is None or row.steps is None:
                continue
            old = before.get(row.session_id)
            same = old is not None and old.started_at == row.started_at
            old_s, old_steps = (old.cpu_s or 0.0, old.steps or 0) if same and old is not None else (0.0, 0)
            found.append(Watched(row, max(0.0, row.cpu_s - old_s), max(0, row.steps - old_steps)))
        return found

    @cached_property
    def stayed(self) -> list[tuple[SessionRow, SessionRow]]:
        """(first row, last row) of each session that was live throughout the series."""
        before = {(row.session_id, row.started_at): row for row in self.first.sessions}
        return [(old, row) for row in self.rows if (old := before.get((row.session_id, row.started_at))) is not None]

    def _within(self, start: float, end: float) -> float:
        return max(0.0, min(end, self.last.taken_at) - max(start, self.first.taken_at))


def since(block: Block) -> float:
    """Return when the block began, as Unix time in seconds."""
    return block.started_at if block.running_since is None else block.running_since


def held_across_await(block: Block) -> bool:
    """Return whether the loop waited for what a suspended task held.

    The task cannot let go of it before the loop goes on.
    """
    holder = block.holder
    return holder is not None and holder.thread is None and holder.task_name is not None and holder.since is not None


def together_ms(blocks: Sequence[Block]) -> float:
    """Return the total duration of the blocks, in milliseconds."""
    return sum(block.duration_ms for block in blocks)


def climbs(values: Sequence[float], least: float) -> bool:
    """Return whether the values rose by `least` or more, and steadily.

    A quarter of the rise at least must be in each half of the series: a single jump is no trend.
    """
    rise = values[-1] - values[0]
    first_half = values[len(values) // 2] - values[0]
    return rise >= least and 0.25 * rise <= first_half <= 0.75 * rise


def _end(block: Block) -> float:
    return block.started_at + block.duration_ms / 1000.0
