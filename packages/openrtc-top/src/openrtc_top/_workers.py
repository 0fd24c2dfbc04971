"""The workers as the view knows them, and what becomes of them: found, heard, lost, forgotten.

All of it on tuples of workers, by name and then process id: while the view is paused, those shown
stand still and another tuple goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from openrtc_top._blocks import later
from openrtc_top._history import HISTORY_S, Points, Second, longer
from openrtc_top._judged import NOTHING, Judged
from openrtc_top._sockets import named

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Block, Snapshot, WorkerInfo

FORGET_GONE_S = 600.0
"""A worker that is gone disappears after this long, if others are there."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker, as far as this view knows it."""

    key: str
    name: str
    """What it calls itself; on another host after the host's name and a colon."""
    pid: int | None = None
    host: str | None = None
    """The machine it runs on, as the user called it. None: this one."""
    snapshot: Snapshot | None = None
    history: Points = ()
    """How busy its loop was, percent."""
    trail: tuple[Second, ...] = ()
    """The same of its sessions."""
    blocks: tuple[Block, ...] = ()
    """The last that are over, oldest first."""
    judged: Judged = NOTHING
    """What is wrong with it."""
    heard_at: float | None = None
    """When its last snapshot came, by the view's clock."""
    gone: str | None = None
    """Why it cannot be read now. None: it can, or it was not tried yet."""
    gone_at: float | None = None
    retry_at: float | None = None
    """When it is tried again, by the view's clock. None: not known, or it is not gone."""


Workers = tuple[Worker, ...]


def get(workers: Workers, key: str) -> Worker | None:
    """The worker of this key."""
    return next((worker for worker in workers if worker.key == key), None)


def found(workers: Workers, key: str, name: str, pid: int | None, host: str | None) -> Workers:
    """With a worker of which nothing else is known yet."""
    return workers if get(workers, key) else _with(workers, Worker(key, named(host, name), pid, host))


def dropped(workers: Workers, key: str) -> Workers:
    """Without this one, whatever is known of it."""
    return tuple(worker for worker in workers if worker.key != key) if get(workers, key) else workers


def heard(workers: Workers, key: str, snapshot: Snapshot, now: float) -> Workers:
    """With a worker's newest snapshot. If it was started anew, it stands for the one that is gone."""
    info = snapshot.worker
    before = get(workers, key)
    history: Points = ()
    trail: tuple[Second, ...] = ()
    blocks: tuple[Block, ...] = ()
    judged = NOTHING
    if before and before.snapshot and before.snapshot.worker.epoch == info.epoch:
        history, trail, blocks, judged = before.history, before.trail, before.blocks, before.judged
    busy = busy_pct(info)
    if busy is not None:
        second = int(snapshot.taken_at)
        kept = [point for point in history if second - HISTORY_S < point[0] < second]
        history = (*kept, (second, busy))
    host = before.host if before else None
    name = named(host, info.name)
    if before is None or before.snapshot is None:
        workers = _without_predecessor(workers, key, name, info)
    trail = longer(trail, snapshot)
    judged = judged.after(snapshot, blocks)
    return _with(workers, Worker(key, name, info.pid, host, snapshot, history, trail, blocks, judged, heard_at=now))


def told(workers: Workers, key: str, blocks: Sequence[Block]) -> Workers:
    """With blocks that are over, oldest first."""
    known = get(workers, key)
    return _with(workers, replace(known, blocks=later(known.blocks, blocks))) if known and blocks else workers


def lost(workers: Workers, key: str, reason: str, retry_s: float | None, now: float) -> Workers:
    """With a worker that cannot be read, and when it is tried again."""
    worker = get(workers, key) or Worker(key, name=key)
    since = now if worker.gone_at is None else worker.gone_at
    retry_at = None if retry_s is None else now + retry_s
    return _with(workers, replace(worker, gone=reason, gone_at=since, retry_at=retry_at))


def forget(workers: Workers, now: float) -> Workers:
    """Without those that have been gone for long, but never without the last one."""
    stale = [worker for worker in workers if worker.gone_at is not None and now - worker.gone_at > FORGET_GONE_S]
    if not stale or len(stale) == len(workers):
        return workers
    return tuple(worker for worker in workers if worker not in stale)


def dismissed(workers: Workers, key: str) -> Workers:
    """Without this one, if it is gone and not the last."""
    worker = get(workers, key)
    if worker is None or worker.gone is None or len(workers) == 1:
        return workers
    return tuple(other for other in workers if other is not worker)


def _without_predecessor(workers: Workers, key: str, name: str, info: WorkerInfo) -> Workers:
    """Two workers may have one name, and only one of them died: a newcomer replaces one, if it began later."""
    gone = [
        worker
        for worker in workers
        if worker.key != key and worker.name == name and worker.gone is not None and worker.snapshot is not None
        if info.started_at >= worker.snapshot.taken_at
    ]
    if not gone:
        return workers
    first = min(gone, key=lambda worker: worker.gone_at or 0.0)
    return tuple(worker for worker in workers if worker is not first)


def _with(workers: Workers, worker: Worker) -> Workers:
    others = [other for other in workers if other.key != worker.key]
    return tuple(sorted([*others, worker], key=lambda worker: (worker.name, worker.pid or 0, worker.key)))


def busy_pct(worker: WorkerInfo) -> float | None:
    """How much of its time the loop was at work. Where the idle time is not to be had, the sum of
    the parts that are, which is a lower bound."""
    time = worker.loop_time
    if time.idle_pct is not None:
        return min(100.0, max(0.0, 100.0 - time.idle_pct))
    parts = [part for part in (time.sessions_pct, time.untagged_pct, time.gc_pct, time.other_pct) if part is not None]
    return min(100.0, sum(parts)) if parts else None
