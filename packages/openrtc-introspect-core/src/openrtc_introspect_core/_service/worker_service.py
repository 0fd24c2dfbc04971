"""The service of one worker.

It takes the samples that are due, and serves the socket.

It runs on a thread of its own, because a worker must answer while its loop is blocked: that is when it is asked.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from .._base.clock import Clock
from ..wire._messages import Hello
from ..wire._source import Source
from .service_thread import SERVICE_THREAD

if TYPE_CHECKING:
    from .._base.own_loop import OwnLoop
    from ..wire._server import Server

IDLE_INTERVAL_S = 2.0
"""Seconds between ticks while no session lives."""

MIN_INTERVAL_S = 0.05
"""Seconds between two ticks at least."""

FIRST_AFTER_S = 0.05
"""Seconds until the first tick: a loop that lives for less is spared the tick."""


def server_class() -> type[Server]:
    """Load the class of servers with all that it needs, and return it.

    It must not be loaded on our thread: if the host forked meanwhile, the module's import lock would be held for ever
    in the child. On a loop's thread loading takes long enough to be a block, so it is done before the loop is attached.
    """
    import anyio._backends._asyncio  # noqa: F401

    from ..wire._server import Server

    return Server


class WorkerService:
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
        tick: Callable[[float], float | None],
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
        """Set once the socket is no longer served, or if there is none."""
        if listener is None:
            self._served.set()
        self._cpu_before = self._thread.cpu_s
        self.due = math.inf
        """The time of the next tick, by time.monotonic()."""

    @property
    def cpu_s(self) -> float:
        """Return the CPU seconds that the thread has used since this was made.

        That is for all workers of the process.
        """
        return self._thread.cpu_s - self._cpu_before

    def start(self) -> None:
        """Tick and serve from now on.

        Raise what prevents a new thread, or a loop for want of file descriptors. Once it was stopped, do nothing.
        """
        if self._stopped:
            return
        self.due = time.monotonic() + min(self._interval, FIRST_AFTER_S)
        self._thread.add(self, self.due if self.listener is None else -math.inf)

    def tick_soon(self) -> None:
        """Tick before that is due, unless a tick is under way. From any thread."""
        if -math.inf < self.due < math.inf and not self._stopped:
            self.due = -math.inf
            self._thread.wake()

    def stop(self) -> None:
        """Stop ticking, and begin to close the socket.

        `is_alive` and `join` show when that is done.
        """
        self._stopped = True
        if self._served.is_set():
            self._thread.discard(self)
        elif self._thread.has(self):
            self._thread.wake()
        else:  # it was not started
            self._close_listener()
            self._served.set()

    def is_alive(self) -> bool:
        """Return whether a part of it may still run."""
        if not self._ticking.acquire(blocking=False):
            return True
        self._ticking.release()
        return self._thread.has(self)

    def join(self, timeout_s: float) -> None:
        """Wait until no part of it may run; on the service thread itself, do not wait."""
        if self._thread.runs_here():
            return
        deadline = time.monotonic() + timeout_s
        self._served.wait(timeout_s)
        if self._ticking.acquire(timeout=max(0.0, deadline - time.monotonic())):
            self._ticking.release()

    # --- the service thread's ---------------------------------------------------------------------

    def tick(self) -> None:
        """Take the samples that are due."""
        with self._ticking:
            self.due = math.inf
            if self._stopped:
                return
            try:
                seconds = self._tick(self._clock())
                if self._idle():  # with nothing to sample, a tick costs no more than waking up
                    seconds = max(self._interval, IDLE_INTERVAL_S)
                elif seconds is None:
                    seconds = self._interval
                self.due = time.monotonic() + min(max(seconds, MIN_INTERVAL_S), max(self._interval, IDLE_INTERVAL_S))
            except Exception as error:
                if self._served.is_set():
                    self._thread.discard(self)
                self._report_fault("sampling", error)

    def serve(self, loop: OwnLoop) -> None:
        """Begin to serve the socket; once this was stopped, end that."""
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
        except Exception as error:  # sampling goes on without the socket
            self._close_listener()
            self._report_fault("socket", error)

    def _end(self) -> None:
        self._close_listener()
        if self._stopped or self.due == math.inf:
            self._thread.discard(self)
        self._served.set()

    def _close_listener(self) -> None:
        if self.listener is not None:
            with suppress(OSError):  # the host may have closed all files, as programs do that become daemons
                self.listener.close()

    def failed(self, error: Exception) -> None:
        """Take note that the thread has failed, and works for this no longer."""
        self._stopped = True
        self._close_listener()
        self._served.set()
        self._report_fault("service", error)

    def _report_fault(self, probe: str, error: Exception) -> None:
        with suppress(Exception):  # a filter of the host's log may raise: the other workers must not suffer from it
            self._on_fault(probe, error)
