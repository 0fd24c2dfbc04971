"""Reading the workers once, and following them.

A followed worker that is lost is reconnected for as long as the view shows it, at first soon, then
every few seconds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from openrtc_introspect_core import ConnectionFailed, IntrospectError
from openrtc_introspect_core.wire import Block, Snapshot, WorkerSocket, discover, discover_all
from openrtc_top._sockets import Find, RemoteWorker, choose, host

if TYPE_CHECKING:
    import anyio

    from openrtc_introspect_core.wire import Client
    from openrtc_top._state import Event
    from openrtc_top._via import Via

BACKOFF_S = 0.5
BACKOFF_MOST_S = 5.0
READ_TIMEOUT_S = 5.0
REMOTE_TIMEOUT_S = 15.0
"""A link may be slow, and a frame of many sessions large."""
RESCAN_S = 2.0
_T = TypeVar("_T")

Question = Callable[["Client"], Awaitable[_T]]


def find(wanted: Sequence[str] = (), *, all_users: bool = False) -> list[WorkerSocket]:
    """The running workers of this user, or of every user, that are wanted."""
    return choose(discover_all() if all_users else discover(), wanted)


def patience_s(worker: WorkerSocket) -> float:
    """How long to wait for an answer of this worker, seconds."""
    return REMOTE_TIMEOUT_S if isinstance(worker, RemoteWorker) else READ_TIMEOUT_S


def opened(worker: WorkerSocket) -> AbstractAsyncContextManager[Client]:
    """A connection to the worker, wherever it is."""
    if isinstance(worker, RemoteWorker):
        return worker.via.open(worker)
    from openrtc_introspect_core import connect

    return connect(worker.path)


def reason(error: Exception) -> str:
    """Why a worker cannot be read, short: its name and where it is are shown beside it."""
    if isinstance(error, TimeoutError):
        return "it does not answer"
    if not isinstance(error, ConnectionFailed):
        return str(error)
    if str(error).endswith("closed the connection"):
        return "it closed the connection"
    what = str(error).partition("': ")[2] or str(error)
    return _WHY.get(what, what)


_WHY = {
    "Connection refused": "nobody serves its socket any more",
    "No such file or directory": "its socket is gone",
    "Broken pipe": "it closed the connection",
    "Connection reset by peer": "it closed the connection",
}


def ask(worker: WorkerSocket, question: Question[_T]) -> _T:
    """The answer of one worker to one question, for code without an event loop.

    Raises IntrospectError, TimeoutError among them. A worker behind a relay can be asked while `running`.
    """

    async def answer() -> _T:
        import anyio

        with anyio.fail_after(patience_s(worker)):
            async with opened(worker) as client:
                return await question(client)

    try:
        if isinstance(worker, RemoteWorker):
            return worker.via.call(answer)
        import anyio

        return anyio.run(answer)
    except TimeoutError:
        told = f"no worker answers at {str(worker.path)!r}: nothing heard within {patience_s(worker):g} s"
        raise ConnectionFailed(told) from None


def read(worker: WorkerSocket, timeout_s: float = READ_TIMEOUT_S) -> Snapshot | Exception:
    """One snapshot, or why there is none; a worker of this machine must answer within so many seconds."""
    from openrtc_introspect_core import read_snapshot

    try:
        if isinstance(worker, RemoteWorker):
            return ask(worker, lambda client: client.snapshot())
        return read_snapshot(worker.path, timeout_s=timeout_s)  # no event loop: sooner there
    except (IntrospectError, OSError) as error:
        return error


def read_blocks(worker: WorkerSocket, since: int = 0) -> list[Block] | Exception:
    """The blocks it still keeps that are numbered above `since`, oldest first, or why there are none."""
    from openrtc_introspect_core import read_blocks

    try:
        if isinstance(worker, RemoteWorker):
            return ask(worker, lambda client: client.blocks(since)).blocks
        return read_blocks(worker.path, since=since, timeout_s=READ_TIMEOUT_S).blocks
    except (IntrospectError, OSError) as error:
        return error


def read_all(
    workers: Sequence[WorkerSocket], timeout_s: float = READ_TIMEOUT_S
) -> list[tuple[WorkerSocket, Snapshot | Exception]]:
    """One snapshot of each."""
    return _each(workers, partial(read, timeout_s=timeout_s))


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
    vias: Sequence[Via] = (),
    inspects: Callable[[str], str | None] = lambda key: None,
) -> None:
    """Dispatch a Found for each worker that `find` or one of the `vias` offers, now or later, and `follow`
    it for as long as it is wanted. Never returns. `wanted` and `inspects` are told a worker's key; `since` has
    the keys of workers whose blocks are known up to a number.

    A host that offers no worker is told of as one that is Gone, and Dropped when it offers some.
    """
    import anyio

    from openrtc_top._state import Dropped, Found, Gone

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

    def follow_new(workers: Sequence[WorkerSocket]) -> None:
        for worker in workers:
            key = str(worker.path)
            if key not in followed:
                followed.add(key)
                dispatch(Found(key, worker.name, worker.pid, host(worker)))
                tasks.start_soon(follow_one, worker, key)

    def offered(via: Via) -> None:
        if via.problem is None and via.workers:
            dispatch(Dropped(via.label))
            follow_new(via.workers)
        elif not any(str(worker.path) in followed for worker in via.workers):
            dispatch(Found(via.label, via.label))
            dispatch(Gone(via.label, via.problem or "no worker runs there"))

    async with anyio.create_task_group() as tasks:
        for via in vias:
            tasks.start_soon(via.run, partial(offered, via))
        while True:
            # Looking for sockets asks the file system: not on the loop that reads the keys.
            follow_new(await anyio.to_thread.run_sync(find, abandon_on_cancel=True))
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

    from openrtc_top._inspect import inspect
    from openrtc_top._state import Frame, Gone, Inspected

    key = str(worker.path)
    told = _Told(seq=since)
    delay = BACKOFF_S
    while wanted():
        try:
            async with opened(worker) as client:
                due = anyio.current_time()
                while True:
                    with anyio.fail_after(patience_s(worker)):
                        snapshot = await client.snapshot()
                    dispatch(Frame(key, snapshot))
                    delay = BACKOFF_S
                    with anyio.fail_after(patience_s(worker)):
                        await _tell_blocks(client, key, snapshot, told, dispatch)
                        if (session_id := inspects()) is not None:
                            dispatch(Inspected(key, session_id, await inspect(client, session_id)))
                    now = anyio.current_time()
                    due = max(due + interval_s, now)
                    with anyio.move_on_after(due - now):
                        await refreshed().wait()
                        due = anyio.current_time()
        except (IntrospectError, OSError) as error:
            dispatch(Gone(key, reason(error), delay))
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
