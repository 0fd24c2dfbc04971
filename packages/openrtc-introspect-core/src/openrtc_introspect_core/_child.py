"""What a session's own process runs: the entrypoint, until it ends, SIGTERM cancels it, or the pool is gone.

It leads a session and group of its own, so that a Ctrl-C in the pool's terminal is the pool's only,
and what the entrypoint started can be ended with it. It is started with SIGTERM held back, which
reaches it once it can be heard.
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

from ._failures import told
from ._hosting import Entrypoint, PoolSession

HELD_BACK = (signal.SIGINT, signal.SIGTERM)
"""The signals that a process of ours is started with as blocked."""

_TRACEBACK = 8000
"""Characters: what it writes before it ends must fit a pipe that nobody reads yet."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a session's process is to do."""

    entrypoint: bytes
    """Pickled: so it is imported where a failure can be told."""
    session_id: str
    agent_name: str
    metadata: Mapping[str, Any]
    loop: str
    """"asyncio", "uvloop" or "trio"."""
    grace_s: float
    """Seconds to clean up in when the pool is gone."""


class Outcome(msgspec.Struct, frozen=True):
    """How a session ended, as its process tells it."""

    state: Literal["done", "errored", "cancelled"]
    error: str = ""
    traceback: str = ""


def main(order: Order, pipe: Connection) -> None:
    """Runs the session, and tells the pool how it ended."""
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
    """Runs the entrypoint. Raises SystemExit where it did: the exit code is then what the pool is told."""
    session = PoolSession(order.session_id, order.agent_name, order.metadata)
    failure: Exception | SystemExit | None = None
    async with anyio.create_task_group() as group:
        await group.start(_cancel_on_signal, session)
        with anyio.CancelScope() as session._scope:
            session.state = "running"
            try:
                await entrypoint(session)
                session.state = "done"
            except (Exception, SystemExit) as error:  # here it would be raised in a group
                failure = error
        group.cancel_scope.cancel()
    if isinstance(failure, SystemExit):
        raise failure
    return _failed(failure) if failure is not None else Outcome("done" if session.state == "done" else "cancelled")


def _failed(error: Exception) -> Outcome:
    theirs = error.__traceback__.tb_next if error.__traceback__ is not None else None  # without the frame of ours
    lines = traceback.format_exception(type(error), error, theirs)
    return Outcome("errored", told(error), "".join(lines)[-_TRACEBACK:])


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
