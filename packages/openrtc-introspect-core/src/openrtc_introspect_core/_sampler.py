"""`cpu="sampled"`: a background thread looks which session's task runs, many times a second.

This is statistical, and biased: the thread needs the GIL to look, and gets it when the loop's
thread gives it up, which is when it goes idle or into a call that releases it. Sessions that work
in short bursts of Python are not seen at all, those in blocking calls are seen too often; the
figures are in docs/benchmarks.md. It costs the loop nothing per step, and exact metering little.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from ._asyncio import AsyncioHook
from ._clock import Clock
from ._parking import ParkingThread
from ._sessions import Session


class Sampler(ParkingThread):
    """Adds `interval` seconds to the session seen running, each `interval` seconds, while sessions live."""

    def __init__(self, hook: AsyncioHook, clock: Clock, interval: float, on_fault: Callable[[str], None]) -> None:
        super().__init__("openrtc-introspect-sampler")
        self._hook = hook
        self._clock = clock
        self._interval = interval
        self._on_fault = on_fault
        self._seen: deque[tuple[float, Session | None]] = deque(maxlen=1024)

    def owner(self, start: float, end: float) -> Session | None:
        """The session that nearly all samples of this span saw running; None where there is none."""
        seen = [session for when, session in list(self._seen) if start <= when <= end]
        first = seen[0] if seen else None
        return first if first is not None and seen.count(first) >= 0.8 * len(seen) else None

    def sample(self) -> None:
        task = asyncio.current_task(self._hook.loop)
        session = self._hook.tags.get(task) if task is not None else None
        if session is not None:
            session.busy += self._interval
            session.steps += 1
        self._seen.append((self._clock(), session))

    def _run(self) -> None:
        try:
            while self._awake.wait() and not self._stopped.wait(self._interval):
                self.sample()
                self.cpu_s = time.thread_time()
        except Exception as error:
            self._on_fault(f"the sampler is switched off: {error!r}")
