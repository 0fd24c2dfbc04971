"""The workers that a command is to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from openrtc_top._cli.outcome import NO_WORKER, USAGE, fail, no_worker

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Snapshot, WorkerSocket


def find_workers(sockets: Sequence[Path], names: Sequence[str]) -> list[WorkerSocket]:
    """Those of the sockets, else the running ones of these names or process ids, else all that run."""
    from openrtc_top._connection import choose, find, given

    if sockets and names:
        raise fail("--socket and --worker both say which workers; give one of them", USAGE)
    if sockets:
        return [given(path) for path in dict.fromkeys(sockets)]
    running = find()
    if not running:
        raise no_worker()
    if found := choose(running, names):
        return found
    told = ", ".join(worker.name if worker.pid is None else f"{worker.name} (pid {worker.pid})" for worker in running)
    raise fail(f"no worker {' or '.join(map(repr, names))}; running: {told}", NO_WORKER)


def read_workers(found: Sequence[WorkerSocket]) -> list[tuple[WorkerSocket, Snapshot]]:
    """The snapshots there are; the others are told of on stderr."""
    from openrtc_top._connection import read_all

    snapshots: list[tuple[WorkerSocket, Snapshot]] = []
    for worker, answer in read_all(found):
        if isinstance(answer, Exception):
            fail(f"{answer}; `openrtc ps` lists the workers that run", NO_WORKER)
        else:
            snapshots.append((worker, answer))
    return snapshots
