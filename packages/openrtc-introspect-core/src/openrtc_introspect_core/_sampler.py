"""`cpu="sampled"`: a background thread looks which session's task runs, many times a second.

This is statistical, and biased: the thread needs the GIL to look, and gets it when the loop's
thread gives it up, which is when it goes idle or into a call that releases it. Sessions that work
in short bursts of Python are not seen at all, those in blocking calls are seen too often; the
figures are in docs/benchmarks.md. It costs the loop nothing per step, and exact metering little.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from ._clock import Clock
from ._gil import copied
from ._hook import Fault, LoopHook
from ._sessions import Session


class Sampler:
    """Adds `interval` seconds to the sessions seen running, one on each loop, each `interval` seconds,
    while sessions live. On a thread of its own, for the introspector's life."""

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
        """The first session has started, or the last one has ended."""
        if some:
            self._awake.set()
        elif not self._stopped.is_set():
            self._awake.clear()

    def watch(self, hook: LoopHook) -> None:
        """Samples this loop, too, from now on."""
        self.seen[hook] = deque(maxlen=1024)

    def unwatch(self, hook: LoopHook) -> None:
        self.seen.pop(hook, None)

    def owner(self, hook: LoopHook, start: float, end: float) -> Session | None:
        """The session that nearly all samples of this span saw running; None where there is none."""
        seen = [session for when, session in copied(self.seen.get(hook, deque())) if start <= when <= end]
        first = seen[0] if seen else None
        return first if first is not None and seen.count(first) >= 0.8 * len(seen) else None

    def sample(self) -> None:
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
