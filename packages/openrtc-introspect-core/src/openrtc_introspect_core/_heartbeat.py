"""A timer's lateness, for loops whose iterations cannot be timed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context

from ._interrupts import is_interrupt
from ._ledger import Ledger


class Heartbeat:
    """A timer on the loop whose lateness tells how long the loop was held. For loops that time nothing.

    Where no step has begun between two beats it stops, and the next step starts it again: what is
    waited for in an idle worker is worth no wake-up.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ledger: Ledger,
        *,
        beat: Callable[[float, float], None],
        on_start: Callable[[], None],
        on_fault: Callable[[str, BaseException], None],
        parks: bool,
    ) -> None:
        self._loop = loop
        self._ledger = ledger
        self._beat = beat
        self._on_start = on_start
        self._on_fault = on_fault
        self._parks = parks
        self.interval = min(0.025, max(0.005, ledger.limit / 2))
        """Seconds: half the threshold, 5–25 ms."""
        self.due: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._last_step = -1.0
        self._ledger.on_wake = self.start

    def start(self) -> None:
        if self._timer is None and not self._loop.is_closed():
            if self._ledger.running is self._ledger.quiet:
                self._ledger.running = None
            self.due = self._ledger.clock() + self.interval
            self._timer = self._loop.call_later(self.interval, self._fire, context=Context())
            self._on_start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.due = None
        if self._ledger.running is self._ledger.quiet:
            self._ledger.running = None

    def _fire(self) -> None:
        due, self._timer = self.due, None
        if due is None:
            return
        try:
            self._beat(due, self._ledger.clock())
            self.due = None
            if self._ledger.since == self._last_step and self._parks:
                self._ledger.running = self._ledger.quiet
            else:
                self._last_step = self._ledger.since
                self.start()
        except Exception as error:
            if is_interrupt(error):
                raise
            self.due = None
            self._on_fault(f"the heartbeat has stopped: {error!r}", error)
