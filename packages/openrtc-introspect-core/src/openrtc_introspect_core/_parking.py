"""A daemon thread of ours that works while sessions live and sleeps while none does."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod


class ParkingThread(ABC):
    """`_run` works while `_awake` is set, and ends once `_stopped` is."""

    def __init__(self, name: str) -> None:
        self._awake = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.cpu_s = 0.0
        """CPU seconds this thread had used when it last read them."""

    @abstractmethod
    def _run(self) -> None: ...

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._awake.set()

    def join(self, timeout_s: float) -> None:
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def sessions_live(self, some: bool) -> None:
        """The first session has started, or the last one has ended."""
        if some:
            self.wake()
        elif not self._stopped.is_set():
            self._sleep()

    def wake(self) -> None:
        self._awake.set()

    def _sleep(self) -> None:
        self._awake.clear()
