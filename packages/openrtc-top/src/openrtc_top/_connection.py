"""The workers of this machine: finding them, reading them once, following them.

A followed worker that is lost is reconnected for as long as the view shows it, at first soon, then
every few seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from openrtc_introspect_core import ConnectionFailed, IntrospectError
from openrtc_introspect_core.wire import Block, Snapshot, WorkerSocket, discover

if TYPE_CHECKING:
    import anyio

    from openrtc_introspect_core.wire import Client
    from openrtc_top._state import Event

BACKOFF_S = 0.5
BACKOFF_MOST_S = 5.0
READ_TIMEOUT_S = 5.0
RESCAN_S = 2.0
_T = TypeVar("_T")

Find = Callable[[], Sequence[WorkerSocket]]


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


def read_blocks(worker: WorkerSocket, since: int = 0) -> list[Block] | Exception:
    """The blocks it still keeps that are numbered above `since`, oldest first, or why there are none."""
    from openrtc_introspect_core import read_blocks

    try:
        return read_blocks(worker.path, since=since, timeout_s=READ_TIMEOUT_S).blocks
    except (IntrospectError, OSError) as error:
        return error


def read_all(workers: Sequence[WorkerSocket]) -> list[tuple[WorkerSocket, Snapshot | Exception]]:
    """One snapshot of each."""
    return _each(workers, read)


def read_all_blocks(
    workers: Sequence[WorkerSocket], since: int = 0
) -> list[tuple[WorkerSocket, list[Block] | Exception]]:
    """The blocks of each."""
    return _each(workers, partial(read_blocks, since=since))


def _each(workers: Sequence[WorkerSocket], ask: Callable[[WorkerSocket], _T]) -> list[tuple[WorkerSocket, _T]]:
    """All are asked at the same time: a worker that hangs holds up no other."""
    if len(workers) <= 1:
        return [(worker, ask(worker)) for worker in workers]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=32) as pool:
        return list(zip(workers, pool.map(ask, workers), strict=True))


async def follow_all(
    find: Find,
    interval_s: float,
    dispatch: Callable[[Event], None],
    refreshed: Callable[[], anyio.Event],
    wanted: Callable[[str], bool],
    since: Mapping[str, int] | None = None,
    inspects: Callable[[str], str | None] = lambda key: None,
) -> None:
    """Dispatch a Found for each worker that `find` returns, now or later, and `follow` it for as long
    as it is wanted. Never returns. `wanted` and `inspects` are told a worker's key; `since` has the keys
    of workers whose blocks are known up to a number."""
    import anyio

    from openrtc_top._state import Found

    followed: set[str] = set()
    known = dict(since or {})

    async def follow_one(worker: WorkerSocket, key: str) -> None:
        try:
            await follow(
                worker,
                interval_s,
                dispatch,
                refreshed,
                lambda: wanted(key),
                known.pop(key, 0),
                lambda: inspects(key),
            )
        finally:
            followed.discard(key)

    async with anyio.create_task_group() as tasks:
        while True:
            # Looking for sockets asks the file system: not on the loop that reads the keys.
            for worker in await anyio.to_thread.run_sync(find, abandon_on_cancel=True):
                key = str(worker.path)
                if key not in followed:
                    followed.add(key)
                    dispatch(Found(key, worker.name, worker.pid))
                    tasks.start_soon(follow_one, worker, key)
            await anyio.sleep(RESCAN_S)


@dataclass(slots=True)
class _Told:
    """How far a worker's blocks are known already."""

    epoch: str | None = None
    seq: int = 0


async def follow(
    worker: WorkerSocket,
    interval_s: float,
    dispatch: Callable[[Event], None],
    refreshed: Callable[[], anyio.Event],
    wanted: Callable[[], bool],
    since: int = 0,
    inspects: Callable[[], str | None] = lambda: None,
) -> None:
    """Dispatch a Frame each interval, and at once when `refreshed()` is set; Blocked when blocks have
    ended; Gone while the worker cannot be reached. Returns when it is not wanted any more.

    Each snapshot is asked for, so a view that falls behind gets fewer of them and never old ones. Of
    the blocks that the first one tells of, those up to number `since` are left out. While `inspects` names
    a session, an Inspected of it follows each Frame.
    """
    import anyio

    from openrtc_introspect_core import connect
    from openrtc_top._inspect import inspect
    from openrtc_top._state import Frame, Gone, Inspected

    key = str(worker.path)
    told = _Told(seq=since)
    delay = BACKOFF_S
    while wanted():
        try:
            async with connect(worker.path) as client:
                due = anyio.current_time()
                while True:
                    snapshot = await client.snapshot()
                    dispatch(Frame(key, snapshot))
                    delay = BACKOFF_S
                    await _tell_blocks(client, key, snapshot, told, dispatch)
                    if (session_id := inspects()) is not None:
                        dispatch(Inspected(key, session_id, await inspect(client, session_id)))
                    now = anyio.current_time()
                    due = max(due + interval_s, now)
                    with anyio.move_on_after(due - now):
                        await refreshed().wait()
                        due = anyio.current_time()
        except (ConnectionFailed, OSError):
            dispatch(Gone(key, "no connection", delay))
        except IntrospectError as error:
            dispatch(Gone(key, str(error), delay))
        await anyio.sleep(delay)
        delay = min(delay * 2, BACKOFF_MOST_S)


async def _tell_blocks(
    client: Client, key: str, snapshot: Snapshot, told: _Told, dispatch: Callable[[Event], None]
) -> None:
    """Dispatch the blocks that ended since those told before, if the snapshot counts any."""
    from openrtc_top._state import Blocked

    info = snapshot.worker
    if info.epoch != told.epoch:
        told.seq = told.seq if told.epoch is None else 0
        told.epoch = info.epoch
    if info.blocks <= told.seq or "blocks" not in client.hello.capabilities:
        return
    reply = await client.blocks(told.seq)
    told.seq = max(info.blocks, reply.last_seq)
    if reply.blocks:
        dispatch(Blocked(key, reply.blocks))
