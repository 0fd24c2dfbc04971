"""One attached event loop: its hook, its ledger, and the probes that observe them.

An introspector has one for each loop. All that is measured, sampled and classified of a loop is in here, so that a
block on one loop has no effect on what is reported of another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from .._accounting.budget import NOT_MEASURED, STEPS, StepCost, metering_s
from .._accounting.ledger import Ledger
from .._accounting.spans import Overrun
from .._base.clock import perf_counter
from .._base.interrupts import is_interrupt
from .._blocks.attribution import Probes
from .._blocks.detector import Detector
from .._blocks.stall_sampler import StallSampler
from .._blocks.stall_thread import blind, watch
from .._blocks.waits_of_blocks import WaitsOfBlocks
from .._loops.contexts import ONE_CONTEXT
from .._loops.running_loop import Loop, hook_into
from .._loops.thread_seams import see_thread_calls
from .._native import native
from .._os.thread_usage import ThreadUsage
from .._waits.blocked_loop import BlockedLoop
from .loop_statistics import LoopTimes
from .shared import Shared

if TYPE_CHECKING:  # loaded when needed: programs that only import the package do not wait for them
    from .._accounting.heap_reader import HeapReader


class AttachedLoop:
    """One event loop; made and attached on its own thread.

    Its ledger is still read after it was detached.

    Raises StateError if the loop cannot be attached to.
    """

    def __init__(self, loop: Loop, number: int, shared: Shared) -> None:
        settings, clock = shared.settings, shared.clock
        self.ledger = Ledger(shared.sessions.binding, clock, settings.threshold_s, self._step_overran)
        self.hook = hook_into(
            loop,
            ledger=self.ledger,
            meter=settings.cpu == "exact",
            on_stall=self._loop_stalled,
            on_fault=lambda problem, error: shared.notes.add("tagging", problem, error),
        )
        self._shared = shared
        self._detached = False
        self._reader: HeapReader | None = None
        self._unsee_threads: Callable[[], None] | None = None
        self.name = f"{self.hook.kind}-{number}"
        """Unique among the loops of this introspector."""
        self.step_cost = NOT_MEASURED
        """What metering adds to one step, by the way the step is sampled; seconds."""
        self._usage = ThreadUsage(clock, self.hook.thread_id, threading.get_native_id())
        self._cpu_before = self._usage.read().cpu_s
        self._cpu_s = 0.0
        self.stall_sampler = shared.watchdog.observe(self.hook, self._usage) if shared.watchdog is not None else None
        if shared.sampler is not None:
            shared.sampler.watch(self.hook)
        self._probes = Probes(
            usage=self._usage,
            gc_monitor=shared.gc_monitor,
            pressure=shared.pressure,
            thread_calls=shared.thread_calls,
            stalls=self.stall_sampler,
            waits=WaitsOfBlocks(
                BlockedLoop(
                    self.hook,
                    lambda: shared.hooks(),
                    shared.places,
                    shared.wall,
                    lambda problem, error: shared.notes.add("blocked", problem, error),
                )
            ),
            sampler=shared.sampler,
        )
        self.detector = Detector(self.hook, shared.history, shared.wall, shared.places, self._probes)
        self.hook.on_moved = self._moved
        self.hook.on_one_context = lambda: shared.notes.limit("contexts", ONE_CONTEXT)
        self.times = LoopTimes(self.hook, settings.cpu)
        self.box_index = shared.box.take_loop() if shared.box is not None else None
        """The number of its section in the black box. None: it has none."""

    @property
    def sees_threads(self) -> bool:
        """Return whether its sessions' calls in threads are seen."""
        return self._unsee_threads is not None

    def measure_step_cost(self) -> StepCost:
        """Measure what metering adds to a step on this kind of loop.

        Takes a few milliseconds, on any thread.
        """

        def measured(period: int) -> float:
            spare = Ledger(ContextVar("calibration"), self._shared.clock, float("inf"))
            spare.set_sampling_period(period)
            return self.hook.step_cost(spare)

        unsampled = measured(2**30)
        sampled = unsampled + STEPS[1] * (measured(STEPS[1]) - unsampled)
        return StepCost(measured(1), max(unsampled, sampled), unsampled)

    def metering_s(self, steps: int) -> float:
        """Return the seconds that metering has cost on this loop so far.

        steps: the number that its steps count for.
        """
        return metering_s(self.ledger, steps, self.step_cost)

    def attach(self, loop: Loop) -> None:
        """Attach to the loop that it was made for.

        Only the hook keeps a reference to the loop.
        """
        if self._shared.heap is not None:
            self._reader = self._shared.heap.reader()
            self.ledger.measure_heap(self._reader)
        self.hook.attach()
        self.hook.ends.on_change = self._sample_without_gil
        self._unsee_threads = see_thread_calls(loop, self.hook, self._shared.thread_calls)
        self.times.begin()
        self._sample_without_gil()

    def _sample_without_gil(self) -> None:
        shared, sampler = self._shared, self.stall_sampler
        if sampler is None or shared.clock is not perf_counter:
            return
        if native is None:
            self._tell_of_holds(sampler)
            return
        try:
            if (problem := blind()) is not None:
                self._tell_of_holds(sampler)
                shared.notes.limit("stalls", problem)
            else:
                box, section = shared.box, None
                if box is not None and self.box_index is not None:
                    section = box.fd, *box.loop_section(self.box_index)
                watch(
                    sampler,
                    self.ledger.limit,
                    shared.places,
                    self.hook.ends.codes,
                    stall_log=shared.stall_log_fd,
                    box=section,
                )
        except Exception as error:
            shared.notes.add("stalls", f"stacks are not sampled while C code keeps the GIL: {error!r}", error)

    def _tell_of_holds(self, sampler: StallSampler) -> None:
        """Have the worker's record say what holds the loop, since no thread in C writes records of the loop."""
        see, shared = sampler.on_held, self._shared

        def held(since: float, now: float) -> None:
            see(since, now)
            shared.hold_seen(now)

        sampler.on_held = held

    def detach(self) -> None:
        """Restore the loop, and end all that observes it.

        From any thread. Idempotent. Raises nothing.
        """
        self._detached = True
        shared = self._shared
        with shared.notes.releasing(self.name) as parts:
            parts.callback(self._give_section_back)
            if shared.watchdog is not None and self.stall_sampler is not None:
                parts.callback(shared.watchdog.stop_observing, self.stall_sampler)
            if shared.sampler is not None:
                parts.callback(shared.sampler.unwatch, self.hook)
            unsee, self._unsee_threads = self._unsee_threads, None
            if unsee is not None:
                parts.callback(unsee)
            if shared.heap is not None and self._reader is not None:
                parts.callback(shared.heap.retire, self._reader)
            parts.callback(self.ledger.measure_heap, None)
            parts.callback(self.hook.detach)

    def _give_section_back(self) -> None:
        index, self.box_index = self.box_index, None
        if self._shared.box is not None and index is not None:
            self._shared.box.give_loop_back(index)

    def close(self) -> None:
        """Close what its thread's usage is read from, once nobody reads it.

        Idempotent. Raises nothing.
        """
        with self._shared.notes.releasing(self.name) as parts:
            parts.callback(self._usage.close)

    def cpu_s(self) -> float | None:
        """Return the CPU seconds of its thread since it was attached.

        After the thread's end, those until then. None if they cannot be read.
        """
        if self._cpu_before is None:
            return None
        now = self._usage.read().cpu_s
        if now is not None:
            self._cpu_s = now - self._cpu_before
        return self._cpu_s

    def _moved(self) -> None:
        """Take note that this thread runs the loop from now on."""
        usage = ThreadUsage(self._shared.clock, self.hook.thread_id, threading.get_native_id())
        before, self._usage = self._usage, usage
        self._cpu_before = self._usage.read().cpu_s
        self._probes.usage = self._usage
        if self.stall_sampler is not None:
            self.stall_sampler.usage = self._usage
            self.stall_sampler.thread_id = self.hook.thread_id
            self.stall_sampler.native_id = usage.native_id
        before.close()

    # --- what the hook and the ledger report -----------------------------------------------------

    def _step_overran(self, overrun: Overrun) -> None:
        self._record(lambda: self.detector.step_overran(overrun))

    def _loop_stalled(self, start: float, end: float) -> None:
        self._record(lambda: self.detector.loop_stalled(start, end))

    def _record(self, record: Callable[[], None]) -> None:
        # The steps of tasks that are metered end here all their lives, beside those of whoever attaches next.
        if not self._detached and "blocks" not in self._shared.notes:
            try:
                record()
            except Exception as error:
                if is_interrupt(error):
                    raise
                self._shared.notes.add("blocks", f"a block could not be recorded: {error!r}", error)
