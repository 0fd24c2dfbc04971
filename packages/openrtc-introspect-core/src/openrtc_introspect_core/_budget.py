"""What metering may cost, and how many steps are timed for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ._ledger import Ledger

STEPS = (1, 4, 8, 16, 32)
"""One step in so many may be timed. In 2, it would cost as much as timing all of them: drawing which, costs something
itself. Beyond 32 there is next to nothing left to save."""

CALM_TICKS = 10
"""Seconds for which timing more of the steps must have been within the budget before it is done again."""


class StepCost(NamedTuple):
    """Seconds that metering adds to one step on one kind of loop."""

    timed: float
    """Where every step is."""
    drawn: float
    """Of those that are timed in place of others."""
    left_out: float

    def of_each(self, one_in: int) -> float:
        """On average, where one step in so many is timed."""
        return self.timed if one_in == 1 else self.left_out + max(0.0, self.drawn - self.left_out) / one_in


NOT_MEASURED = StepCost(0.0, 0.0, 0.0)

STEP_COSTS: dict[str, StepCost] = {}
"""By kind of loop, as they were measured in this process: that takes milliseconds, and the next loop has no other."""


def spent(ledger: Ledger, steps: int, cost: StepCost) -> float:
    """Seconds that metering has cost on this loop, where steps count for `steps`."""
    timed = steps - ledger.added - ledger.drawn
    return timed * cost.timed + ledger.drawn * cost.drawn + ledger.skipped * cost.left_out


def taken(ledger: Ledger, steps: int) -> int:
    """Steps that there were on this loop, where they count for `steps`."""
    return steps - ledger.added + ledger.skipped


class Budget:
    """Decides once a second, from what the steps of the last second have cost or would have."""

    def __init__(self, percent: float) -> None:
        self.share = percent / 100.0
        """Of one core; 0: no limit."""
        self.one_in = 1
        self._calm = 0

    def told(self) -> str | None:
        """What the reader of the figures must know; None: every step is timed."""
        if self.one_in == 1:
            return None
        return (
            f"one step in {self.one_in}, drawn at random, is timed, to cost no more than {100 * self.share:g} % of a "
            "core: shares of loop time, cpu seconds and steps are estimates"
        )

    def decide(self, rates: list[tuple[float, StepCost]]) -> int:
        """One step in so many is to be timed; `rates`: of each loop its steps per second, and what one costs.

        As many as fit into the budget, where none of these do, as few as there may be. Fewer at once, more
        once that has been possible for a while.
        """
        fitting = (each for each in STEPS if sum(rate * cost.of_each(each) for rate, cost in rates) <= self.share)
        wanted = next(fitting, STEPS[-1]) if self.share else 1
        self._calm = self._calm + 1 if wanted < self.one_in else 0
        if wanted > self.one_in or self._calm >= CALM_TICKS:
            self.one_in, self._calm = wanted, 0
        return self.one_in
