"""The budget of metering: how many steps are timed for what metering may cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .ledger import Ledger

STEPS = (1, 4, 8, 16, 32)
"""The sampling periods to choose from: one step in so many is timed. One step in 2 would cost as much as all of them,
since drawing has a cost of its own. Beyond 32 there is next to nothing left to save."""

CALM_TICKS = 10
"""Seconds for which timing more steps must have been within the budget before more steps are timed."""


class StepCost(NamedTuple):
    """The seconds that metering adds to one step on one kind of loop."""

    timed: float
    """To each step, if every step is timed."""
    sampled: float
    """To a step that is timed in place of others."""
    unsampled: float
    """To a step that is not timed."""

    def of_each(self, period: int) -> float:
        """Return the average seconds per step if one step in `period` is timed."""
        return self.timed if period == 1 else self.unsampled + max(0.0, self.sampled - self.unsampled) / period


NOT_MEASURED = StepCost(0.0, 0.0, 0.0)

STEP_COSTS: dict[str, StepCost] = {}
"""The costs by kind of loop, measured once in this process: that takes milliseconds, and loops of one kind agree."""


def metering_s(ledger: Ledger, steps: int, cost: StepCost) -> float:
    """Return the seconds that metering has cost on this loop.

    steps: the count of its steps, in which a sampled step counts for several.
    """
    timed = steps - ledger.sampling.extrapolated - ledger.sampling.sampled
    return timed * cost.timed + ledger.sampling.sampled * cost.sampled + ledger.sampling.unsampled * cost.unsampled


def steps_taken(ledger: Ledger, steps: int) -> int:
    """Return how many steps this loop has run, whether they were timed or not.

    steps: the count of its steps, in which a sampled step counts for several.
    """
    return steps - ledger.sampling.extrapolated + ledger.sampling.unsampled


class Budget:
    """The choice of a sampling period, from what the steps of the last second cost."""

    def __init__(self, percent: float) -> None:
        self.share = percent / 100.0
        """The share of one core that metering may take; 0: no limit."""
        self.sampling_period = 1
        """One step in so many is timed."""
        self._calm = 0
        """How often in a row a shorter period would have been within the budget."""

    def note(self) -> str | None:
        """Describe the sampling, for who reads the figures. None: every step is timed."""
        if self.sampling_period == 1:
            return None
        return (
            f"one step in {self.sampling_period}, drawn at random, is timed, to cost no more than "
            f"{100 * self.share:g} % of a core: shares of loop time, cpu seconds and steps are estimates"
        )

    def decide(self, rates: list[tuple[float, StepCost]]) -> int:
        """Return the sampling period: one step in so many is to be timed.

        rates: the steps per second of each loop, and the cost of one.

        The period is the shortest that fits into the budget, and the longest of all if none fits. It becomes longer
        at once, and shorter after a while (`CALM_TICKS`) in which this was possible all the time.
        """
        fitting = (each for each in STEPS if sum(rate * cost.of_each(each) for rate, cost in rates) <= self.share)
        wanted = next(fitting, STEPS[-1]) if self.share else 1
        self._calm = self._calm + 1 if wanted < self.sampling_period else 0
        if wanted > self.sampling_period or self._calm >= CALM_TICKS:
            self.sampling_period, self._calm = wanted, 0
        return self.sampling_period
