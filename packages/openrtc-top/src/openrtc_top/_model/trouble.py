"""How bad it looks for a worker: what is blocked now comes first, then who is gone, slow, late, busy.

Lag and load count in coarse steps, so that lines in this order do not change places with every frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from openrtc_top._model.blocks import Entry, entries
from openrtc_top._model.workers import Worker, busy_pct

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import SessionRow

_LAG_MS = (1000.0, 200.0, 50.0)
_BUSY_PCT = (95.0, 80.0)

Trouble = tuple[int, ...]
"""It is compared as a whole: the lowest is the worst."""


def trouble(worker: Worker) -> Trouble:
    """Return how bad it looks for the worker."""
    if worker.gone is not None:
        return (1,)
    snapshot = worker.snapshot
    if snapshot is None:
        return (4,)
    if snapshot.blocks_in_progress or worker.frozen:
        longest = longest_block((worker,))
        return 0, -int((longest.lasted_ms if longest else 0.0) / 1000)
    if count_status(snapshot.sessions, "slow"):
        return (2,)
    info = snapshot.worker
    return 3, _step(info.lag_p99_ms, _LAG_MS), _step(busy_pct(info), _BUSY_PCT)


def worst_first(workers: Iterable[Worker]) -> list[Worker]:
    """Return the workers, the worst first; those that are equally bad stay in their order."""
    return sorted(workers, key=trouble)


def longest_block(workers: Iterable[Worker], agent: str | None = None) -> Entry | None:
    """Return the block in progress that has lasted longest, of one agent's sessions or of all. None: there is none."""
    found = [
        entry
        for worker in workers
        if worker.gone is None and worker.snapshot is not None and worker.snapshot.blocks_in_progress
        for entry in entries(worker.key, worker.name, (), worker.snapshot)
        if agent is None or entry.block.agent_name == agent
    ]
    return max(found, key=lambda entry: entry.lasted_ms, default=None)


def count_status(sessions: Iterable[SessionRow], status: str) -> int:
    """Return how many of the sessions have the status."""
    return [session.status for session in sessions].count(status)  # type: ignore[arg-type]


def _step(value: float | None, steps: tuple[float, ...]) -> int:
    """Return which of the steps, which fall, is the first that the value reaches."""
    return next((index for index, step in enumerate(steps) if value is not None and value >= step), len(steps))
