"""The watchdog: a thread that looks where the loop's thread is while something holds the loop.

It never measures how long: that is the step meter's and the iteration's to say. Its looks are kept
as one incident, for whoever books the block when it is over, and for snapshots meanwhile.

- It ticks at nine tenths of the threshold (at most every 45 ms), so every block has a tick in it,
  and every few milliseconds while it sees something held.
- A C call that keeps the GIL starves it; it is handed the GIL right after the call, with the frame
  still on that line. How late a tick comes is kept: it is evidence itself.
- While the loop waits it parks, and the loop's next iteration wakes it. Without sessions it sleeps.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from ._adopted import AdoptedStep
from ._asyncio import AsyncioHook
from ._clock import Clock
from ._ledger import Ledger
from ._meter import drive
from ._parking import ParkingThread
from ._stacks import Call, take
from ._usage import ThreadUsage, Usage

CLOSE_LOOK_S = 0.005
"""Between looks while something is held; later ones of a long block come more rarely."""
NOTICED_S = 0.004
"""What has been held for less is not looked at."""
MAX_LOOKS = 48
STARVED_S = 0.0075
"""Python code gives the GIL away after 5 ms (sys.getswitchinterval): a look that is later than half as
much again met something that did not."""
PARK_AFTER_S = 0.2

HANDLE_RUN: CodeType = asyncio.Handle._run.__code__
ENDS = frozenset({drive.__code__, AdoptedStep.__call__.__code__, HANDLE_RUN, asyncio.Runner.run.__code__})
"""Where a task's or a callback's own frames end: outside of them are ours and the loop's."""


@dataclass(slots=True)
class Incident:
    """What was seen of one span in which the loop was held."""

    since: float
    """When the step, or the iteration, began."""
    before: Usage
    """The loop thread's, at the last tick before this was noticed."""
    first: Usage | None = None
    """The loop thread's, right after the first look; None until it is read."""
    looks: list[list[Call]] = field(default_factory=list)
    """Each innermost first."""
    handles: list[Any] = field(default_factory=list)
    """The event loop's Handle that each look found running; None where it found none."""
    late: list[float] = field(default_factory=list)
    """Seconds that each look came later than it should have."""
    dues: list[float] = field(default_factory=list)
    """When each look should have come."""
    idle_before: float | None = None
    """The loop's idle seconds at the time of `before`; None where the loop does not tell."""

    def starved(self, end: float) -> bool:
        """Whether a look came so late that the GIL was kept from the watchdog, up to the block's end at least."""
        looks = zip(self.dues, self.late, strict=True)
        return any(late >= STARVED_S and 2 * late >= end - due for due, late in looks)


class Watchdog(ParkingThread):
    """Watches one loop, on a daemon thread."""

    def __init__(
        self,
        hook: AsyncioHook,
        ledger: Ledger,
        clock: Clock,
        usage: ThreadUsage,
        on_fault: Callable[[str], None],
    ) -> None:
        super().__init__("openrtc-introspect-watchdog")
        self._hook = hook
        self._ledger = ledger
        self._clock = clock
        self._usage = usage
        self._on_fault = on_fault
        self._interval = min(0.045, 0.9 * ledger.limit)
        self._last = usage.read()
        self._last_idle = ledger.idle
        self._due: float | None = None
        """When the next look should come, or should have come when it went to sleep; None before the first."""
        self._asleep_since: float | None = self._clock()
        self.step: Incident | None = None
        """The latest step that was seen to go on."""
        self.iteration: Incident | None = None
        """The latest iteration that was seen to go on, whatever ran in it."""
        self._ticks = 0

    # --- the thread ------------------------------------------------------------------------------

    def _sleep(self) -> None:
        self._asleep_since = self._clock()
        super()._sleep()

    def wake(self) -> None:
        """The loop has something to do again: from now on a look is due, even if the thread never gets to it."""
        self._hook.wakes_watchdog = False
        if not self._awake.is_set():
            self._remember(self._usage.read())
            self._due = self._clock() + self._interval
            self._asleep_since = None
            super().wake()

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                if not self._awake.is_set():
                    self.cpu_s = time.thread_time()
                    self._awake.wait()  # `wake` has set when to look
                due = self._due or self._clock()
                if (left := due - self._clock()) > 0.0:  # a sleep of 0 gives the GIL away, too
                    time.sleep(left)  # waiting for an event instead would cost a tick half as much again
                self._ticks += 1
                if self._ticks % 16 == 0:
                    self.cpu_s = time.thread_time()
                if not self._stopped.is_set():
                    pause = self.look(self._clock() - due)
                    if self._awake.is_set():
                        self._due = self._clock() + pause
        except Exception as error:
            self._on_fault(f"the watchdog is switched off: {error!r}")

    # --- looking ---------------------------------------------------------------------------------

    def look(self, late: float = 0.0) -> float:
        """One tick, that came `late` seconds too late. Returns the seconds until the next."""
        standing = self._ledger.standing()
        now = standing.now
        stuck = self._hook.stuck_since(now)
        held = now - standing.since if standing.running is not None else 0.0
        turning = now - stuck if stuck is not None else 0.0
        if max(held, turning) < NOTICED_S:
            self._park_if_quiet(now, stuck)
            self._remember(self._usage.read())
            return self._interval
        # First of all, where it is: whatever gives the GIL away, as reading a file does, lets a starved
        # watchdog's one chance pass.
        calls, end = take(sys._current_frames().get(self._hook.thread_id), ENDS)
        if standing.running is None:  # in a step that another introspector has metered, or has left metered
            while end is not None and end.f_code is not HANDLE_RUN:
                end = end.f_back
        handle = end.f_locals.get("self") if end is not None and end.f_code is HANDLE_RUN else None
        del end
        same_step = standing.running is not None and self._ledger.standing().since == standing.since
        same_turn = stuck is not None and self._hook.stuck_since(now) == stuck
        seen: list[Incident] = []
        if same_step:
            self.step = self._seen(self.step, standing.since, calls, handle, now - late, late)
            seen.append(self.step)
        if same_turn and stuck is not None:
            self.iteration = self._seen(self.iteration, stuck, calls, handle, now - late, late)
            seen.append(self.iteration)
        usage = self._usage.read()
        self._remember(usage)
        for incident in seen:
            incident.first = incident.first or usage
        looks = max((len(incident.looks) for incident in seen), default=0)
        return CLOSE_LOOK_S if looks < MAX_LOOKS // 2 else self._interval

    def _remember(self, usage: Usage) -> None:
        self._last, self._last_idle = usage, self._ledger.idle

    def unseen(self, since: float, end: float) -> Incident | None:
        """What not having looked by `end` says of a block: the look that was due is late. None: none was due."""
        due, asleep_since = self._due, self._asleep_since
        if due is None or due >= end or not self._thread.is_alive():
            return None
        if asleep_since is not None and asleep_since <= since:  # a session that ends in the block ends the watch
            return None
        due = max(due, since)
        return Incident(since, before=self._last, late=[end - due], dues=[due], idle_before=self._last_idle)

    def _seen(
        self, incident: Incident | None, since: float, calls: list[Call], handle: Any, due: float, late: float
    ) -> Incident:
        if incident is None or incident.since != since:
            incident = Incident(since, before=self._last, idle_before=self._last_idle)
        if len(incident.looks) < MAX_LOOKS:
            incident.looks.append(calls)
            incident.handles.append(handle)
            incident.late.append(late)
            incident.dues.append(due)
        else:
            incident.looks[-1], incident.handles[-1] = calls, handle
        return incident

    def _park_if_quiet(self, now: float, stuck: float | None) -> None:
        hook, ledger = self._hook, self._ledger
        if not hook.times_iterations:
            if ledger.running is ledger.quiet:  # the heartbeat sleeps too, and wakes both
                self._sleep()
                if ledger.running is not ledger.quiet:
                    self.wake()
        elif stuck is None and now - hook.waiting_since > PARK_AFTER_S:
            self._sleep()
            hook.wakes_watchdog = True
            if hook.busy_since is not None:  # it woke up in between, and may have missed the flag
                self.wake()
