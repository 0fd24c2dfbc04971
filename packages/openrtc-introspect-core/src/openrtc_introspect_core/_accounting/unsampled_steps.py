"""The steps of a ledger that are not timed."""

from __future__ import annotations

from .account import Account
from .fields import LedgerFields
from .step_sampling import StepSampling


class UnsampledSteps(LedgerFields):
    """The part of a ledger that has steps sampled, and takes note of scopes in those that are not."""

    __slots__ = ()

    sampling: StepSampling

    def set_sampling_period(self, period: int) -> None:
        """Time one step in `period` from now on, 1 and up. From any thread."""
        if period != self.sampling.period:
            self.sampling.set_period(period)
            self.slow_path = True

    def switch_unsampled(self, before: Account, after: Account, task: str | None) -> None:
        """In the middle of a step that is not timed, begin a part of `after`; `before` was bound until now."""
        self.sampling.switch(before, after, task, self.clock())
        self.switched = True

    def end_unsampled(self) -> None:
        """End the parts of a step that was not timed."""
        self.switched = False
        self.sampling.end_parts(self.clock())
