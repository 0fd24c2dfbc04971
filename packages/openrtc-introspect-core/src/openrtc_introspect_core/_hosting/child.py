"""The program of a session's own process.

It runs the entrypoint until that ends, SIGTERM cancels it, or the pool is gone. The process leads a POSIX session and
process group of its own, so a Ctrl-C in the pool's terminal reaches the pool only, and the processes that the
entrypoint started can be ended with it. It starts with SIGTERM blocked, and unblocks it once it can handle it.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

import anyio
import anyio.abc
import msgspec

from .._sessions.failures import describe_error
from .hosted import Entrypoint, PoolSession

HELD_BACK = (signal.SIGINT, signal.SIGTERM)
"""The signals that are blocked when a session's process starts."""

_MAX_TRACEBACK = 8000
"""The maximum length of a reported traceback, in characters: it must fit the pipe before anyone reads it."""


@dataclass(frozen=True, slots=True)
class Order:
    """The task of a session's process."""

    entrypoint: bytes
    """Pickled, so that it is imported where a failure can be reported."""
    session_id: str
    agent_name: str
    metadata: Mapping[str, Any]
    loop: str
    """The kind of loop that the pool runs on; others than "uvloop" and "trio" stand for asyncio's own."""
    grace_s: float
    """Seconds for cleaning up if the pool is gone."""


class Outcome(msgspec.Struct, frozen=True):
    """How a session ended, as its process reports it."""

    state: Literal["done", "errored", "cancelled"]
    error: str = ""
    traceback: str = ""


def main(order: Order, pipe: Connection) -> None:
    """Run the session, and report to the pool how it ended."""
    os.setsid()
    threading.Thread(target=_end_with_pool, args=(order.grace_s,), name="openrtc-pool", daemon=True).start()
    try:
        entrypoint: Entrypoint = pickle.loads(order.entrypoint)
    except Exception as error:
        outcome = _failed(error)
    else:
        backend, options = ("trio", {}) if order.loop == "trio" else ("asyncio", {"use_uvloop": order.loop == "uvloop"})
        outcome = anyio.run(_host, order, entrypoint, backend=backend, backend_options=options)
    pipe.send_bytes(msgspec.json.encode(outcome))
    if outcome.state == "errored":
        sys.exit(1)


async def _host(order: Order, entrypoint: Entrypoint) -> Outcome:
    """Run the entrypoint.

    If it raises SystemExit, raise that: the pool then gets the exit code.
    """
    session = PoolSession(order.session_id, order.agent_name, order.metadata)
    failure: Exception | SystemExit | None = None
    async with anyio.create_task_group() as group:
        await group.start(_cancel_on_signal, session)
        with anyio.CancelScope() as session._scope:
            session.state = "running"
            try:
                await entrypoint(session)
                session.state = "done"
            except (Exception, SystemExit) as error:  # raised here, it would be in an exception group
                failure = error
        group.cancel_scope.cancel()
    if isinstance(failure, SystemExit):
        raise failure
    return _failed(failure) if failure is not None else Outcome("done" if session.state == "done" else "cancelled")


def _failed(error: Exception) -> Outcome:
    theirs = error.__traceback__.tb_next if error.__traceback__ is not None else None  # without this module's frame
    lines = traceback.format_exception(type(error), error, theirs)
    return Outcome("errored", describe_error(error), "".join(lines)[-_MAX_TRACEBACK:])


async def _cancel_on_signal(session: PoolSession, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
        task_status.started()
        async for _ in signals:
            session.cancel()


def _end_with_pool(grace_s: float) -> None:
    pool = multiprocessing.parent_process()
    assert pool is not None
    wait([pool.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os.killpg(0, signal.SIGKILL)
