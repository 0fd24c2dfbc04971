"""The service thread: takes the samples that are due and serves the socket, on a loop of its own.

On its own thread, because a worker whose loop is blocked must still answer: that is when it is asked.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Container

# Loaded by anyio where it is first used. On our thread that must not be: a host that forks meanwhile would have a child
# in which the module's import lock is held for ever.
import anyio._backends._asyncio  # noqa: F401

from ._clock import Clock
from ._report import Reporter
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
from .wire._server import Server
from .wire._source import Source

IDLE_INTERVAL_S = 2.0
"""Between ticks while no session lives."""


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


class Service:
    """Starts on `start`, ends on `stop` or with the process."""

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
        self._listener = listener
        self._source = source
        self._hello = hello
        self._clock = clock
        self._interval = interval_s
        self._idle = idle
        self._tick = tick
        self._on_fault = on_fault
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._stopping = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="openrtc-introspect", daemon=True)
        self.cpu_s = 0.0
        """CPU seconds this thread has used."""

    def start(self) -> None:
        # Made here, so that whoever starts it is told where there are no file descriptors left for it.
        self._own_loop = asyncio.SelectorEventLoop()
        try:
            self._thread.start()
        except BaseException:
            self._own_loop.close()
            raise

    def stop(self) -> None:
        """Asks the thread to end; `is_alive` and `join` tell when it has."""
        with self._lock:
            self._stopping = True
            if self._loop is not None and self._main is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._main.cancel)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            # asyncio's own loop, whatever the host's policy is: a thread's few connections need no other.
            with asyncio.Runner(loop_factory=lambda: self._own_loop) as runner:
                runner.run(self._serve())
        except asyncio.CancelledError:
            pass
        except Exception as error:
            self._on_fault("service", error)
        finally:
            if self._listener is not None:
                self._listener.close()

    async def _serve(self) -> None:
        with self._lock:
            if self._stopping:
                return
            self._loop = asyncio.get_running_loop()
            self._main = asyncio.current_task()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_ticking())
                if self._listener is not None:
                    group.create_task(self._keep_serving(self._listener))
        finally:
            with self._lock:
                self._loop = None

    async def _keep_serving(self, listener: socket.socket) -> None:
        try:
            await Server(listener, self._source, self._hello).serve()
        except Exception as error:  # sampling goes on without it
            listener.close()
            self._on_fault("socket", error)

    async def _keep_ticking(self) -> None:
        while True:
            try:
                self._tick(self._clock())
            except Exception as error:
                self._on_fault("sampling", error)
                return
            self.cpu_s = time.thread_time()
            # With nothing to sample, waking up is all that a tick costs.
            await asyncio.sleep(max(self._interval, IDLE_INTERVAL_S) if self._idle() else self._interval)
