"""The workers that a view is about: those of this machine, and those behind a relay."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from openrtc_introspect_core.wire import WorkerSocket

if TYPE_CHECKING:
    from openrtc_top._via import Via

_W = TypeVar("_W", bound=WorkerSocket)
Find = Callable[[], Sequence[WorkerSocket]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteWorker(WorkerSocket):
    """A worker on the other side of a relay. Its `path` reads `host:path`, and is opened by nobody here."""

    socket: str
    """Its socket's path over there."""
    user: str | None = None
    """Whose it is, where the relay told."""
    via: Via = field(compare=False, repr=False)


def given(path: Path) -> WorkerSocket:
    """The socket that the user named. The snapshot tells its worker's name and process."""
    return WorkerSocket(path=path, name=path.stem, pid=None)


def choose(workers: Sequence[_W], wanted: Sequence[str]) -> list[_W]:
    """The workers of these names or process ids; all, if none is named."""
    if not wanted:
        return list(workers)
    # A socket's file name holds the worker's name with other characters replaced.
    accepted = {*wanted, *(re.sub(r"[^A-Za-z0-9._]", "_", name) for name in wanted)}
    return [
        worker
        for worker in workers
        if accepted & {worker.name, str(worker.pid or worker.name), f"{host(worker)}:{worker.name}"}
    ]


def owner_name(worker: WorkerSocket) -> str | None:
    """The user that the worker belongs to, where it was looked up and is not our own."""
    if worker.owner is None or worker.owner == os.geteuid():
        return None
    import pwd

    try:
        return pwd.getpwuid(worker.owner).pw_name
    except KeyError:  # no user of this machine has the number
        return str(worker.owner)


def host(worker: WorkerSocket) -> str | None:
    """Where a view says the worker runs: the host, or the user it belongs to, or both. None: here, and it is ours."""
    if isinstance(worker, RemoteWorker):
        return f"{worker.user}@{worker.via.label}" if worker.user else worker.via.label
    return owner_name(worker)


def named(host: str | None, name: str) -> str:
    """What a view calls a worker: its name, after where it runs."""
    return name if host is None else f"{host}:{name}"


def shown_name(worker: WorkerSocket, name: str) -> str:
    """What a view calls this worker, which calls itself `name`."""
    return named(host(worker), name)
