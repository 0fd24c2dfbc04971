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
    Listed,
    Surveyed,
    Unanswered,
)
from openrtc_top._model.workers import NO_WORKER_THERE

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from openrtc_introspect_core.wire import Client, Snapshot, WorkerSocket
    from openrtc_top._client.black_boxes import FindDead
    from openrtc_top._client.targets import Find, Hosts, Relay, Target
    from openrtc_top._model.box_reading import DeadWorker

BACKOFF_S = 0.5
MAX_BACKOFF_S = 5.0
RESCAN_S = 2.0
CONNECTING_S = 2.0
"""A host of which nothing was heard for so long is shown: it may be a slow one."""
TICK_S = 0.1
"""Workers are asked at multiples of this time: of many, those that are asked at one moment cost less."""
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
    hosts: Hosts | None = None,
    inspects: Callable[[str], str | None] = lambda key: None,
    surveys: Callable[[str], bool] = lambda key: False,
    find_dead: FindDead = lambda live: (),
) -> None:
    """Follow each worker that `find`, a relay, or a host that is listed offers, now or later.

    A Found is dispatched for each of them, and a Died for each machine where workers died. Never returns. `wanted`,
    `inspects` and `surveys` are called with a worker's key; `since` has the keys of workers whose blocks are known up
    to a number. A host that offers no worker is dispatched as a worker that is Gone, and Dropped when it offers some;
    one of which nothing is heard for a moment, as a worker that was Found. The workers of a host that is not listed any
    more are Dropped.
    """
    followed: set[str] = set()
    known = dict(since or {})
    dead: dict[str | None, tuple[DeadWorker, ...]] = {}
    problem: str | None = None
    scopes: dict[Relay, anyio.CancelScope] = {}
    shown: dict[Relay, set[str]] = {}
    """The keys of what was dispatched of a host."""

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

    def follow_new(workers: Sequence[WorkerSocket], tasks: TaskGroup) -> None:
        for worker in workers:
            key = str(worker.path)
            if key not in followed:
                followed.add(key)
                dispatch(Found(key, worker.name, worker.pid, host_of(worker)))
                tasks.start_soon(follow_one, worker, key)

    def died(relay: Relay | None, found: Sequence[DeadWorker]) -> None:
        host, via = (None, None) if relay is None else (relay.label, relay.via)
        if found or dead.get(host):
            dead[host] = tuple(found)
            dispatch(Died(host, dead[host], via))

    async def follow_host(relay: Relay, scope: anyio.CancelScope, keys: set[str]) -> None:
        connected = heard = False

        async def show_slow() -> None:
            await anyio.sleep(CONNECTING_S)
            if not heard:
                keys.add(relay.label)
                dispatch(Found(relay.label, relay.label))

        def offered(tasks: TaskGroup) -> None:
            nonlocal connected, heard
            heard = True
            died(relay, relay.dead)
            if hosts is not None and connected and relay.problem is not None:
                hosts.ask_soon()
            connected = relay.problem is None
            if connected and relay.workers:
                dispatch(Dropped(relay.label))
                keys.update(str(worker.path) for worker in relay.workers)
                follow_new(relay.workers, tasks)
            elif not any(str(worker.path) in followed for worker in relay.workers):
                keys.add(relay.label)
                dispatch(Found(relay.label, relay.label))
                dispatch(Gone(relay.label, relay.problem or ": ".join([NO_WORKER_THERE, *relay.unseen[:1]])))

        with scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(show_slow)
                await relay.run(partial(offered, tasks))
        drop(relay, keys)

    def drop(relay: Relay, keys: set[str]) -> None:
        for key in keys:
            dispatch(Dropped(key))
        died(relay, ())

    def start(relay: Relay) -> None:
        scopes[relay], shown[relay] = anyio.CancelScope(), set()
        tasks.start_soon(follow_host, relay, scopes[relay], shown[relay])

    def listed() -> None:
        assert hosts is not None
        nonlocal problem
        if hosts.problem != problem:
            problem = hosts.problem
            dispatch(Listed(problem))
        there = [*relays, *hosts.relays]
        for relay in scopes.keys() - set(there):
            scopes.pop(relay).cancel()
            drop(relay, shown.pop(relay))  # at once, and again when the tasks have ended: one may be about to dispatch
        for relay in there:
            if relay not in scopes:
                start(relay)

    async with anyio.create_task_group() as tasks:
        for relay in relays:
            start(relay)
        if hosts is not None:
            tasks.start_soon(hosts.run, listed)
        while True:
            # Finding sockets asks the file system: not on the loop that reads the keys.
            found = await anyio.to_thread.run_sync(find, abandon_on_cancel=True)
            follow_new(found, tasks)
            died(None, await anyio.to_thread.run_sync(find_dead, found, abandon_on_cancel=True))
            await anyio.sleep(RESCAN_S)


async def follow_target(
    target: Target, interval_s: float, dispatch: Dispatch, since: Mapping[str, int] | None = None
) -> None:
    """Follow the workers that a command is about. Never returns. since: as for `follow_all`."""
    never = anyio.Event()
    await follow_all(
        target.find,
        interval_s,
        dispatch,
        refreshed=lambda: never,
        wanted=target.wanted,
        since=since,
        relays=target.relays,
        hosts=target.hosts,
    )


@dataclass(slots=True)
class _KnownBlocks:
    """Up to which number a worker's blocks are known."""

    epoch: str | None = None
    seq: int = 0

    def lack(self, client: Client, snapshot: Snapshot) -> bool:
        """Return whether the snapshot counts blocks that are not known."""
        info = snapshot.worker
        if info.epoch != self.epoch:
            self.seq = self.seq if self.epoch is None else 0
            self.epoch = info.epoch
        return info.blocks > self.seq and "blocks" in client.hello.capabilities


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
    pause = _Pause(refreshed)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(silence.watch)
        tasks.start_soon(pause.watch)
        await _follow(worker, key, silence, interval_s, dispatch, pause, wanted, since, inspects, surveys)
        tasks.cancel_scope.cancel()


class _Pause:
    """The time from one question to the next, which ends at once when `refreshed()` is set.

    A timer alone ends it otherwise: of many workers, each second is full of such ends, and a cancellation costs more.
    """

    def __init__(self, refreshed: Callable[[], anyio.Event]) -> None:
        self._refreshed = refreshed
        self._scope = anyio.CancelScope()

    async def until(self, due: float) -> bool:
        """Wait for a moment. Return whether the pause ended before."""
        with anyio.CancelScope() as self._scope:
            await anyio.sleep(max(0.0, due - anyio.current_time()))
        return self._scope.cancelled_caught

    async def watch(self) -> None:
        """End the pause whenever all is to be asked anew. Never returns."""
        while True:
            await self._refreshed().wait()
            self._scope.cancel()


async def _follow(
    worker: WorkerSocket,
    key: str,
    silence: Silence,
    interval_s: float,
    dispatch: Dispatch,
    pause: _Pause,
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
                due = anyio.current_time() // TICK_S * TICK_S
                while True:
                    with silence.awaiting(timeout_s(worker)):
                        snapshot = await client.snapshot()
                    dispatch(Frame(key, snapshot))
                    delay = BACKOFF_S
                    if known.lack(client, snapshot):
                        with silence.awaiting(timeout_s(worker)):
                            await _dispatch_new_blocks(client, key, snapshot, known, dispatch)
                    if (session_id := inspects()) is not None:
                        with silence.awaiting(timeout_s(worker)):
                            dispatch(Inspected(key, session_id, await inspect(client, session_id)))
                    if surveys() and anyio.current_time() >= surveyed + SURVEY_S:
                        surveyed = anyio.current_time()
                        with silence.awaiting(timeout_s(worker)):
                            dispatch(Surveyed(key, await survey(client)))
                    due = max(due + interval_s, anyio.current_time())
                    if await pause.until(due):
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
    """Dispatch the blocks that are new."""
    reply = await client.blocks(known.seq)
    known.seq = max(snapshot.worker.blocks, reply.last_seq)
    if reply.blocks:
        dispatch(Blocked(key, reply.blocks))
