"""The service: the samples of one worker when they are due, and its socket.

On a thread of its own, because a worker whose loop is blocked must still answer: that is when it is asked.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Container
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from ._clock import Clock
from ._report import Reporter
from ._service_thread import SERVICE_THREAD
from ._stacks import Places
from ._tasks import tasks_of
from ._threads import thread_stacks
from ._version import __version__
from .wire._messages import (
    CAPABILITIES,
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    Block,
    Hello,
    Snapshot,
    Stacks,
    StacksRequest,
    Tasks,
    TasksRequest,
)
from .wire._source import Source

if TYPE_CHECKING:
    from ._own_loop import OwnLoop
    from .wire._server import Server

IDLE_INTERVAL_S = 2.0
"""Between ticks while no session lives."""

FIRST_AFTER_S = 0.05
"""Until the first tick: a loop that lives for less is spared it."""


def hello(name: str, epoch: str, without: Container[str] = ()) -> Hello:
    """The first line of a worker of this name. `without`: types of requests that it does not answer."""
    return Hello(
        protocol=f"{PROTOCOL_MAJOR}.{PROTOCOL_MINOR}",
        worker=name,
        pid=os.getpid(),
        epoch=epoch,
        version=__version__,
        capabilities=[each for each in CAPABILITIES if each not in without],
    )


class Served:
    """What the service thread serves: snapshots that give the GIL away while they are built."""

    def __init__(self, reporter: Reporter, places: Places) -> None:
        self._reporter = reporter
        self._places = places
        places.load()

    def snapshot(self) -> Snapshot:
        return self._reporter.snapshot(breathe=True)

    def blocks(self, since: int) -> list[Block]:
        return self._reporter.blocks.since(since)

    def tasks(self, request: TasksRequest) -> Tasks | None:
        reporter, session_id = self._reporter, request.session_id
        session = reporter.sessions.live.get(session_id)
        if session is None:
            return None
        now = reporter.wall.at(reporter.clock())
        tasks, truncated = tasks_of(session, [loop.hook for loop in tuple(reporter.loops)], self._places)
        return Tasks(id=request.id, session_id=session_id, taken_at=now, tasks=tasks, truncated=truncated)

    def stacks(self, request: StacksRequest) -> Stacks:
        reporter = self._reporter
        now = reporter.wall.at(reporter.clock())
        hooks = [loop.hook for loop in tuple(reporter.loops)]
        return Stacks(id=request.id, taken_at=now, threads=thread_stacks(hooks, self._places))


def server_class() -> type[Server]:
    """The class of servers, with all that it needs loaded.

    On our thread it must not be loaded: a host that forks meanwhile would have a child in which the module's import
    lock is held for ever. On a loop's it takes long enough to be a block: before the loop is attached, it is not ours.
    """
    import anyio._backends._asyncio  # noqa: F401

    from .wire._server import Server

    return Server


class Service:
    """One worker's part of the service thread, from `start` to `stop`."""

    def __init__(
        self,
        *,
        listener: socket.socket | None,
        source: Source,
        hello: Hello,
        clock: Clock,
        interval_s: float,
        idle: Callable[[], bool],
        tick: Callable[[float], None],
        on_fault: Callable[[str, Exception], None],
    ) -> None:
        self.listener = listener
        if listener is not None:
            self._server = partial(server_class(), listener, source, hello)
        self._clock = clock
        self._interval = interval_s
        self._idle = idle
        self._tick = tick
        self._on_fault = on_fault
        self._thread = SERVICE_THREAD
        self._stopped = False
        self._ticking = threading.RLock()  # what a tick logs may have a handler that closes the worker
        self._serving: Any = None
        """The task that serves the socket."""
        self._served = threading.Event()
        """Whether the socket is served no more, or there is none."""
        if listener is None:
            self._served.set()
        self._cpu_before = self._thread.cpu_s
        self.due = math.inf
        """When it is to tick next, by time.monotonic()."""

    @property
    def cpu_s(self) -> float:
        """CPU seconds that the thread has used since this was made, for whomever."""
        return self._thread.cpu_s - self._cpu_before

    def start(self) -> None:
        """Raises where there is no thread to be had, or no file descriptor for a loop to serve on."""
        self.due = time.monotonic() + min(self._interval, FIRST_AFTER_S)
        self._thread.add(self, self.due if self.listener is None else -math.inf)

    def stop(self) -> None:
        """Ticks no more, and has the socket closed; `is_alive` and `join` tell when that is done."""
        self._stopped = True
        if self._served.is_set():
            self._thread.discard(self)
        else:
            self._thread.wake()

    def is_alive(self) -> bool:
        """Whether anything of it may still run."""
        if not self._ticking.acquire(blocking=False):
            return True
        self._ticking.release()
        return self._thread.has(self)

    def join(self, timeout_s: float) -> None:
        """Waits until nothing of it may run; on the service thread itself, for nothing."""
        if self._thread.runs_here():
            return
        deadline = time.monotonic() + timeout_s
        self._served.wait(timeout_s)
        if self._ticking.acquire(timeout=max(0.0, deadline - time.monotonic())):
            self._ticking.release()

    # --- the service thread's ---------------------------------------------------------------------

    def tick(self) -> None:
        """Takes the samples that are due."""
        with self._ticking:
            self.due = math.inf
            if self._stopped:
                return
            try:
                self._tick(self._clock())
                # With nothing to sample, waking up is all that a tick costs.
                self.due = time.monotonic() + (max(self._interval, IDLE_INTERVAL_S) if self._idle() else self._interval)
            except Exception as error:
                if self._served.is_set():
                    self._thread.discard(self)
                self._tell("sampling", error)

    def serve(self, loop: OwnLoop) -> None:
        """Begins to serve the socket, or ends that once this was stopped."""
        if self._served.is_set():
            return
        if self._serving is not None:
            if self._stopped:
                self._serving.cancel()
        elif self._stopped:
            self._end()
        else:
            self._serving = loop.create_task(self._keep_serving())
            self._serving.add_done_callback(lambda _: self._end())

    async def _keep_serving(self) -> None:
        try:
            await self._server().serve()
        except Exception as error:  # sampling goes on without it
            self._close_listener()
            self._tell("socket", error)

    def _end(self) -> None:
        self._close_listener()
        if self._stopped or self.due == math.inf:
            self._thread.discard(self)
        self._served.set()

    def _close_listener(self) -> None:
        if self.listener is not None:
            self.listener.close()

    def failed(self, error: Exception) -> None:
        """The thread works for it no more."""
        self._stopped = True
        self._close_listener()
        self._served.set()
        self._tell("service", error)

    def _tell(self, probe: str, error: Exception) -> None:
        with suppress(Exception):  # a filter of the host's log may raise: the other workers are not to suffer from it
            self._on_fault(probe, error)
