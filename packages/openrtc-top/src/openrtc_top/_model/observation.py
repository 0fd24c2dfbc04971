"""The observation of one worker for some seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec import structs

from openrtc_introspect_core._diagnosis.echoes import is_echo
from openrtc_top._model.blocks import merged

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Block, Snapshot, WaitGroup, Waits, WorkerSocket
    from openrtc_top._model.box_reading import BoxReading


FROZEN_MS = 500.0
"""A loop that is held for so long by a worker that does not answer is a finding."""
_MOMENT_S = 0.05
STUCK_S = 2.0
"""A session that took no step for so long, and still waits at the same place, is worth a line."""
MAX_PLACES = 3


@dataclass(slots=True)
class Observation:
    """One worker's snapshots, what its sessions waited for, and its history of blocks at the end."""

    worker: WorkerSocket
    snapshots: list[Snapshot] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    waits: list[Waits] = field(default_factory=list)
    """Some answers over the time. Empty: the worker does not know the request."""
    lost: str | None = None
    """The reason why it was observed for less than was asked for. None: it was not lost."""
    host: str | None = None
    """The host it runs on, or its owner. None: this host, and the current user."""

    frozen: BoxReading | None = None
    """What its black box says, if it does not answer and its loop is held. None: it answers, as far as is known."""

    def take(self, reading: BoxReading) -> None:
        """Take in what the worker's black box says while it does not answer, if that is a finding.

        A box says since when a loop is held, so one reading stands for two snapshots.
        """
        if reading.held is None or reading.held.duration_ms < FROZEN_MS:
            return
        self.frozen = reading
        moments = (reading.now - _MOMENT_S, reading.now)
        self.snapshots += [structs.replace(reading.snapshot, taken_at=moment) for moment in moments]
        self.blocks = list(merged(self.blocks, reading.blocks))

    @property
    def waiting(self) -> list[WaitGroup]:
        """The places at which sessions waited all the time, by the last answers.

        Those of which it is known who has what they wait for come first, then those with the most sessions. Of tasks
        that wait for others of the same sessions one place is listed.
        Whether such a wait is a fault cannot be told: an idle chat waits as well.
        """
        if len(self.waits) < 2:
            return []
        *before, last = self.waits[-3:]
        known = [{_place(group) for group in answer.groups if group.stuck} for answer in before]
        places = [
            group
            for group in last.groups
            if group.stuck and group.since is not None and last.taken_at - group.since >= STUCK_S
            if all(_place(group) in places for places in known)
        ]
        places = [group for group in places if not is_echo(group, places)]
        return sorted(places, key=lambda group: (not group.holders, -group.stuck))[:MAX_PLACES]

    @property
    def seconds(self) -> float:
        """From the first snapshot to the last."""
        return self.snapshots[-1].taken_at - self.snapshots[0].taken_at

    @property
    def run_delay_pct(self) -> float:
        """The share of time in which the system kept a ready loop from running.

        Only blocks count of which the kernel says so.
        """
        begin, end = self.snapshots[0].taken_at, self.snapshots[-1].taken_at
        spans = [(b.started_at, b.started_at + b.duration_ms / 1000) for b in self.blocks if b.cause == "descheduled"]
        waited = sum(max(0.0, min(until, end) - max(since, begin)) for since, until in spans)
        return 100.0 * waited / self.seconds if self.seconds > 0.0 else 0.0


def _place(group: WaitGroup) -> tuple[str, str | None, str | None]:
    place = group.location
    return group.kind, None if place is None else place.file, None if place is None else place.function
