"""A daemon thread that all introspectors of a process share.

It starts with the first part that is added, and ends by itself a moment after the last one was discarded. So a test
suite that runs hundreds of short loops does not start it anew each time, and no thread outlives the introspectors.
"""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from contextvars import Context
from typing import Generic, Protocol, TypeVar

from . import fork

KEEP_S = 0.2
"""Seconds for which a thread without parts is kept."""


class Part(Protocol):
    """The work of one user of the thread."""

    def failed(self, error: Exception) -> None:
        """React to an error of the thread, which does no more work for this part.

        Called on the thread.
        """


PartT = TypeVar("PartT", bound=Part)


class SharedThread(ABC, Generic[PartT]):
    """A thread that works as long as it has parts.

    Any thread may call all methods but `_work`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.cpu_s = self._cpu_before = 0.0
        """CPU seconds of this thread and its predecessors of the same name, as last read by the thread."""
        self._reset()
        fork.shared.append(self)

    def _reset(self) -> None:
        self._lock = threading.RLock()  # reentrant: a signal handler may close what its thread is just starting
        self._parts: tuple[PartT, ...] = ()
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None
        self._started_on = 0
        """The operating system's number of the thread that started it."""
        self._until = 0.0
        """The time.monotonic() at which it ends, while it has no parts."""
        self._wakes_at = math.inf
        """The time.monotonic() at which its sleep ends; infinity while it is awake, so that every call wakes it."""

    def add(self, part: PartT, due: float = -math.inf) -> None:
        """Work for `part` from now on. due: the time.monotonic() of its first work.

        Raises the error that keeps the thread from starting; then nothing is added.
        """
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._started_on = threading.get_native_id()
                thread = threading.Thread(target=Context().run, args=[self._run], name=self.name, daemon=True)
                thread.start()
                self._thread = thread
            self._parts = (*self._parts, part)
            self.wake(due)

    def discard(self, part: PartT) -> None:
        """Begin no more work for `part`. Work in progress may continue. Idempotent."""
        with self._lock:
            if part in self._parts:
                self._parts = tuple(each for each in self._parts if each is not part)
                self._until = time.monotonic() + KEEP_S
                self.wake(self._until)

    def has(self, part: PartT) -> bool:
        """Return whether the thread works for `part`."""
        return part in self._parts

    def wake(self, due: float = -math.inf) -> None:
        """Have the thread check for work by `due` (time.monotonic()).

        It is only woken if it would sleep longer.
        """
        if due < self._wakes_at:
            self._changed.set()

    def runs_here(self) -> bool:
        """Return whether the calling thread is this thread."""
        thread = self._thread
        return thread is not None and thread.ident == threading.get_ident()

    def is_greenlet(self) -> bool:
        """Return whether it has no thread of its own: gevent can put greenlets in the place of all threads.

        Called on the thread.
        """
        return threading.get_native_id() == self._started_on

    def end_if_idle(self, timeout_s: float) -> None:
        """End the thread if it has no parts, and wait for at most `timeout_s` seconds."""
        with self._lock:
            thread = self._thread if not self._parts else None
            self._until = 0.0
            self.wake()
        if thread is not None:
            thread.join(timeout_s)

    def abandon_after_fork(self) -> None:
        """Start anew in a forked child, which has no such thread."""
        self._reset()

    def _run(self) -> None:
        self._cpu_before = self.cpu_s
        while self._waits_for_parts():
            try:
                self._work()
            except Exception as error:  # a fault of the thread's own code, as a part handles its faults itself
                for part in self._parts:
                    self.discard(part)
                    part.failed(error)

    def _waits_for_parts(self) -> bool:
        """Wait for parts.

        False: there were none for a while, and the next part starts another thread.
        """
        while True:
            self._read_cpu()
            self._changed.clear()
            with self._lock:
                if self._parts:
                    return True
                if time.monotonic() >= self._until:
                    self._ends()
                    self._thread = None
                    return False
            self._sleep(self._until)

    def _sleep(self, until: float) -> None:
        """Sleep until `until` (time.monotonic()) or the next wake-up.

        A wake-up since `_changed` was cleared counts.
        """
        self._wakes_at = until
        self._changed.wait(None if until == math.inf else max(0.0, until - time.monotonic()))
        self._wakes_at = math.inf

    def _read_cpu(self) -> None:
        self.cpu_s = self._cpu_before + time.thread_time()

    def _ends(self) -> None:
        """Release the thread's resources. No part can be added meanwhile."""

    @abstractmethod
    def _work(self) -> None:
        """Work until there are no parts left."""
