"""Reading black boxes: of workers that do not answer, and of those that died."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from openrtc_introspect_core import BoxError
from openrtc_introspect_core.black_box import BoxFile, box_path
from openrtc_top._client.targets import RemoteWorker, owner_name
from openrtc_top._model.box_reading import BoxReading, DeadHere, DeadWorker, dead_worker

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import WorkerSocket
    from openrtc_top._client.targets import Target

FindDead = Callable[["Sequence[WorkerSocket]"], "Sequence[DeadWorker]"]
"""A function from the workers that take connections to those that died."""

_Identity = tuple[int, int, int, int]


def read_box(path: Path, owner: int | None = None) -> BoxReading:
    """Return what a black box of this machine says now. Raises BoxError.

    owner: the user id that it must belong to. None: this user's; for root, anyone's.
    """
    from openrtc_introspect_core import black_box

    box = black_box.read_box(path, owner)
    now = time.time()
    return BoxReading(
        box=str(path),
        worker=box.worker,
        pid=box.pid,
        alive=box.alive,
        now=now,
        at=box.at,
        started_at=box.started_at,
        version=box.version,
        recorded=box.snapshot is not None,
        snapshot=black_box.snapshot_now(box, now),
        rows_left_out=box.rows_left_out,
        blocks=box.blocks,
        loops=box.loops,
        memory=box.memory,
    )


def read_live_box(worker: WorkerSocket) -> BoxReading | str:
    """Return what the black box beside a worker's socket says, or why there is nothing to be had of it."""
    path = box_path(worker.path)
    if not os.path.lexists(path):
        return "it has no black box"
    try:
        reading = read_box(path, worker.owner)
    except BoxError as error:
        return str(error)
    return reading if reading.alive else "it has died"


async def ask_box(worker: WorkerSocket) -> BoxReading | str:
    """Return the same, for code in an event loop; of a worker on another host, too."""
    if isinstance(worker, RemoteWorker):
        told = await worker.relay.box(worker.box)
        return told if isinstance(told, str) or told.alive else "it has died"
    import anyio

    return await anyio.to_thread.run_sync(read_live_box, worker, abandon_on_cancel=True)


class DeadWorkers:
    """The dead workers of some boxes. A box that was found dead is read once: it does not change any more."""

    def __init__(self) -> None:
        self._known: dict[_Identity, BoxReading | DeadWorker] = {}

    def among(self, files: Iterable[BoxFile], live: Sequence[WorkerSocket]) -> list[DeadWorker]:
        """Return those that died, the last one first.

        live: workers that take connections, whose boxes need not be read.

        A box that cannot be read is listed with the reason.
        """
        alive = {box_path(worker.path) for worker in live}
        found: list[DeadWorker] = []
        known: dict[_Identity, BoxReading | DeadWorker] = {}
        for file in files:
            identity = None if file.path in alive else _identity(file.path)
            if identity is None:
                continue
            told = self._known.get(identity) or _read(file)
            if told is None:
                continue
            known[identity] = told
            if isinstance(told, DeadWorker):
                found.append(told)
            else:
                now = max(time.time(), told.at)
                found.append(dead_worker(_at(told, now), owner_name(file)))
        self._known = known
        return sorted(found, key=lambda each: (each.error is not None, each.age_s, each.box))


def dead_finder(target: Target) -> FindDead:
    """Return a function that can be asked again and again for the target's workers of this machine that died."""
    dead = DeadWorkers()
    # Sockets that were named are there whether or not somebody listens.
    return lambda live: dead.among(target.boxes(), () if target.sockets else live)


def find_dead(target: Target, live: Sequence[WorkerSocket]) -> list[DeadHere]:
    """Return the target's workers that died, on this machine and on others; the last one first."""
    found = [DeadHere(None, each) for each in dead_finder(target)(live)]
    found += [DeadHere(relay.label, each, relay.via) for relay in target.all_relays for each in relay.dead]
    return sorted(found, key=lambda each: each.worker.age_s)


def _read(file: BoxFile) -> BoxReading | DeadWorker | None:
    """Return what a dead worker's box says, or that it cannot be read. None: its worker lives, or it is gone."""
    try:
        reading = read_box(file.path, file.owner)
    except BoxError as error:
        if not os.path.lexists(file.path):
            return None
        return DeadWorker(
            box=str(file.path), name=file.name, pid=file.pid, user=owner_name(file), error=str(error).strip()
        )
    return None if reading.alive else reading


def _at(reading: BoxReading, now: float) -> BoxReading:
    from msgspec import structs

    return structs.replace(reading, now=now)


def _identity(path: Path) -> _Identity | None:
    with contextlib.suppress(OSError):
        status = path.lstat()
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
    return None
