"""One daemon thread of ours for the whole process, shared by all who have work for it.

It starts with the first part, and ends by itself a moment after the last one has left: a suite that runs hundreds of
short loops finds it there, and a host that has closed its introspectors is soon rid of it.
"""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from contextvars import Context
from typing import Generic, Protocol, TypeVar

from . import _fork

KEEP_S = 0.2
"""For how long a thread that nobody has work for is kept."""


class Part(Protocol):
    """What one user of the thread has it do."""

    def failed(self, error: Exception) -> None:
        """The thread can work for it no more. Called on the thread."""


PartT = TypeVar("PartT", bound=Part)


class SharedThread(ABC, Generic[PartT]):
    """Works for its parts as long as there are any. All but `_work` may be called from any thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cpu_s = self._cpu_before = 0.0
        """CPU seconds that this thread, and those of its name before it, had used when it last read them."""
        self._reset()
        _fork.shared.append(self)

    def _reset(self) -> None:
        self._lock = threading.RLock()  # a signal's handler may close what its thread is starting
        self._parts: tuple[PartT, ...] = ()
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None
        self._until = 0.0
        """When it ends, while it has no parts; by time.monotonic()."""
        self._wakes_at = math.inf
        """When it wakes by itself, while it sleeps; while it is awake, it has to be told of everything."""

    def add(self, part: PartT, due: float = -math.inf) -> None:
        """Works for `part`, too, from now on; `due`: when there is something to do, by time.monotonic().

        Raises what keeps the thread from starting, and leaves nothing then.
        """
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=Context().run, args=[self._run], name=self.name, daemon=True)
                thread.start()
                self._thread = thread
            self._parts = (*self._parts, part)
            self.wake(due)

    def discard(self, part: PartT) -> None:
        """Begins nothing for `part` any more; what is under way may go on. Idempotent."""
        with self._lock:
            if part in self._parts:
                self._parts = tuple(each for each in self._parts if each is not part)
                self._until = time.monotonic() + KEEP_S
                self.wake(self._until)

    def has(self, part: PartT) -> bool:
        return part in self._parts

    def wake(self, due: float = -math.inf) -> None:
        """Looks again at what there is to do, by `due` at the latest: where it will anyway, it is not woken."""
        if due < self._wakes_at:
            self._changed.set()

    def runs_here(self) -> bool:
        """Whether it is this thread."""
        thread = self._thread
        return thread is not None and thread.ident == threading.get_ident()

    def end_if_idle(self, timeout_s: float) -> None:
        """Waits until it has ended, where nobody has work for it."""
        with self._lock:
            thread = self._thread if not self._parts else None
            self._until = 0.0
            self.wake()
        if thread is not None:
            thread.join(timeout_s)

    def abandon_after_fork(self) -> None:
        """In a forked child it does not run, and whoever held its lock is not there."""
        self._reset()

    def _run(self) -> None:
        self._cpu_before = self.cpu_s
        while self._waits_for_parts():
            try:
                self._work()
            except Exception as error:  # of our own making: what one part does wrong is that part's
                for part in self._parts:
                    self.discard(part)
                    part.failed(error)

    def _waits_for_parts(self) -> bool:
        """Whether there are any. False: for a while there were none, and the next one starts another thread."""
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
        """Sleeps until then, or until it is woken; what woke it since `_changed` was cleared counts."""
        self._wakes_at = until
        self._changed.wait(None if until == math.inf else max(0.0, until - time.monotonic()))
        self._wakes_at = math.inf

    def _read_cpu(self) -> None:
        self.cpu_s = self._cpu_before + time.thread_time()

    def _ends(self) -> None:
        """Gives back what the thread has; no part can come meanwhile."""

    @abstractmethod
    def _work(self) -> None:
        """Works until there are no parts, or there is something else to do."""
