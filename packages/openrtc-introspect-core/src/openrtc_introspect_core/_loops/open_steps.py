"""Steps that are open when an iteration of an asyncio loop ends.

Such a step was left in its middle, or runs the iteration.
"""

from __future__ import annotations

import asyncio
import sys
from types import CodeType, FrameType

from .._accounting.ledger import Ledger
from .._accounting.suspended_step import SuspendedStep
from .adopted_tasks import AdoptedTasks
from .greenlet_switches import GreenletSwitches

HANDLE_RUN: CodeType = asyncio.Handle._run.__code__


class OpenSteps:
    """The open steps of one loop; used on its thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ledger: Ledger,
        adopted: AdoptedTasks,
        greenlets: GreenletSwitches,
        *,
        nests: bool,
    ) -> None:
        self._loop = loop
        self._ledger = ledger
        self._adopted = adopted
        self._greenlets = greenlets
        self.nests = nests
        """Whether iterations inside of a step can be recognised: on loops written in Python."""
        self.depth = 4
        """How many frames further out than `suspend` the caller of `_run_once` is, whose wait ends an iteration."""

    def suspend(self, now: float) -> SuspendedStep | None:
        """Suspend the open step, since an iteration ends.

        Return the step that runs the iteration; None: none does.

        Any other step that is open now was left in its middle: by its greenlet, or by an interrupt while our code ran.
        """
        ledger = self._ledger
        if ledger.holder is None or ledger.holder is ledger.parked:
            return None
        if self.nests and self._runs_in_callback():
            return ledger.suspend(now, run=sys._getframe(self.depth))
        self._adopted.end_steps()
        ledger.suspend(now)
        self._greenlets.trace()
        return None

    def _runs_in_callback(self) -> bool:
        """Return whether one of the loop's callbacks is further out on this stack.

        If so, this iteration is nested in the callback.
        """
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code is HANDLE_RUN and getattr(frame.f_locals.get("self"), "_loop", None) is self._loop:
                return True
            frame = frame.f_back
        return False
