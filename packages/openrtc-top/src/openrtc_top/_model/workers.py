"""The workers as the view knows them: found, heard, lost, forgotten.

All functions take and return tuples of workers, ordered by name (w2 before w10) and then process id: while the view is
paused, the tuple that is shown stands still and another one goes on.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from openrtc_top._model.blocks import merged
from openrtc_top._model.box_reading import overlaid
from openrtc_top._model.diagnosis import NO_DIAGNOSIS, Diagnosis
from openrtc_top._model.history import HISTORY_S, Points, Second, extended
from openrtc_top._model.waits import Survey

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Block, Snapshot, WorkerInfo
    from openrtc_top._model.box_reading import BoxReading

FORGET_GONE_S = 600.0
"""A worker that is gone disappears after so many seconds, if others are there."""
NO_WORKER_THERE = "no worker runs there"
"""What a host's stand-in is gone for, if the host was reached."""
_NUMBERS = re.compile(r"([0-9]{1,18})")
Natural = list[tuple[int, str]]
_NEWER_S = 2.0
"""A snapshot in a black box is shown if it is so much newer than the one that is shown."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker, as far as this view knows it."""

    key: str
    name: str
    """The worker's own name; on another host after the host's name and a colon."""
    pid: int | None = None
    host: str | None = None
    """The machine it runs on, as the user called it. None: this one."""
    snapshot: Snapshot | None = None
    history: Points = ()
    """The share of time in which its loop was at work, percent, second by second."""
    trail: tuple[Second, ...] = ()
    """The loop time and memory of its sessions, second by second."""
    blocks: tuple[Block, ...] = ()
    """The last blocks that are over, oldest first."""
    diagnosis: Diagnosis = NO_DIAGNOSIS
    """The findings about it."""
    survey: Survey | None = None
    """Its last answer about what its tasks wait for. None: it was not asked."""
    heard_at: float | None = None
    """When its last snapshot was taken, by the view's clock."""
    frozen: bool = False
    """It does not answer, and its black box says that its loop is held."""
    gone: str | None = None
    """The reason why it cannot be read now. None: it can, or nobody has tried so far."""
    gone_at: float | None = None
    retry_at: float | None = None
    """When it is tried again, by the view's clock. None: not known, or it is not gone."""


Workers = tuple[Worker, ...]


def worker_label(host: str | None, name: str) -> str:
    """Return what a view calls a worker: its name, after its host if there is one."""
    return name if host is None else f"{host}:{name}"


def get_worker(workers: Workers, key: str) -> Worker | None:
    """Return the worker of this key. None: there is none."""
    for worker in workers:  # of many workers it is asked all the time, and this is the fastest
        if worker.key == key:
            return worker
    return None


def with_found(workers: Workers, key: str, name: str, pid: int | None, host: str | None) -> Workers:
    """Add a worker of which nothing else is known so far."""
    return workers if get_worker(workers, key) else _with(workers, Worker(key, worker_label(host, name), pid, host))


def without(workers: Workers, key: str) -> Workers:
    """Remove a worker, whatever is known of it."""
    return tuple(worker for worker in workers if worker.key != key) if get_worker(workers, key) else workers


def with_snapshot(workers: Workers, key: str, snapshot: Snapshot, now: float) -> Workers:
    """Take in a worker's newest snapshot.

    A worker that was started anew replaces the one that is gone.
    """
    info = snapshot.worker
    before = get_worker(workers, key)
    history: Points = ()
    trail: tuple[Second, ...] = ()
    blocks: tuple[Block, ...] = ()
    diagnosis, survey = NO_DIAGNOSIS, None
    if before and before.snapshot and before.snapshot.worker.epoch == info.epoch:
        history, trail, blocks, diagnosis = before.history, before.trail, before.blocks, before.diagnosis
        survey = before.survey
    busy = busy_pct(info)
    if busy is not None:
        second = int(snapshot.taken_at)
        kept = [point for point in history if second - HISTORY_S < point[0] < second]
        history = (*kept, (second, busy))
    host = before.host if before else None
    name = worker_label(host, info.name)
    if before is None or before.snapshot is None:
        workers = _without_predecessor(workers, key, name, info)
    trail = extended(trail, snapshot)
    diagnosis = diagnosis.after(snapshot, blocks, len(workers))
    after = Worker(key, name, info.pid, host, snapshot, history, trail, blocks, diagnosis, survey, heard_at=now)
    return _with(workers, after)


def with_reading(workers: Workers, key: str, reading: BoxReading, now: float) -> Workers:
    """Take in what the black box of a worker says that has not answered for a moment.

    A worker that is slow to answer is not frozen: its box counts only if it has a loop that is held, or a snapshot
    that is much newer than the one shown.
    """
    before = get_worker(workers, key)
    shown = before.snapshot if before else None
    told, held = reading.snapshot, reading.held is not None
    known = before is not None and shown is not None and shown.worker.epoch == told.worker.epoch
    newer = not known or shown is None or told.taken_at > shown.taken_at + _NEWER_S
    if not (held or newer or (before is not None and before.frozen)):
        return workers
    snapshot = overlaid(shown, reading)
    kept = before is not None and shown is not None and known and snapshot.taken_at == shown.taken_at
    heard_at = before.heard_at if before is not None and kept else now - reading.age_s
    workers = with_blocks(with_snapshot(workers, key, snapshot, now), key, reading.blocks)
    after = get_worker(workers, key)
    assert after is not None
    return _with(workers, replace(after, heard_at=heard_at, frozen=held))


def with_blocks(workers: Workers, key: str, blocks: Sequence[Block]) -> Workers:
    """Take in blocks that are over, oldest first."""
    known = get_worker(workers, key)
    return _with(workers, replace(known, blocks=merged(known.blocks, blocks))) if known and blocks else workers


def with_survey(workers: Workers, key: str, survey: Survey) -> Workers:
    """Take in a worker's answer about what its tasks wait for."""
    known = get_worker(workers, key)
    return _with(workers, replace(known, survey=survey)) if known else workers


def with_lost(workers: Workers, key: str, reason: str, retry_s: float | None, now: float) -> Workers:
    """Take in that a worker cannot be read, and is tried again in `retry_s`."""
    worker = get_worker(workers, key) or Worker(key, name=key)
    since = now if worker.gone_at is None else worker.gone_at
    retry_at = None if retry_s is None else now + retry_s
    return _with(workers, replace(worker, gone=reason, gone_at=since, retry_at=retry_at, frozen=False))


def without_long_gone(workers: Workers, now: float) -> Workers:
    """Remove the workers that have been gone for long, but never the last one."""
    stale = [worker for worker in workers if worker.gone_at is not None and now - worker.gone_at > FORGET_GONE_S]
    if not stale or len(stale) == len(workers):
        return workers
    return tuple(worker for worker in workers if worker not in stale)


def without_dismissed(workers: Workers, key: str) -> Workers:
    """Remove a worker that the user dismisses, if it is gone and not the last one."""
    worker = get_worker(workers, key)
    if worker is None or worker.gone is None or len(workers) == 1:
        return workers
    return tuple(other for other in workers if other is not worker)


def _without_predecessor(workers: Workers, key: str, name: str, info: WorkerInfo) -> Workers:
    """Remove the one worker that a newcomer replaces.

    It has the same name, is gone, and was last heard before the newcomer began.
    """
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
    for index, other in enumerate(workers):
        if other.key == worker.key:
            rest = (*workers[:index], *workers[index + 1 :])
            if (other.name, other.pid) != (worker.name, worker.pid):
                workers = rest
                break
            return (*rest[:index], worker, *rest[index:])
    index = bisect_right(workers, _place(worker), key=_place)
    return (*workers[:index], worker, *workers[index:])


def _place(worker: Worker) -> tuple[Natural, int, str]:
    """Return the worker's place: by name, then process id."""
    return natural(worker.name), worker.pid or 0, worker.key


def natural(name: str) -> Natural:
    """Return what names are ordered by if numbers in them count as such: w2 before w10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _NUMBERS.split(name) if part]


def busy_pct(worker: WorkerInfo) -> float | None:
    """Return the share of time in which the loop was at work, percent.

    None: no part of it is known.

    If the idle time is not known, it is the sum of the parts that are, which is a lower bound.
    """
    time = worker.loop_time
    if time.idle_pct is not None:
        return min(100.0, max(0.0, 100.0 - time.idle_pct))
    parts = [part for part in (time.sessions_pct, time.untagged_pct, time.gc_pct, time.other_pct) if part is not None]
    return min(100.0, sum(parts)) if parts else None
