"""Work that is due about once a second.

It takes samples, makes the marks that rates are computed from, and keeps our own probes to their budgets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .._accounting.budget import Budget, steps_taken
from .._waits.wait_sampler import WaitSampler
from .attached_loops import AttachedLoops
from .loop_statistics import MARK_INTERVAL_S
from .moment import Moment, read_moment
from .outlived import OutlivedSessions
from .own_cost import OwnCost
from .shared import Shared

if TYPE_CHECKING:  # loaded when needed: programs that only import the package do not wait for them
    from .._os.host_vitals import HostVitals
    from .rss_shares import ShareOfRss


@dataclass(slots=True)
class Housekeeping:
    """The housekeeping of one introspector. The service thread calls `tick`."""

    shared: Shared
    loops: AttachedLoops
    memory: ShareOfRss
    host: HostVitals
    budget: Budget
    cost: OwnCost
    outlived: OutlivedSessions
    waits: WaitSampler | None
    """None: steps are not timed."""
    _memory_due: float = float("-inf")
    _marks_due: float = float("-inf")
    _steps: dict[str, tuple[float, int]] = field(default_factory=dict)
    """By loop: (clock reading, steps) at the last tick."""

    def tick(self, now: float) -> float:
        """Take the samples that are due. Return the clock reading at which the next one is."""
        interval_s = self.shared.settings.memory_interval_s
        # A sample that is a little early is better than one that is a whole interval late.
        if now >= self._memory_due - 0.05 * interval_s:
            self._memory_due = now + interval_s
            self.memory.sample(now, list(self.shared.sessions.live.values()))
        if now >= self._marks_due - 0.05:
            self._marks_due = now + MARK_INTERVAL_S
            self._sample_host(now)
            self._retire_sessions(now)
            moment = read_moment(self.loops, self.shared.clock)
            self._mark(moment)
            self._keep_heap_to_budget(moment)
            self._keep_metering_to_budget(moment)
        self._sample_waits()
        due = min(self._memory_due, self._marks_due)
        return min(due, self.waits.due) if self.waits is not None else due

    def _sample_waits(self) -> None:
        """See what sessions wait for. If that fails, do so no more."""
        waits = self.waits
        if waits is None or not self.shared.sessions.live:
            return
        try:
            waits.sample([loop.hook for loop in self.loops])
        except Exception as error:
            waits.stop()
            self.shared.notes.add("waits", f"what sessions wait for is not sampled any more: {error!r}", error)

    def _sample_host(self, now: float) -> None:
        live = bool(self.shared.sessions.live)
        self.host.sample(now, self.cost.accounted_cpu_s(self.loops), idle=not live)
        # Without sessions there is no block that pressure could explain.
        if live or not self.shared.pressure.marked:
            self.shared.pressure.mark(self.host.throttling)

    def _retire_sessions(self, now: float) -> None:
        sessions = self.shared.sessions
        sessions.failures.forget(now)
        for session in sessions.retire():
            for loop in self.loops:
                loop.ledger.accounts.retire(session)

    def _mark(self, moment: Moment) -> None:
        for loop, _, mark in moment.loops:
            loop.times.tick(mark)
            loop.hook.task_starts.tick(moment.now, self.shared.places)
            loop.hook.follow_greenlets()
        self.cost.tick(moment)
        self.outlived.tick(moment)
        for session in list(self.shared.sessions.live.values()):
            session.mark(moment.now, moment.busy_of(session))
            if self.shared.heap is not None:
                session.mark_heap(moment.now)

    def _keep_heap_to_budget(self, moment: Moment) -> None:
        heap = self.shared.heap
        if heap is not None:
            heap.adjust_sampling(moment.now)
            self.shared.notes.of_host("heap", heap.note())

    def _keep_metering_to_budget(self, moment: Moment) -> None:
        """Time as many of the steps as the budget allows."""
        before, self._steps = self._steps, {}
        rates = []
        for loop, _, mark in moment.loops:
            steps = steps_taken(loop.ledger, mark.steps)
            self._steps[loop.name] = moment.now, steps
            since, were = before.get(loop.name, (moment.now, steps))
            if moment.now - since >= MARK_INTERVAL_S / 2:
                rates.append(((steps - were) / (moment.now - since), loop.step_cost))
        period = self.budget.decide(rates if self.shared.heap is None else [])
        for loop, _, _ in moment.loops:
            loop.ledger.set_sampling_period(period)
        self.shared.notes.of_host("metering", self.budget.note())
