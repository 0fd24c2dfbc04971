"""The cost of introspection itself.

It is the CPU time of its threads and, estimated, of metering.
"""

from __future__ import annotations

from .._base.units import percent
from .attached_loop import AttachedLoop
from .attached_loops import AttachedLoops
from .moment import Moment
from .shared import Shared


class OwnCost:
    """CPU seconds, added up over all loops so far."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.service_cpu_s = 0.0
        """CPU seconds that the service thread had used at the last tick."""
        self._detached_metering_s = 0.0
        self._detached_cpu_s = 0.0
        started = shared.clock()
        self._marks = (started, 0.0, started, 0.0)

    def loop_detached(self, loop: AttachedLoop) -> None:
        """Keep what a loop has cost that is no longer attached."""
        self._detached_metering_s += loop.metering_s(loop.times.mark(loop.ledger.read()).steps)
        self._detached_cpu_s += loop.cpu_s() or 0.0

    def accounted_cpu_s(self, loops: AttachedLoops) -> float | None:
        """Return the CPU seconds of the loops' threads and of our own.

        None if the platform does not report them.
        """
        readings = [loop.cpu_s() for loop in loops]
        known = [cpu_s for cpu_s in readings if cpu_s is not None]
        return self._detached_cpu_s + sum(known) + self._threads_s() if len(known) == len(readings) else None

    def tick(self, moment: Moment) -> None:
        """Remember the cost until now, for `share`. About once a second."""
        self._marks = (*self._marks[2:], moment.now, self._total_s(moment))

    def share(self, moment: Moment) -> float | None:
        """Return the cost of the last one to two seconds in percent of a core.

        None before any time has passed.
        """
        since, before, _, _ = self._marks
        return percent(self._total_s(moment) - before, moment.now - since) if moment.now > since else None

    def _threads_s(self) -> float:
        return self.service_cpu_s + sum(thread.cpu_s for thread in self._shared.threads)

    def _total_s(self, moment: Moment) -> float:
        total = self._threads_s()
        if self._shared.settings.cpu == "exact":
            total += self._detached_metering_s + sum(loop.metering_s(mark.steps) for loop, _, mark in moment.loops)
        return total
