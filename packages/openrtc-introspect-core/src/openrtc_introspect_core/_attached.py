"""One attached event loop: its hook, its books, and what looks after them.

An introspector has one of these for each loop. What is measured, seen and judged of a loop is in
here, so that a block on one loop says nothing of any other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from ._budget import NOT_MEASURED, STEPS, StepCost, spent
from ._clock import Clock
from ._detector import Detector
from ._interrupts import is_interrupt
from ._ledger import Ledger, Overrun
from ._loop_times import LoopTimes
from ._running_loop import hook_into
from ._usage import ThreadUsage

if TYPE_CHECKING:
    from ._blocks import BlockLog
    from ._clock import WallTime
    from ._collections import Collections
    from ._heap import Heap, Reader
    from ._notes import Notes
    from ._running_loop import Loop
    from ._sampler import Sampler
    from ._sessions import Binding
    from ._settings import Settings
    from ._stacks import Places
    from ._threadwork import ThreadWork
    from ._usage import HostPressure
    from ._watchdog import Watchdog


class AttachedLoop:
    """Made, and attached, on the loop's own thread. Its books are read on after it was detached.

    Raises StateError for a loop that cannot be attached to.
    """

    def __init__(
        self,
        loop: Loop,
        number: int,
        *,
        binding: Binding,
        settings: Settings,
        clock: Clock,
        wall: WallTime,
        log: BlockLog,
        places: Places,
        collections: Collections,
        pressure: HostPressure,
        thread_work: ThreadWork,
        heap: Heap | None,
        watchdog: Watchdog | None,
        sampler: Sampler | None,
        notes: Notes,
    ) -> None:
        self.ledger = Ledger(binding, clock, settings.threshold_s, self._step_overran)
        self.hook = hook_into(
            loop,
            ledger=self.ledger,
            meter=settings.cpu == "exact",
            on_stall=self._loop_stalled,
            on_fault=lambda problem, error: notes.add("tagging", problem, error),
        )
        self._heap = heap
        self._reader: Reader | None = None
        self._thread_work = thread_work
        self._unwrap_executor: Callable[[], None] | None = None
        self.name = f"{self.hook.kind}-{number}"
        """Unlike that of any other loop of this introspector."""
        self.step_cost = NOT_MEASURED
        self._clock = clock
        self._watchdog = watchdog
        self._sampler = sampler
        self._notes = notes
        self._usage = ThreadUsage(clock, self.hook.thread_id, threading.get_native_id())
        self._cpu_before = self._usage.read().cpu_s
        self._cpu_s = 0.0
        self.watch = watchdog.watch(self.hook, self._usage) if watchdog is not None else None
        if sampler is not None:
            sampler.watch(self.hook)
        self.detector = Detector(
            hook=self.hook,
            log=log,
            wall=wall,
            places=places,
            usage=self._usage,
            collections=collections,
            pressure=pressure,
            thread_work=thread_work,
            watch=self.watch,
            sampler=sampler,
        )
        self.hook.on_moved = self._moved
        self.times = LoopTimes(self.hook, settings.cpu)

    @property
    def sees_threads(self) -> bool:
        """Whether its sessions' calls in threads are seen."""
        return self._unwrap_executor is not None

    def measure_step_cost(self) -> StepCost:
        """What metering adds to a step on this kind of loop: a few milliseconds' work, on any thread."""

        def measured(one_in: int) -> float:
            books = Ledger(ContextVar("calibration"), self._clock, float("inf"))
            books.thin(one_in)
            return self.hook.step_cost(books)

        left_out = measured(2**30)
        drawn = left_out + STEPS[1] * (measured(STEPS[1]) - left_out)
        return StepCost(measured(1), max(left_out, drawn), left_out)

    def metering_s(self, steps: int) -> float:
        """Seconds that metering has cost here, where steps count for `steps`."""
        return spent(self.ledger, steps, self.step_cost)

    def attach(self, loop: Loop) -> None:
        """Attaches to the loop that it was made for, of which nothing but the hook knows otherwise."""
        if self._heap is not None:
            self.ledger.in_use = self._reader = self._heap.reader()
        self.hook.attach()
        self._unwrap_executor = self._thread_work.wrap(loop, self.ledger)
        self.times.begin()

    def detach(self) -> None:
        """Gives back what was touched; nobody watches it any more. From any thread. Idempotent. Raises nothing."""
        with self._notes.letting_go(self.name) as parts:
            if self._watchdog is not None and self.watch is not None:
                parts.callback(self._watchdog.unwatch, self.watch)
            if self._sampler is not None:
                parts.callback(self._sampler.unwatch, self.hook)
            unwrap, self._unwrap_executor = self._unwrap_executor, None
            if unwrap is not None:
                parts.callback(unwrap)
            if self._heap is not None and self._reader is not None:
                parts.callback(self._heap.retire, self._reader)
            parts.callback(setattr, self.ledger, "in_use", None)
            parts.callback(self.hook.detach)

    def close(self) -> None:
        """Once nobody reads its thread's usage any more. Idempotent. Raises nothing."""
        with self._notes.letting_go(self.name) as parts:
            parts.callback(self._usage.close)

    def cpu_s(self) -> float | None:
        """CPU seconds of its thread since it was attached, or until that ended. None: not to be had."""
        if self._cpu_before is None:
            return None
        now = self._usage.read().cpu_s
        if now is not None:
            self._cpu_s = now - self._cpu_before
        return self._cpu_s

    def _moved(self) -> None:
        """Another thread runs the loop from now on: this one."""
        before, self._usage = self._usage, ThreadUsage(self._clock, self.hook.thread_id, threading.get_native_id())
        self._cpu_before = self._usage.read().cpu_s
        self.detector.usage = self._usage
        if self.watch is not None:
            self.watch.usage = self._usage
        before.close()

    # --- what the hook and the ledger report -----------------------------------------------------

    def _step_overran(self, overrun: Overrun) -> None:
        self._record(lambda: self.detector.step_overran(overrun))

    def _loop_stalled(self, start: float, end: float) -> None:
        self._record(lambda: self.detector.loop_stalled(start, end))

    def _record(self, record: Callable[[], None]) -> None:
        if "blocks" not in self._notes:
            try:
                record()
            except Exception as error:
                if is_interrupt(error):
                    raise
                self._notes.add("blocks", f"a block could not be recorded: {error!r}", error)
