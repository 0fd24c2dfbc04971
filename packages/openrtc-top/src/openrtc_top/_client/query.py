"""Reading workers once, with and without an event loop.

A worker that does not answer at once is read from its black box, if that says that it is frozen.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from openrtc_introspect_core import ConnectionFailed, IntrospectError
from openrtc_introspect_core.wire import PROTOCOL_MAJOR, Block, Hello, Snapshot, WorkerSocket
from openrtc_top._client.targets import RemoteWorker
from openrtc_top._model.box_reading import BoxReading

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Client

READ_TIMEOUT_S = 5.0
REMOTE_TIMEOUT_S = 15.0
"""A link may be slow, and a frame of many sessions large."""
PATIENCE_S = (0.1, 0.15, 0.5, 1.25)
"""A worker of this machine that is silent for so long is asked again, and its box is read in between.

The first look is for those that cannot answer at all, since something keeps the GIL.
"""
_SINCE = {"waits": 2}
"""The minor versions that types of requests came with, if that was not the first one."""
_T = TypeVar("_T")

Answer = Snapshot | BoxReading | Exception
"""A snapshot; or what the box of a worker says that does not answer; or why there is neither."""
Question = Callable[["Client"], Awaitable[_T]]


class Unlisted(IntrospectError):
    """A worker does not answer requests of one type: its hello does not list them."""

    def __init__(self, hello: Hello, kind: str) -> None:
        super().__init__(f"worker {hello.worker!r} answers no {kind} requests: {_why(hello, kind)}")


def must_list(hello: Hello, kind: str) -> None:
    """Raise Unlisted if the worker does not answer requests of this type."""
    if kind not in hello.capabilities:
        raise Unlisted(hello, kind)


def _why(hello: Hello, kind: str) -> str:
    major, _, minor = hello.protocol.partition(".")
    since = _SINCE.get(kind, 0)
    if (int(major), int(minor)) >= (PROTOCOL_MAJOR, since):
        return "it is too old, or each of its sessions is a process of its own, which is not looked into"
    version = hello.version or "unknown"
    came = f"{kind} came with protocol {PROTOCOL_MAJOR}.{since}"
    return f"it runs version {version}, of protocol {hello.protocol}, and {came}"


def timeout_s(worker: WorkerSocket) -> float:
    """Return how long to wait for an answer of this worker, seconds."""
    return REMOTE_TIMEOUT_S if isinstance(worker, RemoteWorker) else READ_TIMEOUT_S


def connect_to(worker: WorkerSocket) -> AbstractAsyncContextManager[Client]:
    """Connect to the worker, on this machine or behind a relay."""
    if isinstance(worker, RemoteWorker):
        return worker.relay.open(worker)
    from openrtc_introspect_core import connect

    return connect(worker.path)


def short_reason(error: Exception) -> str:
    """Return why a worker cannot be read, without its name and path."""
    if isinstance(error, TimeoutError):
        return "it does not answer"
    if not isinstance(error, ConnectionFailed):
        return str(error)
    if str(error).endswith("closed the connection"):
        return "it closed the connection"
    what = str(error).partition("': ")[2] or str(error)
    return _REASONS.get(what, what)


_REASONS = {
    "Connection refused": "nothing serves its socket any more",
    "No such file or directory": "its socket is gone",
    "Broken pipe": "it closed the connection",
    "Connection reset by peer": "it closed the connection",
}


def is_silence(error: Exception) -> bool:
    """Return whether a worker was reached and did not answer in time."""
    return isinstance(error, TimeoutError) or (isinstance(error, ConnectionFailed) and "nothing heard" in str(error))


def silent(worker: WorkerSocket, timeout_s: float, missing: str | None) -> ConnectionFailed:
    """Return the error of a worker that does not answer. missing: why its box says nothing."""
    what = f"no worker answers at {str(worker.path)!r}: nothing heard within {timeout_s:g} s"
    return ConnectionFailed(what if missing is None else f"{what}, it may be frozen: {missing}")


def ask(worker: WorkerSocket, question: Question[_T]) -> _T | BoxReading:
    """Ask one worker one question, for code without an event loop.

    Return what its black box says if that says that the worker is frozen, or if there is no answer.

    A worker behind a relay can be asked while the relay is `running`. Raises IntrospectError, also if the worker
    does not answer in time and has no box.
    """
    if isinstance(worker, RemoteWorker):
        return worker.relay.call(partial(_answer, worker, question))
    from openrtc_top._client.loop import run_loop

    return run_loop(_answer, worker, question)


async def _answer(worker: WorkerSocket, question: Question[_T]) -> _T | BoxReading:
    """Return the answer, or the first reading of the box that has a loop that is held."""
    import anyio

    from openrtc_top._client.silence import Silence

    result: list[_T | BoxReading] = []
    readings: list[BoxReading] = []
    problem: Exception | None = None
    async with anyio.create_task_group() as tasks:

        def take(reading: BoxReading) -> None:
            readings.append(reading)
            if reading.held is not None:
                result.append(reading)
                tasks.cancel_scope.cancel()

        silence = Silence(worker, take)
        tasks.start_soon(silence.watch)
        try:
            async with AsyncExitStack() as stack:
                with silence.awaiting(timeout_s(worker)):
                    client = await stack.enter_async_context(connect_to(worker))
                    result.append(await question(client))
        except (IntrospectError, OSError) as error:
            problem = error
        tasks.cancel_scope.cancel()
    if result:
        return result[0]
    if problem is not None and is_silence(problem):
        if readings:
            return readings[-1]
        problem = silent(worker, timeout_s(worker), silence.missing)
    assert problem is not None
    raise problem


def read(worker: WorkerSocket, timeout_s: float = READ_TIMEOUT_S) -> Answer:
    """Return one snapshot, or what the worker's black box says if it does not answer, or why there is neither.

    The timeout is for workers of this machine.
    """
    from openrtc_introspect_core import read_snapshot

    try:
        if isinstance(worker, RemoteWorker):
            return ask(worker, lambda client: client.snapshot())
        # Sooner there, as it needs no event loop.
        return _ask_here(worker, timeout_s, lambda patience_s: read_snapshot(worker.path, timeout_s=patience_s))
    except (IntrospectError, OSError) as error:
        return error


def read_blocks(worker: WorkerSocket, since: int = 0) -> list[Block] | Exception:
    """Return the blocks that are over and numbered above `since`, oldest first, or why there are none."""
    from openrtc_introspect_core import read_blocks

    try:
        if isinstance(worker, RemoteWorker):
            told = ask(worker, lambda client: client.blocks(since))
        else:
            told = _ask_here(
                worker,
                READ_TIMEOUT_S,
                lambda patience_s: read_blocks(worker.path, since=since, timeout_s=patience_s),
            )
        return [block for block in told.blocks if block.seq > since]
    except (IntrospectError, OSError) as error:
        return error


def _ask_here(worker: WorkerSocket, timeout_s: float, question: Callable[[float], _T]) -> _T | BoxReading:
    """Ask again and again, with more patience each time, and read the box in between."""
    asked, deadline = time.time(), time.monotonic() + timeout_s
    told: BoxReading | str = ""
    for number, patience_s in enumerate((*PATIENCE_S, timeout_s), start=1):
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0.0:
            break
        try:
            return question(min(patience_s, remaining_s))
        except ConnectionFailed as error:
            if not is_silence(error):
                raise
        from openrtc_top._client.black_boxes import read_live_box

        told = read_live_box(worker)
        if isinstance(told, BoxReading):
            # A worker whose loop is free, or that has written meanwhile, is slow and not frozen.
            quiet = number >= len(PATIENCE_S) and told.at < asked
            if told.gil_kept or (told.held is not None and number > 1) or quiet:
                return told
    if isinstance(told, BoxReading):
        return told
    raise silent(worker, timeout_s, told)


def read_all(workers: Sequence[WorkerSocket], timeout_s: float = READ_TIMEOUT_S) -> list[tuple[WorkerSocket, Answer]]:
    """Return the answer of each worker."""
    return _each(workers, partial(read, timeout_s=timeout_s))


def ask_all(
    workers: Sequence[WorkerSocket], question: Question[_T]
) -> list[tuple[WorkerSocket, _T | BoxReading | Exception]]:
    """Return the answer of each worker to one question, or what its black box says, or why there is neither."""

    def asked(worker: WorkerSocket) -> _T | BoxReading | Exception:
        try:
            return ask(worker, question)
        except (IntrospectError, OSError) as error:
            return error

    return _each(workers, asked)


def read_all_blocks(
    workers: Sequence[WorkerSocket], since: int = 0
) -> list[tuple[WorkerSocket, list[Block] | Exception]]:
    """Return the blocks of each worker, or why there are none."""
    return _each(workers, partial(read_blocks, since=since))


def _each(workers: Sequence[WorkerSocket], ask: Callable[[WorkerSocket], _T]) -> list[tuple[WorkerSocket, _T]]:
    """Ask all workers at the same time: one that hangs holds up no other."""
    if len(workers) <= 1:
        return [(worker, ask(worker)) for worker in workers]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=32) as pool:
        return list(zip(workers, pool.map(ask, workers), strict=True))
