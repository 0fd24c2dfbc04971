"""A timer's lateness, for loops whose iterations cannot be timed."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable
from contextvars import Context
from types import FrameType

from .._accounting.ledger import Ledger
from .._base.interrupts import is_interrupt

UNHURRIED_S = 0.25
"""Seconds between beats while no session lives, but for the first one after a start."""


RARELY_S = 0.1
"""Seconds between two starts from which on a loop does something rarely."""


class Heartbeat:
    """A timer on the loop whose lateness shows how long the loop was held.

    It is for loops whose iterations are hidden.

    One that parks stops when no step has begun between two beats, and the next step starts it again. So it never wakes
    an idle worker.
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
        self.parks = parks
        self.interval = min(0.025, max(0.005, ledger.limit / 2))
        """Seconds: half the threshold, 5–25 ms."""
        self.unhurried = True
        """Whether no session lives."""
        self._parked_at = -math.inf
        """Clock reading."""
        self._woken_rarely = False
        """Whether the next beat is the first one after a long sleep."""
        self.due: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._last_step = -1.0
        self._ledger.on_wake = self.start
        self.see_caller: Callable[[FrameType | None], None] = _nothing
        """Called at each beat with the frame that the loop calls its callbacks from, or the one that runs the loop."""

    def sessions_live(self, some: bool) -> None:
        """Beat as it is worth while sessions live, or while none does."""
        self.unhurried = not some
        if some:
            if self._timer is not None and self._ledger.clock() > (self.due or 0.0):
                return  # the beat is late already: what holds the loop now is found by it
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self.start()
        elif not self.parks:
            self.stop()

    def start(self) -> None:
        self._woken_rarely = self._ledger.clock() - self._parked_at > RARELY_S
        self._start(self.interval)

    def _start(self, seconds: float) -> None:
        if self._timer is None and not self._loop.is_closed():
            if self._ledger.holder is self._ledger.parked:
                self._ledger.holder = None
            self.due = self._ledger.clock() + seconds
            self._timer = self._loop.call_later(seconds, self._fire, context=Context())
            self._on_start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.due = None
        if self._ledger.holder is self._ledger.parked:
            self._ledger.holder = None

    def _fire(self) -> None:
        due, self._timer = self.due, None
        if due is None:
            return
        try:
            now = self._ledger.clock()
            self._beat(due, now)
            self.see_caller(sys._getframe().f_back)
            self.due = None
            if asyncio.current_task(self._loop) is not None:  # in a step's middle, as in a modal dialog of Qt's
                self._ledger.holder_since = now  # what came before is no part of the step
            last_step = self._ledger.holder_since
            quiet = last_step == self._last_step
            if self.unhurried and self._woken_rarely:  # the step that has started it was the only one
                quiet = now - last_step > self.interval / 2
            self._woken_rarely = False
            if quiet and self.parks:
                self._ledger.holder, self._ledger.step_since = self._ledger.parked, None
                self._parked_at = now
            else:
                self._last_step = last_step
                self._start(UNHURRIED_S if self.unhurried else self.interval)
        except Exception as error:
            if is_interrupt(error):
                raise
            self.due = None
            self._on_fault(f"the heartbeat has stopped: {error!r}", error)


def _nothing(frame: FrameType | None) -> None:
    pass
