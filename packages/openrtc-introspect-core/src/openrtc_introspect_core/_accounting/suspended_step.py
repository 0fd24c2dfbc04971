"""Steps in whose middle other steps run.

These are steps that run iterations of the loop, and steps whose greenlet was left.
"""

from __future__ import annotations

import sys
from types import FrameType

from .account import Account


class SuspendedStep(Account):
    """The stand-in for the holder of such a step, from the moment the step goes on.

    The meter charges it like any holder, and the ledger's `end_slow_path` passes the charge on. The time of the step
    before that moment is a span of its own, so a block of the rest began at the ledger's `holder_since`.
    """

    __slots__ = ("holder", "run", "weight")

    def __init__(self, holder: Account, weight: int, run: FrameType | None) -> None:
        super().__init__(holder.session)
        self.holder = holder
        """The account that it stands for."""
        self.weight = weight
        """How many steps it counts for; 1 if every step is timed."""
        self.run = run
        """The frame that has run iterations of the loop in the step's middle. None: they were the loop's own."""

    def runs_others(self) -> bool:
        """Return whether the caller runs in such an iteration, not in the step itself."""
        frame = sys._getframe(1) if self.run is not None else None
        while frame is not None and frame is not self.run:
            frame = frame.f_back
        return frame is not None
