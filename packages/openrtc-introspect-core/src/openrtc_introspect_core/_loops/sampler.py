"""The thread of `cpu="sampled"`: it reads many times a second which task runs.

This is statistical, and biased: the thread needs the GIL for a sample, and gets it when the loop's thread releases
it, which is when the loop waits or is in a call that releases the GIL. Sessions that work in short bursts of Python are
not seen at all, those in blocking calls are seen too often; the figures are in docs/benchmarks.md. Sampling costs the
loop nothing per step; exact metering costs little.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from .._base.clock import Clock
from .._base.gil import copied
from .._sessions.session import Session
from .hook import LoopHook
from .iterations import Fault


class Sampler:
    """The sampling thread of one introspector.

    While sessions live, each `interval` seconds it charges `interval` seconds to the session that it sees running on
    each loop.
    """

    def __init__(self, clock: Clock, interval: float, on_fault: Fault) -> None:
        self._thread = threading.Thread(target=self._run, name="openrtc-introspect-sampler", daemon=True)
        self._awake = threading.Event()
        self._stopped = threading.Event()
        self.cpu_s = 0.0
        """CPU seconds its thread had used when it last read them."""
        self._clock = clock
        self._interval = interval
        self._on_fault = on_fault
        self.seen: dict[LoopHook, deque[tuple[float, Session | None]]] = {}
        """By loop: (clock reading, the session whose task ran) of the last samples."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._awake.set()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def sessions_live(self, some: bool) -> None:
        """Sample from the first session's start, and pause after the last one's end."""
        if some:
            self._awake.set()
        elif not self._stopped.is_set():
            self._awake.clear()

    def watch(self, hook: LoopHook) -> None:
        """Sample this loop, too, from now on."""
        self.seen[hook] = deque(maxlen=1024)

    def unwatch(self, hook: LoopHook) -> None:
        self.seen.pop(hook, None)

    def owner(self, hook: LoopHook, start: float, end: float) -> Session | None:
        """Return the session that nearly all samples of this span saw running.

        None if there is none.
        """
        seen = [session for when, session in copied(self.seen.get(hook, deque())) if start <= when <= end]
        first = seen[0] if seen else None
        return first if first is not None and seen.count(first) >= 0.8 * len(seen) else None

    def sample(self) -> None:
        """Take one sample of each loop, and charge it."""
        for hook, seen in list(self.seen.items()):
            session = hook.running_session()
            if session is not None:
                account = hook.ledger.account_of(session)
                account.busy += self._interval
                account.steps += 1
            seen.append((self._clock(), session))

    def _run(self) -> None:
        try:
            while self._awake.wait() and not self._stopped.wait(self._interval):
                self.sample()
                self.cpu_s = time.thread_time()
        except Exception as error:
            self._on_fault(f"the sampler is switched off: {error!r}", error)
