"""Following workers: their snapshots and blocks as events.

A followed worker that is lost is reconnected for as long as the view shows it, at first soon, then
every few seconds. While one does not answer, its black box is read, and the question goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import anyio

from openrtc_introspect_core import IntrospectError
from openrtc_top._client.inspect import inspect
from openrtc_top._client.query import connect_to, is_silence, short_reason, timeout_s
from openrtc_top._client.silence import Silence
from openrtc_top._client.survey import survey
from openrtc_top._client.targets import host_of
from openrtc_top._model.events import (
    Blocked,
    Died,
    Dropped,
    Event,
    Found,
    Frame,
    Gone,
    Inspected,
    Surveyed,
    Unanswered,
)

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Client, Snapshot, WorkerSocket
    from openrtc_top._client.black_boxes import FindDead
    from openrtc_top._client.targets import Find, Relay
    from openrtc_top._model.box_reading import DeadWorker

BACKOFF_S = 0.5
MAX_BACKOFF_S = 5.0
RESCAN_S = 2.0
SURVEY_S = 2.0
"""A worker is asked no oftener than this what its tasks wait for: it looks at all of them."""

Dispatch = Callable[[Event], None]


async def follow_all(
    find: Find,
    interval_s: float,
    dispatch: Dispatch,
    refreshed: Callable[[], anyio.Event],
    wanted: Callable[[str], bool],
    since: Mapping[str, int] | None = None,
    relays: Sequence[Relay] = (),
    inspects: Callable[[str], str | None] = lambda key: None,
    surveys: Callable[[str], bool] = lambda key: False,
    find_dead: FindDead = lambda live: (),
) -> None:
    """Follow each worker that `find` or a relay offers, now or later.

    A Found is dispatched for each of them, and a Died for each machine where workers died. Never returns. `wanted`,
    `inspects` and `surveys` are called with a worker's key; `since` has the keys of workers whose blocks are known up
    to a number. A host that offers no worker is dispatched as a worker that is Gone, and Dropped when it offers some.
    """
    followed: set[str] = set()
    known = dict(since or {})
    dead: dict[str | None, tuple[DeadWorker, ...]] = {}

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
                lambda: surveys(key),
            )
        finally:
            followed.discard(key)

    def follow_new(workers: Sequence[WorkerSocket]) -> None:
        for worker in workers:
            key = str(worker.path)
            if key not in followed:
                followed.add(key)
                dispatch(Found(key, worker.name, worker.pid, host_of(worker)))
                tasks.start_soon(follow_one, worker, key)

    def died(host: str | None, found: Sequence[DeadWorker]) -> None:
        if found or dead.get(host):
            dead[host] = tuple(found)
            dispatch(Died(host, dead[host]))

    def offered(relay: Relay) -> None:
        died(relay.label, relay.dead)
        if relay.problem is None and relay.workers:
            dispatch(Dropped(relay.label))
            follow_new(relay.workers)
        elif not any(str(worker.path) in followed for worker in relay.workers):
            dispatch(Found(relay.label, relay.label))
            dispatch(Gone(relay.label, relay.problem or ": ".join(["no worker runs there", *relay.unseen[:1]])))

    async with anyio.create_task_group() as tasks:
        for relay in relays:
            tasks.start_soon(relay.run, partial(offered, relay))
        while True:
            # Finding sockets asks the file system: not on the loop that reads the keys.
            found = await anyio.to_thread.run_sync(find, abandon_on_cancel=True)
            follow_new(found)
            died(None, await anyio.to_thread.run_sync(find_dead, found, abandon_on_cancel=True))
            await anyio.sleep(RESCAN_S)


@dataclass(slots=True)
class _KnownBlocks:
    """Up to which number a worker's blocks are known."""

    epoch: str | None = None
    seq: int = 0


async def follow(
    worker: WorkerSocket,
    interval_s: float,
    dispatch: Dispatch,
    refreshed: Callable[[], anyio.Event],
    wanted: Callable[[], bool],
    since: int = 0,
    inspects: Callable[[], str | None] = lambda: None,
    surveys: Callable[[], bool] = lambda: False,
) -> None:
    """Dispatch what one worker reports, until it is not wanted any more.

    A Frame comes each interval, and at once when `refreshed()` is set; Blocked when blocks have ended; Unanswered
    again and again while the worker does not answer and has a black box; Gone when it cannot be reached. Each
    snapshot is asked for, so a view that falls behind gets fewer of them and never old ones. Blocks up to number
    `since` are known and not dispatched. While `inspects` names a session, an Inspected of it follows each Frame; while
    `surveys` is true, a Surveyed follows, but not each time if the interval is short.
    """
    key = str(worker.path)
    silence = Silence(worker, lambda reading: dispatch(Unanswered(key, reading)))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(silence.watch)
        await _follow(worker, key, silence, interval_s, dispatch, refreshed, wanted, since, inspects, surveys)
        tasks.cancel_scope.cancel()


async def _follow(
    worker: WorkerSocket,
    key: str,
    silence: Silence,
    interval_s: float,
    dispatch: Dispatch,
    refreshed: Callable[[], anyio.Event],
    wanted: Callable[[], bool],
    since: int,
    inspects: Callable[[], str | None],
    surveys: Callable[[], bool],
) -> None:
    known = _KnownBlocks(seq=since)
    surveyed = -math.inf
    delay = BACKOFF_S
    while wanted():
        try:
            async with AsyncExitStack() as stack:
                with silence.awaiting(timeout_s(worker)):
                    client = await stack.enter_async_context(connect_to(worker))
                due = anyio.current_time()
                while True:
                    with silence.awaiting(timeout_s(worker)):
                        snapshot = await client.snapshot()
                    dispatch(Frame(key, snapshot))
                    delay = BACKOFF_S
                    with silence.awaiting(timeout_s(worker)):
                        await _dispatch_new_blocks(client, key, snapshot, known, dispatch)
                        if (session_id := inspects()) is not None:
                            dispatch(Inspected(key, session_id, await inspect(client, session_id)))
                    if surveys() and anyio.current_time() >= surveyed + SURVEY_S:
                        surveyed = anyio.current_time()
                        with silence.awaiting(timeout_s(worker)):
                            dispatch(Surveyed(key, await survey(client)))
                    now = anyio.current_time()
                    due = max(due + interval_s, now)
                    with anyio.move_on_after(due - now):
                        await refreshed().wait()
                        due = anyio.current_time()
        except (IntrospectError, OSError) as error:
            if is_silence(error) and silence.frozen:
                continue  # it is frozen, which the view shows; the next connection waits for its end
            missing = silence.missing if is_silence(error) else None
            reason = short_reason(error) if missing is None else f"it does not answer, it may be frozen: {missing}"
            dispatch(Gone(key, reason, delay))
        await anyio.sleep(delay)
        delay = min(delay * 2, MAX_BACKOFF_S)


async def _dispatch_new_blocks(
    client: Client, key: str, snapshot: Snapshot, known: _KnownBlocks, dispatch: Dispatch
) -> None:
    """Dispatch the blocks that are new, if the snapshot counts any."""
    info = snapshot.worker
    if info.epoch != known.epoch:
        known.seq = known.seq if known.epoch is None else 0
        known.epoch = info.epoch
    if info.blocks <= known.seq or "blocks" not in client.hello.capabilities:
        return
    reply = await client.blocks(known.seq)
    known.seq = max(info.blocks, reply.last_seq)
    if reply.blocks:
        dispatch(Blocked(key, reply.blocks))
