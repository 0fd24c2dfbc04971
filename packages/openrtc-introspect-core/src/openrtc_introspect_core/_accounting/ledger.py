"""The ledger of one event loop: its holder is charged at each switch.

Each loop has a ledger, with an account for each session. No two threads ever add to one number: a session
whose tasks run on two loops has an account on each. The holder is charged with the time from the last
switch to this one, so nested holders (an eager task started in mid-step, a scope entered in mid-step, a
garbage collection) are never counted twice.

    loop, callbacks       the holder is None; their time is the rest of wall time
    a step begins         the meter makes the account of the session bound now the holder, or `untagged`
    a scope in mid-step   switch() charges the holder so far, and goes on with the next one
    a collection          the same, with `gc` as the holder in between
    a step ends           the meter charges the holder, and restores the one outside
    nothing happens       the holder is `parked`: the next step to begin calls `on_wake` first
    a step is not sampled the holder is `unsampled`: neither this step nor one that begins inside of it is timed
    a step lets others    suspend() when it runs an iteration of the loop, or its greenlet is left; resume()
        run               when it goes on: the holder is a `SuspendedStep`, which passes its charges on

The meter inlines these few lines for its own steps (see meter.py); the slow paths are here. Only the loop's
thread writes. Other threads read meanwhile: `read` reads twice, and takes what did not change in between. For the
sake of those that do so in the middle of a switch, without a GIL, its order is fixed: the old holder's `busy`, its
`last_step`, then `holder_since`, then `holder`.

Blocks are found, and charged as they are, whether their steps are sampled or not: the longest steps would
make up most of an estimate's variance (see step_sampling.py).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from types import FrameType
from typing import TYPE_CHECKING, Any

from .._base.clock import Clock
from .._base.interrupts import is_interrupt
from .account import Account
from .divided_step import DividedStep
from .session_accounts import SessionAccounts
from .spans import NOTABLE_S, Overrun
from .step_heap import StepHeap
from .step_sampling import StepSampling
from .suspended_step import SuspendedStep
from .unsampled_steps import UnsampledSteps

if TYPE_CHECKING:
    from .heap_reader import HeapReader

NEVER = 1 << 62
"""More steps than any loop runs: once metering is switched off, so many are not sampled."""


def times_steps(ledger: Ledger) -> bool:
    """Return whether steps are timed; no longer, if metering has failed."""
    return ledger.steps_until_sample < NEVER // 2


class Ledger(DividedStep, UnsampledSteps):
    """The holder of one event loop, and the time for which each account has held it."""

    __slots__ = (
        "account_of", "accounts", "gc", "limit", "on_fault", "on_wake",
    )  # fmt: skip

    def __init__(
        self,
        binding: ContextVar[Any],
        clock: Clock,
        limit: float,
        on_overrun: Callable[[Overrun], None] = lambda overrun: None,
    ) -> None:
        self.binding = binding
        """The context variable of the session that is bound."""
        self.get = binding.get
        self.clock = clock
        self.limit = limit
        """Seconds that a step may take: a longer one has overrun, and is a block."""
        self.on_wake: Callable[[], None] = lambda: None
        """Called when a step begins while the ledger is parked."""
        self.on_fault: Callable[[str, BaseException], None] = lambda problem, error: None
        """Called with a fault of metering: its description, and the error."""
        super().__init__(limit, on_overrun)
        self.accounts = SessionAccounts()
        self.account_of = self.accounts.of
        self.untagged = self.accounts.untagged
        self.gc = Account()
        """The account of notable collections on the loop's thread."""
        self.unsampled = Account()
        """Stands in as the holder while a step runs that is not timed."""
        self.idle: float | None = None
        """Seconds for which the loop has waited for events; None if this kind of loop does not show it."""
        self.holder: Account | None = None
        """The account to charge now, or one that stands in for a holder. None: no step is under way."""
        self.holder_since = clock()
        """Clock reading of the last switch."""
        self.slow_path = False
        """Whether a step is more than timed: its memory is read, or not every step is timed."""
        self.weight = 1
        """How many steps the one in progress counts for; 1 if every step is timed."""
        self.steps_until_sample = 0
        """Steps that are not timed before the next one that is."""
        self.switched = False
        """Whether scopes have opened or closed in a step that is not timed."""
        self.sampling = StepSampling()
        self.heap: StepHeap = StepHeap()

    def bound(self) -> Account:
        """Return the account of the session that is bound here."""
        return self.account_of(self.binding.get(None))

    # --- what makes steps slower -----------------------------------------------------------------

    def measure_heap(self, reader: HeapReader | None) -> None:
        """Charge sessions with what their steps allocate from now on. None: no longer."""
        self.heap.reader = reader
        self.slow_path = True  # `begin_slow_path` resets it if nothing needs it

    def begin_slow_path(self, outside: Account | None) -> None:
        """Begin a timed step inside of `outside`, with sampling and memory."""
        self._open_heap()
        if outside is None:
            self.step_since = None
            self.weight = weight = self.sampling.period
            if weight > 1:
                self.steps_until_sample = self.sampling.draw(weight)
            else:
                self.slow_path = self.heap.reader is not None
        elif type(outside) is SuspendedStep:  # a step of an iteration in the middle of another step
            self.weight = 1

    def end_slow_path(self, holder: Account, seconds: float) -> None:
        """End such a step. `holder` had it last, for so long, and was charged as ever."""
        if type(holder) is SuspendedStep:
            its, self.weight = holder.holder, holder.weight
            its.busy += holder.busy
            its.steps += holder.steps
            its.last_step, holder.busy, holder.steps = holder.last_step, 0.0, 0
            holder = its
        if self.weight > 1:
            holder.steps += self.weight - 1
            if seconds <= self.limit:  # a block is found, and charged, whether it is sampled or not: once
                holder.busy += (self.weight - 1) * seconds
        if self.heap.reader is not None:
            self.heap.close(holder)

    def _open_heap(self) -> None:
        if self.heap.reader is not None and (self.holder is None or self.holder is self.parked):
            self.heap.open()

    # --- switching -------------------------------------------------------------------------------

    def _charge(self, current: Account, now: float) -> Account:
        """Charge the holder that `current` stands for, since the last switch. Return it."""
        holder, weight = (current.holder, current.weight) if type(current) is SuspendedStep else (current, self.weight)
        holder.busy += weight * (now - self.holder_since)
        holder.last_step = now
        self.heap.charge(holder)
        return holder

    def switch(self, holder: Account) -> None:
        """In mid-step, charge `holder` from now on."""
        current = self.holder
        if current is None or current is holder or self.stands_in(current):
            return
        now = self.clock()
        before = self._charge(current, now)
        if type(current) is not SuspendedStep:
            self.divide(before, now - self.holder_since)
            self.holder_since, self.holder = now, holder
        elif before is not holder and before is not self.unsampled:
            self.divide(before, now - self.holder_since)
            self.holder_since, self.holder = now, SuspendedStep(holder, current.weight, current.run)
        else:
            self.holder_since = now

    def interrupt(self, outside: Account, now: float) -> Account | None:
        """Begin a step inside of `outside`. Return the holder to restore at its end."""
        if outside is self.parked:
            self.holder = self.step_since = None
            self.weight = 1
            self.on_wake()
            return None
        if type(outside) is not SuspendedStep:  # written out: each step of an eager task comes here
            seconds = now - self.holder_since
            outside.busy += self.weight * seconds
            outside.last_step = now
            if self.heap.reader is not None:
                self.heap.charge(outside)
            self.divide(outside, seconds)
        elif outside.runs_others():
            self.step_since = None
        else:
            self.divide(self._charge(outside, now), now - self.holder_since)
        return outside

    def suspend(self, now: float, run: FrameType | None = None) -> SuspendedStep | None:
        """In mid-step, let others run from now on. Return what `resume` takes back.

        None: no step is under way. run: the frame that runs iterations of the loop inside of the step. Besides steps,
        what the iteration before this one did in this frame is charged to no session, like callbacks anywhere.
        """
        current = self.holder
        if current is None or current is self.parked:
            return None
        self.holder = None
        if type(current) is SuspendedStep and run is not None and current.run is run:
            self.holder_since = now
            return current
        if current is self.unsampled:
            self.end_unsampled()
            return SuspendedStep(current, 1, run)
        holder = self._charge(current, now)
        weight = current.weight if type(current) is SuspendedStep else self.weight
        if holder is not self.unsampled:
            since = self.holder_since
            self.note(current, None, since if self.step_since is None else self.step_since, since, now)
        self.holder_since, self.step_since = now, None
        return SuspendedStep(holder, weight, run)

    def resume(self, suspended: SuspendedStep, now: float) -> None:
        """Go on with a step in whose middle others have run."""
        if self.holder is not None and self.step_since is not None:
            since = self.step_since  # of a step around it, whose part until now is reported by itself
            self.spans.ended(since, now, self.take_parts())
        self.holder_since, self.step_since = now, None
        self.holder = suspended
        self.slow_path = True
        self.heap.open()

    def go_on(self, outside: Account | None, now: float) -> None:
        """Go on with the step around one that was suspended. None: there is none."""
        self.holder_since = now
        self.holder = outside
        if outside is not None and not self.stands_in(outside):
            self.rest_begins(now)

    def begin(self, holder: Account) -> tuple[Account | None, float]:
        """Begin a step that is timed, sampling or not. Return what `end` takes back."""
        if type(self.holder) is SuspendedStep:
            self.weight = 1
        self._open_heap()
        now = self.clock()
        outside = self.holder
        if outside is None:
            self.weight = 1
            self.step_since = None
        else:
            outside = self.interrupt(outside, now)
        self.holder_since = now
        self.holder = holder
        return outside, now

    def end(
        self, outside: Account | None, start: float | None, holder: Account | None = None, now: float | None = None
    ) -> None:
        """End a step that began at `start`. If the clock has been read already: at `now`.

        start: None for a step that was not timed. holder: the account that held the loop when the step began.
        """
        if start is None:
            if holder is not None:
                holder.last_step = self.holder_since  # nearly now: other steps are timed
            self.holder = outside
            if self.switched:
                self.end_unsampled()
            return
        if now is None:
            now = self.clock()
        current, since = self.holder, self.holder_since
        if current is None:
            self._end_suspended(outside, holder, now)
            return
        current.busy += now - since
        current.last_step = now
        current.steps += 1
        if self.slow_path:
            self.end_slow_path(current, now - since)
        self.holder_since = now
        self.holder = outside
        if now - start > NOTABLE_S or outside is not None:
            self.note(current, outside, start, since, now)

    def end_failed(
        self, error: BaseException | None, current: Account | None, outside: Account | None, holder: Account
    ) -> None:
        """End a step whose end could not be charged. Raise no Exception.

        current: the account that had the step last. None: it was suspended and went on unseen, which is no fault.
        """
        try:
            if current is None:
                self._end_suspended(outside, holder, self.clock())
                return
        except Exception as another:
            error = another
        if error is not None:
            self.failed(error)
        self.holder = outside

    def _end_suspended(self, outside: Account | None, holder: Account | None, now: float) -> None:
        """End a step that was suspended and went on unseen: after the last switch.

        This happens if a greenlet was left in the step's middle, and its switches are not traced.
        """
        since, self.holder, self.holder_since, self.step_since = self.holder_since, outside, now, None
        if holder is not None and outside is None:
            holder.busy += now - since
            holder.steps += 1
            holder.last_step = now
            self.note(holder, None, since, since, now)

    def begin_failed(self, error: BaseException) -> tuple[Account | None, None]:
        """Go on, untimed, with a step that failed to begin. Return what `end` takes back."""
        self.failed(error)
        return self.holder, None

    def failed(self, error: BaseException) -> bool:
        """Switch metering of this loop off: no further step is timed. Raise no Exception.

        A full stack and a lack of memory are the host's, and pass: then only this step is not timed. Return whether
        the error is no fault but an interrupt, which is for the host.
        """
        if is_interrupt(error):
            return True
        if isinstance(error, RecursionError | MemoryError):
            return False
        self.steps_until_sample = NEVER
        self.slow_path = True
        if self.holder is self.parked:
            self.holder = None
        with suppress(Exception):
            self.on_fault(f"steps are not metered any more: {error!r}", error)
        return False

    def collected(self, start: float, end: float) -> None:
        """Charge a garbage collection on the loop's thread, whatever holds the loop."""
        self.gc.busy += end - start
        current = self.holder
        if current is None or self.stands_in(current):
            if end > self.spans.counts_from:
                self.spans.steps[self.gc] = self.spans.steps.get(self.gc, 0.0) + end - start
            if current is None:
                self.holder_since = end  # a step that goes on unseen is not charged with the collection as well
            return
        self.divide(self._charge(current, start), start - self.holder_since)
        self.divide(self.gc, end - start)
        self.holder_since = end
