"""The workers of this machine: finding them, reading them once, following them.

A followed worker that is lost is reconnected for as long as the view shows it, at first soon, then
every few seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from openrtc_introspect_core import ConnectionFailed, IntrospectError
from openrtc_introspect_core.wire import Snapshot, WorkerSocket, discover

if TYPE_CHECKING:
    import anyio

    from openrtc_top._state import Event

BACKOFF_S = 0.5
BACKOFF_MOST_S = 5.0
READ_TIMEOUT_S = 5.0


def given(path: Path) -> WorkerSocket:
    """The socket that the user named. The snapshot tells its worker's name and process."""
    return WorkerSocket(path=path, name=path.stem, pid=None)


def choose(workers: Sequence[WorkerSocket], wanted: Sequence[str]) -> list[WorkerSocket]:
    """The workers of these names or process ids; all, if none is named."""
    if not wanted:
        return list(workers)
    # A socket's file name holds the worker's name with other characters replaced.
    accepted = {*wanted, *(re.sub(r"[^A-Za-z0-9._]", "_", name) for name in wanted)}
    return [worker for worker in workers if accepted & {worker.name, str(worker.pid or worker.name)}]


def find(wanted: Sequence[str] = ()) -> list[WorkerSocket]:
    """The running workers of this user that are wanted."""
    return choose(discover(), wanted)


def read(worker: WorkerSocket) -> Snapshot | Exception:
    """One snapshot, or why there is none."""
    from openrtc_introspect_core import read_snapshot

    try:
        return read_snapshot(worker.path, timeout_s=READ_TIMEOUT_S)
    except (IntrospectError, OSError) as error:
        return error


def read_all(workers: Sequence[WorkerSocket]) -> list[tuple[WorkerSocket, Snapshot | Exception]]:
    """One snapshot of each, asked at the same time: a worker that hangs holds up no other."""
    if len(workers) == 1:
        return [(workers[0], read(workers[0]))]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=32) as pool:
        return list(zip(workers, pool.map(read, workers), strict=True))


async def follow(
    worker: WorkerSocket,
    interval_s: float,
    dispatch: Callable[[Event], None],
    refreshed: Callable[[], anyio.Event],
    wanted: Callable[[], bool],
) -> None:
    """Dispatch a Frame each interval, and at once when `refreshed()` is set; Gone while the worker
    cannot be reached. Returns when it is not wanted any more.

    Each snapshot is asked for, so a view that falls behind gets fewer of them and never old ones.
    """
    import anyio

    from openrtc_introspect_core import connect
    from openrtc_top._state import Frame, Gone

    key = str(worker.path)
    delay = BACKOFF_S
    while wanted():
        try:
            async with connect(worker.path) as client:
                due = anyio.current_time()
                while True:
                    dispatch(Frame(key, await client.snapshot()))
                    delay = BACKOFF_S
                    now = anyio.current_time()
                    due = max(due + interval_s, now)
                    with anyio.move_on_after(due - now):
                        await refreshed().wait()
                        due = anyio.current_time()
        except (ConnectionFailed, OSError):
            dispatch(Gone(key, "no connection"))
        except IntrospectError as error:
            dispatch(Gone(key, str(error)))
        await anyio.sleep(delay)
        delay = min(delay * 2, BACKOFF_MOST_S)
