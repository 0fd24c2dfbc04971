"""The iterations of one loop: when it waits, when it works, and its lateness."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._accounting.ledger import Ledger
from .._base.interrupts import is_interrupt
from .._native import native
from .iteration_sample import IterationSample

LONG_S = 0.0005
"""Iterations shorter than this are not kept: the resolution of the lag."""

Stall = Callable[[float, float], None]
"""Takes the start and the end of an iteration that was longer than the threshold; clock readings."""

Fault = Callable[[str, BaseException], None]
"""Takes a description of what went wrong, and the error."""


if TYPE_CHECKING:
    from .._native._meter import IterationsFields
elif native is not None:
    IterationsFields = native.IterationsFields
else:

    class IterationsFields:
        """The fields that each iteration reads and writes: C has a type for them."""


class Iterations(IterationsFields):
    """The iterations of one loop, as far as it shows them.

    The loop's thread writes them.
    """

    def __init__(self, ledger: Ledger, runs: Callable[[], bool], on_stall: Stall, on_fault: Fault) -> None:
        self.ledger: Ledger = ledger
        self.long_waits: deque[tuple[float, float]] = deque(maxlen=8192)
        """(clock reading at its end, seconds) of each iteration longer than LONG_S, or of each heartbeat's lateness."""
        self.busy_since: float | None = None
        """When the iteration in progress began; None while the loop waits, or if iterations are not timed."""
        self.waiting_since = 0.0
        """When the loop last began to wait."""
        self.timed = False
        """Whether each iteration is timed."""
        self.count = 0
        """Waits that have ended: the iterations that have begun, while iterations are timed."""
        self.wakes_watchdog = False
        """Whether the watchdog sleeps until the loop's next iteration."""
        self.on_wake: Callable[[], None] = _nothing
        self.after_block: Callable[[Any], None] | None = None
        """Called once, with the events that the loop finds next."""
        self.sample: IterationSample | None = None
        """What the loop finds and does is added to it. None: nobody samples iterations. From any thread."""
        self._runs = runs
        """Return whether the loop runs, on whatever thread. From any thread."""
        self._on_stall = on_stall
        self._on_fault = on_fault

    # --- from any thread -------------------------------------------------------------------------

    def idle(self, now: float) -> float | None:
        """Return the seconds the loop has waited, the wait in progress included.

        None if its waits are not timed.

        Values that changed while they were read are read again.
        """
        while True:
            idle, busy_since, waiting_since = self.ledger.idle, self.busy_since, self.waiting_since
            if idle is None:
                return None
            if idle == self.ledger.idle and busy_since == self.busy_since:
                resting = waiting_since if busy_since is None else now if self._runs() else busy_since
                return idle + max(0.0, now - resting)

    def stuck_since(self, now: float) -> float | None:
        """Return since when the loop has begun no new iteration.

        None if it waits or is stopped.
        """
        since = self.busy_since
        return since if since is not None and self._runs() else None

    def dormant(self) -> bool:
        """Return whether the loop shows nothing until `on_wake` is called."""
        return False

    # --- the loop's thread -----------------------------------------------------------------------

    def begin_anew(self) -> None:
        """Count the iteration in progress from now on."""
        if self.busy_since is not None:
            self.busy_since = self.ledger.clock()

    def iterated(self, since: float, until: float) -> None:
        """Keep an iteration longer than LONG_S, and report a stall.

        A stall is an iteration longer than the threshold.
        """
        try:
            self.long_waits.append((until, until - since))
            if until - since > self.ledger.limit:
                self._on_stall(since, until)
        except Exception as error:
            if is_interrupt(error):
                raise
            self._on_fault(f"an iteration could not be recorded: {error!r}", error)

    def overslept(self, due: float, woke: float) -> None:
        """Report a wait that ended far too late.

        Another thread kept the GIL, or the system the processor.
        """
        if self.ledger.idle is not None:
            self.ledger.idle -= woke - due
        self.iterated(due, woke)

    def call_after_block(self, found: Any) -> None:
        """Call `after_block` with the events that the loop found after a block, once."""
        then, self.after_block = self.after_block, None
        try:
            if then is not None:
                then(found)
        except Exception as error:
            if is_interrupt(error):
                raise
            self._on_fault(f"what a block has delayed could not be recorded: {error!r}", error)


def _nothing() -> None:
    pass
