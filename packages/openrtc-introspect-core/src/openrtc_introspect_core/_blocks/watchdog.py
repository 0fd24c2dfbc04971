"""The watchdog: a thread that takes stack samples while something holds a loop.

It never measures how long: that is the step meter's and the iteration's to say. Its samples are kept for the
detector, which records the block when it is over, and for snapshots meanwhile.

- It ticks at nine tenths of the threshold (at most every 45 ms), so every block has a tick in it,
  and every few milliseconds while it sees something held. Ticks that find nothing held are taken in C where it is
  installed (_native/watch.c), if one loop alone is observed and shows its iterations.
- While the loop waits it parks, and the loop's next iteration wakes it: with sessions or without.
- There is one thread for all loops of the process, whichever introspectors they are attached to, and a
  sampler for each: what it sees of one is of that one only. A loop that computes starves it of the
  others' samples as well, which is true of them: they wait for the GIL, too.
"""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from weakref import ref

from .._base.clock import Clock, perf_counter
from .._base.shared_thread import SharedThread
from .._loops.hook import LoopHook
from .._loops.iterations import Fault
from .._native import native
from .._os.thread_usage import ThreadUsage
from .gil_wait import GilWait
from .stall_sampler import StallSampler
from .stall_thread import stalls_cpu_s


class Watchdog:
    """Samples the loops of one introspector, on the thread that serves all of them."""

    def __init__(self, clock: Clock, on_fault: Fault) -> None:
        self._clock = clock
        self._on_fault = on_fault
        self._samplers: list[StallSampler] = []
        self._thread = WATCHDOG_THREAD
        self._cpu_before = self._thread.cpu_s + stalls_cpu_s()
        self._stopped = False
        self._sampling = threading.RLock()

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the thread and of the stall sampler since this was made, for all introspectors.

        As of their last readings.
        """
        return self._thread.cpu_s + stalls_cpu_s() - self._cpu_before

    def start(self) -> None:
        """Raise if no thread can be started."""
        self._thread.add(self)

    def stop(self) -> None:
        """Sample no more.

        `is_alive` and `join` say when the sample that was under way is over.
        """
        self._stopped = True
        for sampler in self._samplers:
            sampler.awake = False  # ticks in C see nothing else
        self._thread.discard(self)

    def is_alive(self) -> bool:
        """Return whether it samples, or may still be at it."""
        if not self._sampling.acquire(blocking=False):
            return True
        self._sampling.release()
        return self._thread.has(self)

    def join(self, timeout_s: float) -> None:
        """Wait for a sample that is under way."""
        if self._sampling.acquire(timeout=timeout_s):
            self._sampling.release()

    def observe(self, hook: LoopHook, usage: ThreadUsage) -> StallSampler:
        """Sample this loop, too, from now on."""
        sampler = StallSampler(hook, usage, self._clock, self)
        hook.iterations.on_wake = sampler.wake
        self._samplers.append(sampler)
        sampler.wake()
        return sampler

    def stop_observing(self, sampler: StallSampler) -> None:
        sampler.awake = False
        sampler.stop_watching()
        if sampler in self._samplers:
            self._samplers.remove(sampler)

    def sessions_live(self, some: bool) -> None:
        """Do nothing: loops are observed whether sessions live or not."""

    def wake(self) -> None:
        if self._thread.has(self):
            self._thread.wake()

    # --- the watchdog thread's --------------------------------------------------------------------

    def awake(self) -> list[StallSampler]:
        """Return the samplers that do not sleep."""
        return [sampler for sampler in list(self._samplers) if sampler.awake]

    def sample(self, sampler: StallSampler, waited: float, wait: GilWait) -> None:
        """Take the sample that is due, and set when the next one is.

        waited: seconds of the wait for the GIL.
        """
        with self._sampling:
            if self._stopped or not sampler.awake:
                return
            try:
                came = self._clock()
                pause = sampler.sample(waited, wait.run_delay, passed=wait.passed)
                if sampler.awake:
                    sampler.due = came + pause  # the GIL may be kept in the midst of a sample, too
            except Exception as error:
                self._thread.discard(self)
                self.failed(error)

    def gil_wanted_s(self, since: float) -> float | None:
        """Return for how many seconds since a clock reading the thread has waited for the GIL. None: not known.

        Of the waits that are over, only the last one counts. From any thread.
        """
        return native.gil_wanted_s(since) if native is not None and self._waits_in_c() else None

    def had_gil_alone(self, thread_id: int, *, under_way: bool) -> bool:
        """Return whether a thread alone had the GIL while this one waited for it. False: it had not, or is not known.

        under_way: in the wait under way, if there is one; else in the last one that is over. From any thread.
        """
        return native.had_gil_alone(thread_id, under_way) if native is not None and self._waits_in_c() else False

    def _waits_in_c(self) -> bool:
        """Return whether what C knows of the thread's waits is of this watchdog's, by this clock."""
        return self._clock is perf_counter and self._thread.has(self)

    def failed(self, error: Exception) -> None:
        """Report why the thread samples for it no more."""
        with suppress(Exception):  # a filter of the host's log may raise: other introspectors are not to suffer from it
            self._on_fault(f"the watchdog is switched off: {error!r}", error)


TICKS = 16
"""Ticks between two readings of the thread's processor time, and between two that are taken in Python."""


class WatchdogThread(SharedThread[Watchdog]):
    """Samples all loops of the process, each when its sample is due."""

    alone = False
    """Whether one sampler alone was awake when last asked for the next."""

    def wake(self, due: float = -math.inf) -> None:
        if native is not None:
            native.interrupt_ticks(True)
        super().wake(due)
        if native is not None:
            native.watchdog_woken()  # if it rested: from now on it wants the GIL

    def _sleep(self, until: float) -> None:
        if native is None:
            super()._sleep(until)
            return
        native.watchdog_resting()
        super()._sleep(until)
        native.watchdog_awake()

    def _ends(self) -> None:
        if native is not None:
            native.watchdog_resting()

    def _work(self) -> None:
        if self.is_greenlet():
            raise RuntimeError("gevent has put greenlets in the place of threads, and one cannot sample its own thread")
        own = ThreadUsage(perf_counter, threading.get_ident(), threading.get_native_id())
        try:
            wait = GilWait(own)
            ticks, in_c = 0, True
            while self._parts:
                if native is not None:
                    native.interrupt_ticks(False)  # before asking: who wakes from now on interrupts
                watchdog, sampler = self.next()
                if watchdog is None or sampler is None:
                    self._read_cpu()
                    self._changed.clear()
                    if self.next()[0] is None and self._parts:
                        self._sleep(math.inf)
                    continue
                if in_c and self.alone and sampler.ticks_in_c:
                    awaited = ref(sampler)
                    del sampler  # a loop that ends meanwhile is not kept alive by this thread
                    noticed = native.quiet_ticks(awaited, own.schedstat, TICKS)
                    if noticed is not None and (sampler := awaited()) is not None:
                        wait.noticed(*noticed)
                        watchdog.sample(sampler, noticed[0], wait)
                    self._read_cpu()
                    in_c = noticed is not None  # now and then in Python: its fault is to show before a block does
                    continue
                in_c = True
                due, awaited = sampler.due or perf_counter(), ref(sampler)
                del sampler
                waited = wait.sleep_until(due)
                sampler = awaited()
                if sampler is not None:
                    watchdog.sample(sampler, waited, wait)
                ticks += 1
                if ticks % TICKS == 0:  # after the sample: it gives the GIL away
                    self._read_cpu()
                    wait.count_from_now()  # else, of a long wait, the delays of many others would count as its own
        finally:
            own.close()

    def next(self) -> tuple[Watchdog, StallSampler] | tuple[None, None]:
        """Return the sampler whose sample is due first, and its watchdog.

        None: all sleep.
        """
        awake = [(watchdog, sampler) for watchdog in self._parts for sampler in watchdog.awake()]
        self.alone = len(awake) == 1
        return min(awake, key=lambda each: each[1].due or 0.0, default=(None, None))


WATCHDOG_THREAD = WatchdogThread("openrtc-introspect-watchdog")
"""The one of this process."""
