"""The service thread, one for all workers of the process: has each tick when it is due, and serves the sockets.

As long as there is no socket to serve it has no event loop either: it sleeps until the next tick.
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from contextvars import Context
from typing import Protocol

from ._own_loop import OwnLoop
from ._shared_thread import Part, SharedThread


class Worker(Part, Protocol):
    """What the thread does for one worker."""

    listener: socket.socket | None
    """None: it serves no socket."""
    due: float
    """When it is to tick next, by time.monotonic()."""

    def tick(self) -> None: ...

    def serve(self, loop: OwnLoop) -> None:
        """Begins to serve the socket, or ends that, as it is wanted now."""


class ServiceThread(SharedThread[Worker]):
    """Sleeps until a worker is due, a client asks, or it is woken."""

    def _reset(self) -> None:
        super()._reset()
        # A forked child's is left as it is: what it waits for, it shares with the parent's.
        self._left = getattr(self, "_loop", None)
        self._loop: OwnLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def add(self, part: Worker, due: float = -math.inf) -> None:
        with self._lock:
            # Made here, so that whoever starts it is told where there are no file descriptors left for it.
            if part.listener is not None and self._loop is None:
                self._loop = OwnLoop()
            try:
                super().add(part, due)
            except BaseException:
                if self._thread is None:
                    self._close_loop()
                raise

    def wake(self, due: float = -math.inf) -> None:
        with self._lock:  # so that the loop is not closed meanwhile
            super().wake(due)
            if self._loop is not None and due < self._wakes_at:
                self._loop.call_soon_threadsafe(self._turn, context=Context())  # not the caller's session's

    def _ends(self) -> None:
        self._close_loop()

    def _close_loop(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()

    def _work(self) -> None:
        if self._loop is not None:
            self._loop.call_soon(self._turn)
            self._loop.run_forever()
            self._wakes_at = math.inf
            return
        self._changed.clear()
        due = self._tick()
        if self._parts:
            self._sleep(due)

    def _turn(self) -> None:
        """On the loop: does what is to do, and comes again when a worker is due."""
        self._wakes_at = math.inf
        loop = self._loop
        assert loop is not None
        if self._timer is not None:
            self._timer.cancel()
        for worker in self._parts:
            try:
                worker.serve(loop)
            except Exception as error:
                self.discard(worker)
                worker.failed(error)
        due = self._tick()
        if self._parts:
            self._timer = loop.call_later(max(0.0, due - time.monotonic()), self._turn)
            self._wakes_at = due
        else:
            loop.stop()

    def _tick(self) -> float:
        """Has each worker tick that is due. When the next one is."""
        for worker in self._parts:
            if worker.due <= time.monotonic():
                worker.tick()
        self._read_cpu()
        return min((worker.due for worker in self._parts), default=math.inf)


SERVICE_THREAD = ServiceThread("openrtc-introspect")
"""The one of this process."""
