"""The watchdog: a thread that looks where a loop's thread is while something holds the loop.

It never measures how long: that is the step meter's and the iteration's to say. Its looks are kept
as one incident, for whoever books the block when it is over, and for snapshots meanwhile.

- It ticks at nine tenths of the threshold (at most every 45 ms), so every block has a tick in it,
  and every few milliseconds while it sees something held.
- A C call that keeps the GIL starves it; it is handed the GIL right after the call, with the frame
  still on that line. How late a tick comes is kept: it is evidence itself.
- While the loop waits it parks, and the loop's next iteration wakes it. Without sessions it sleeps.
- There is one thread for all loops of the process, whichever introspectors they are attached to, and a
  watch for each: what it sees of one is of that one only. A loop that computes starves it of the
  others' looks as well, which is true of them: they wait for the GIL, too.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import ref

from ._clock import Clock, perf_counter
from ._hook import Fault, LoopHook
from ._sessions import Session
from ._shared_thread import SharedThread
from ._stacks import Call, frames_now, take
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
    running: list[tuple[Session | None, str | None]] = field(default_factory=list)
    """(session, task's name) of what each look found running outside of metered steps."""
    late: list[float] = field(default_factory=list)
    """Seconds that each look came later than it should have."""
    dues: list[float] = field(default_factory=list)
    """When each look should have come."""
    idle_before: float | None = None
    """The loop's idle seconds at the time of `before`; None where the loop does not tell."""

    def starved(self, end: float) -> bool:
        """Whether a look came so late that the GIL was kept from the watchdog, up to the block's end at least."""
        looks = zip(self.dues, self.late, strict=False)  # the watchdog may be adding to them
        return any(late >= STARVED_S and 2 * late >= end - due for due, late in looks)


class Watch:
    """What the watchdog sees of one loop."""

    def __init__(self, hook: LoopHook, usage: ThreadUsage, clock: Clock, watchdog: Watchdog) -> None:
        self._hook = hook
        self._ledger = hook.ledger
        self.usage = usage
        self._clock = clock
        self._watchdog = watchdog
        self._interval = min(0.045, 0.9 * hook.ledger.limit)
        self._last = usage.read()
        self._last_idle = hook.ledger.idle
        self.awake = False
        self.due: float | None = None
        """When the next look should come, or should have come when it fell asleep; None before the first."""
        self._asleep_since: float | None = self._clock()
        self._starved: Incident | None = None
        """The latest look that came late and found nothing: what held the GIL let go of it for the watchdog first."""
        self.step: Incident | None = None
        """The latest step that was seen to go on."""
        self.iteration: Incident | None = None
        """The latest iteration that was seen to go on, whatever ran in it."""

    def sleep(self, *, until_the_next_iteration: bool) -> None:
        self._asleep_since = self._clock()
        self.awake = False
        self._hook.wakes_watchdog = until_the_next_iteration

    def wake(self) -> None:
        """The loop has something to do again: from now on a look is due, even if the thread never gets to it."""
        self._hook.wakes_watchdog = False
        if not self.awake:
            self._remember(self.usage.read())
            self.due = self._clock() + self._interval
            self._asleep_since = None
            self.awake = True
            self._watchdog.wake()

    def look(self, late: float = 0.0, not_let: Callable[[], float] = lambda: 0.0) -> float:
        """One tick, that came `late` seconds too late. Returns the seconds until the next.

        `not_let` tells for how many of them this thread waited for a processor, which is no one's GIL.
        """
        standing = self._ledger.standing()
        now = standing.now
        stuck = self._hook.stuck_since(now)
        held = now - standing.since if standing.running is not None else 0.0
        turning = now - stuck if stuck is not None else 0.0
        if max(held, turning) < NOTICED_S:
            if late >= STARVED_S and (kept := late - not_let()) >= STARVED_S:
                due = now - kept
                self._starved = Incident(due, before=self._last, late=[kept], dues=[due], idle_before=self._last_idle)
            self._park_if_quiet(now, stuck)
            self._remember(self.usage.read())
            return self._interval
        # First of all, where it is: whatever gives the GIL away, as reading a file does, lets a starved
        # watchdog's one chance pass.
        calls, end = take(frames_now().get(self._hook.thread_id), self._hook.ends, in_c=self._hook.drives_in_c)
        running = self._hook.seen_running(end)
        del end
        due = now - late
        same_step = standing.running is not None and self._ledger.standing().since == standing.since
        same_turn = stuck is not None and self._hook.stuck_since(now) == stuck
        seen: list[Incident] = []
        if same_step:
            self.step = self._seen(self.step, standing.since, calls, running, due, late)
            seen.append(self.step)
        if same_turn and stuck is not None:
            self.iteration = self._seen(self.iteration, stuck, calls, running, due, late)
            seen.append(self.iteration)
        late = max(0.0, late - not_let())
        usage = self.usage.read()
        self._remember(usage)
        for incident in seen:
            incident.first = incident.first or usage
            if incident.dues[-1] == due:
                incident.late[-1] = late
        looks = max((len(incident.looks) for incident in seen), default=0)
        return CLOSE_LOOK_S if looks < MAX_LOOKS // 2 else self._interval

    def _remember(self, usage: Usage) -> None:
        self._last, self._last_idle = usage, self._ledger.idle

    def unseen(self, since: float, end: float) -> Incident | None:
        """What not having seen a block says: a look that was due is late, or came late just now. None: neither."""
        due, asleep_since = self.due, self._asleep_since
        if due is None or not self._watchdog.is_alive():
            return None
        if due >= end:
            return self._starved_in(since, end)
        if asleep_since is not None and asleep_since <= since:  # a session that ends in the block ends the watch
            return None
        due = max(due, since)
        return Incident(since, before=self._last, late=[end - due], dues=[due], idle_before=self._last_idle)

    def _starved_in(self, since: float, end: float) -> Incident | None:
        starved = self._starved
        if starved is None or starved.since >= end or starved.since + starved.late[0] <= since:
            return None
        due = max(starved.since, since)
        late = min(end, starved.since + starved.late[0]) - due
        return Incident(since, before=starved.before, late=[late], dues=[due], idle_before=starved.idle_before)

    def _seen(
        self, incident: Incident | None, since: float, calls: list[Call], running: Any, due: float, late: float
    ) -> Incident:
        if incident is None or incident.since != since:
            incident = Incident(since, before=self._last, idle_before=self._last_idle)
        if len(incident.looks) < MAX_LOOKS:
            incident.looks.append(calls)
            incident.running.append(running)
            incident.late.append(late)
            incident.dues.append(due)
        else:
            incident.looks[-1], incident.running[-1] = calls, running
        return incident

    def _park_if_quiet(self, now: float, stuck: float | None) -> None:
        hook, ledger = self._hook, self._ledger
        if not hook.runs():
            self.sleep(until_the_next_iteration=True)
        elif not hook.times_iterations:
            if ledger.running is ledger.quiet:  # the heartbeat sleeps too, and wakes both
                self.sleep(until_the_next_iteration=False)
                if ledger.running is not ledger.quiet:
                    self.wake()
        elif stuck is None and now - hook.waiting_since > PARK_AFTER_S:
            self.sleep(until_the_next_iteration=True)
            if hook.busy_since is not None:  # it woke up in between, and may have missed the flag
                self.wake()


def _since(usage: ThreadUsage, waited: float) -> float:
    """Seconds that the thread was ready to run and not let, since that was `waited`."""
    return usage.waited_s() - waited


class Watchdog:
    """Watches the loops of one introspector, by the thread that looks for all of them."""

    def __init__(self, clock: Clock, on_fault: Fault) -> None:
        self._clock = clock
        self._on_fault = on_fault
        self._watches: list[Watch] = []
        self._sessions_live = False
        self._thread = WATCHDOG_THREAD
        self._cpu_before = self._thread.cpu_s
        self._stopped = False
        self._looking = threading.RLock()

    @property
    def cpu_s(self) -> float:
        """CPU seconds that the thread had used since this was made, for whomever, when it last read them."""
        return self._thread.cpu_s - self._cpu_before

    def start(self) -> None:
        """Raises where there is no thread to be had."""
        self._thread.add(self, math.inf)  # it is woken when a watch is

    def stop(self) -> None:
        """Looks no more; `is_alive` and `join` tell when the look that was under way is over."""
        self._stopped = True
        self._thread.discard(self)

    def is_alive(self) -> bool:
        """Whether it looks, or may still be looking."""
        if not self._looking.acquire(blocking=False):
            return True
        self._looking.release()
        return self._thread.has(self)

    def join(self, timeout_s: float) -> None:
        """Waits for a look that is under way."""
        if self._looking.acquire(timeout=timeout_s):
            self._looking.release()

    def watch(self, hook: LoopHook, usage: ThreadUsage) -> Watch:
        """Watches this loop, too, from now on."""
        watch = Watch(hook, usage, self._clock, self)
        hook.on_wake = watch.wake
        self._watches.append(watch)
        if self._sessions_live:
            watch.wake()
        return watch

    def unwatch(self, watch: Watch) -> None:
        if watch in self._watches:
            self._watches.remove(watch)

    def sessions_live(self, some: bool) -> None:
        """The first session has started, or the last one has ended."""
        self._sessions_live = some
        for watch in list(self._watches):
            if some:
                watch.wake()
            else:
                watch.sleep(until_the_next_iteration=False)

    def wake(self) -> None:
        if self._thread.has(self):
            self._thread.wake()

    # --- the watchdog thread's --------------------------------------------------------------------

    def next(self) -> Watch | None:
        """The watch whose look is due first; None where all sleep."""
        awake = [watch for watch in list(self._watches) if watch.awake]
        return min(awake, key=lambda watch: watch.due or 0.0, default=None)

    def look(self, watch: Watch, due: float, not_let: Callable[[], float]) -> None:
        """Has the look that was due, and sets when the next one is."""
        with self._looking:
            if self._stopped or not watch.awake:
                return
            try:
                late = self._clock() - due
                pause = watch.look(late, not_let)
                if watch.awake:
                    watch.due = self._clock() + pause
            except Exception as error:
                self._thread.discard(self)
                self.failed(error)

    def failed(self, error: Exception) -> None:
        """The thread looks for it no more."""
        with suppress(Exception):  # a filter of the host's log may raise: other introspectors are not to suffer from it
            self._on_fault(f"the watchdog is switched off: {error!r}", error)


class WatchdogThread(SharedThread[Watchdog]):
    """Looks at all loops of the process, each when a look at it is due."""

    def _work(self) -> None:
        own = ThreadUsage(perf_counter, threading.get_ident(), threading.get_native_id())
        try:
            ticks = 0
            while self._parts:
                watchdog, watch = self._next()
                if watchdog is None or watch is None:
                    self._read_cpu()
                    self._changed.clear()
                    if self._next()[0] is None and self._parts:
                        self._sleep(math.inf)
                    continue
                due = watch.due or perf_counter()
                waited = own.waited_s()
                if (left := due - perf_counter()) > 0.0:  # a sleep of 0 gives the GIL away, too
                    awaited = ref(watch)
                    del watch  # a loop that ends meanwhile is not kept alive by this thread
                    time.sleep(left)  # waiting for an event instead would cost a tick half as much again
                    watch = awaited()
                ticks += 1
                if ticks % 16 == 0:
                    self._read_cpu()
                if watch is not None:
                    watchdog.look(watch, due, partial(_since, own, waited))
        finally:
            own.close()

    def _next(self) -> tuple[Watchdog, Watch] | tuple[None, None]:
        """The watch whose look is due first, and its watchdog; None where all sleep."""
        awake = [(watchdog, watch) for watchdog in self._parts if (watch := watchdog.next()) is not None]
        return min(awake, key=lambda each: each[1].due or 0.0, default=(None, None))


WATCHDOG_THREAD = WatchdogThread("openrtc-introspect-watchdog")
"""The one of this process."""
