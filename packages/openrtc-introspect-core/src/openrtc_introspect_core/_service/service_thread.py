"""The service thread, one for all workers of the process.

It calls their ticks when due, and serves their sockets.

While there is no socket to serve, the thread has no event loop either: it sleeps until the next tick.
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from contextvars import Context
from typing import Protocol

from .._base.own_loop import OwnLoop
from .._base.shared_thread import Part, SharedThread


class Worker(Part, Protocol):
    """One worker's part of the thread's work."""

    listener: socket.socket | None
    """None: the worker serves no socket."""
    due: float
    """The time of its next tick, by time.monotonic()."""

    def tick(self) -> None:
        """Do what is due. Raise nothing."""

    def serve(self, loop: OwnLoop) -> None:
        """Begin to serve the socket, or end that, whichever is due now."""


class ServiceThread(SharedThread[Worker]):
    """Sleeps until a worker is due, a client asks, or it is woken."""

    def _reset(self) -> None:
        super()._reset()
        # A forked child leaves the loop as it is: its selector is shared with the parent's.
        self._left = getattr(self, "_loop", None)
        self._loop: OwnLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def add(self, part: Worker, due: float = -math.inf) -> None:
        with self._lock:
            # Made here, so that a lack of file descriptors is raised to the code that starts the worker.
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
        """Serve sockets and tick, on the loop; run again when a worker is due."""
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
        """Call the ticks that are due. Return when the next one is, by time.monotonic()."""
        for worker in self._parts:
            if worker.due <= time.monotonic():
                worker.tick()
        self._read_cpu()
        return min((worker.due for worker in self._parts), default=math.inf)


SERVICE_THREAD = ServiceThread("openrtc-introspect")
"""The service thread of this process."""
