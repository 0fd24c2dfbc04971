"""Observing several workers at once for some seconds, for `openrtc diagnose`."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

from openrtc_introspect_core import IntrospectError, RequestFailed
from openrtc_top._client.query import connect_to, is_silence, silent, timeout_s
from openrtc_top._client.silence import Silence
from openrtc_top._client.targets import RemoteWorker, host_of
from openrtc_top._model.box_reading import BoxReading
from openrtc_top._model.observation import Observation

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Client, WorkerSocket

_BLOCKS_WAITING = 100
"""A worker keeps 256 blocks: in a long observation they are asked for before any is forgotten."""

_STOPS_WITHIN_S = 0.1
"""Between two snapshots an observation notices within this time that it is stopped."""


def interval_s(seconds: float) -> float:
    """Return the seconds between snapshots.

    There are ten or more, at least one a second, and sixty if the observation is long.
    """
    return max(0.1, min(1.0, seconds / 10), seconds / 60)


def waits_interval_s(seconds: float) -> float:
    """Return the seconds between questions of what sessions wait for.

    There are five answers or more, one each two seconds at least, and sixty if the observation is long.
    """
    return max(min(2.0, seconds / 4), seconds / 60)


def observe_workers(workers: Sequence[WorkerSocket], seconds: float) -> list[Observation]:
    """Return what was seen of all of them.

    Those behind relays can be observed while these are `running`. An interrupt ends the observation early.
    """
    from concurrent.futures import ThreadPoolExecutor

    import anyio

    from openrtc_top._client.loop import run_loop

    found = [Observation(worker, host=host_of(worker)) for worker in workers]
    here = [each for each in found if not isinstance(each.worker, RemoteWorker)]

    stopped = threading.Event()

    async def observe_here() -> None:
        async with anyio.create_task_group() as tasks:
            for each in here:
                tasks.start_soon(_observe, each, seconds, stopped)

    with ThreadPoolExecutor(max_workers=len(found) + 1) as pool:
        parts = [
            pool.submit(each.worker.relay.call, partial(_observe, each, seconds, stopped))
            for each in found
            if isinstance(each.worker, RemoteWorker)
        ]
        try:
            run_loop(observe_here)  # in this thread, where an interrupt cancels it
            for part in parts:
                part.result()
        finally:
            stopped.set()  # the pool waits for the other threads, which no interrupt reaches
    return found


async def _observe(found: Observation, seconds: float, stopped: threading.Event) -> None:
    """Fill in the observation of one worker, until the seconds are over, it is stopped, or the worker is frozen.

    A worker that is frozen is told about by its black box, at once.
    """
    import anyio

    async with anyio.create_task_group() as tasks:

        def take(reading: BoxReading) -> None:
            found.take(reading)
            if found.frozen is not None:
                tasks.cancel_scope.cancel()

        silence = Silence(found.worker, take)
        tasks.start_soon(silence.watch)
        await _observe_answers(found, seconds, stopped, silence)
        tasks.cancel_scope.cancel()


async def _observe_answers(found: Observation, seconds: float, stopped: threading.Event, silence: Silence) -> None:
    import anyio

    patience_s = timeout_s(found.worker)
    try:
        async with AsyncExitStack() as stack:
            with silence.awaiting(patience_s):
                client = await stack.enter_async_context(connect_to(found.worker))
            due = ask_waits = anyio.current_time()
            end = due + seconds
            while True:
                with silence.awaiting(patience_s):
                    found.snapshots.append(await client.snapshot())
                    last = anyio.current_time() >= end
                    await _ask_for_blocks(client, found, 0 if last else _BLOCKS_WAITING)
                    if "waits" in client.hello.capabilities and (last or anyio.current_time() >= ask_waits):
                        with suppress(RequestFailed):  # the rest is worth the same without it
                            found.waits.append(await client.waits())
                        ask_waits += waits_interval_s(seconds)
                if last:
                    return
                due = min(max(due + interval_s(seconds), anyio.current_time()), end)
                while anyio.current_time() < due and not stopped.is_set():  # noqa: ASYNC110 - of another thread
                    await anyio.sleep(min(_STOPS_WITHIN_S, due - anyio.current_time()))
                if stopped.is_set():
                    return
    except (IntrospectError, OSError) as error:
        lost = silent(found.worker, patience_s, silence.missing) if is_silence(error) else error
        found.lost = str(lost)


async def _ask_for_blocks(client: Client, found: Observation, waiting: int) -> None:
    """Ask for the new blocks, if there are more than `waiting`."""
    info = found.snapshots[-1].worker
    if found.snapshots[0].worker.epoch != info.epoch:
        found.blocks.clear()
    known = found.blocks[-1].seq if found.blocks else 0
    if info.blocks - known > waiting and "blocks" in client.hello.capabilities:
        found.blocks += (await client.blocks(known)).blocks
