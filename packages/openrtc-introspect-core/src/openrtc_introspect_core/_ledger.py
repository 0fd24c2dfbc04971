"""Who holds the event loop: charge on switch.

One ledger per loop, and in each an account per session, so that nothing is ever added to by two
threads: a session whose tasks run on two loops has an account with each. Whoever holds the loop is
charged from the last switch to this one, so nested holders (an eager task started in mid-step, a
scope entered in mid-step, a garbage collection) are never counted twice.

    loop, callbacks      running is None; their time is what is left of wall time
    a step begins        the meter sets running to the account of the session bound now, or to `untagged`
    a scope in mid-step  switch(): charges the holder so far, and goes on with the next
    a collection         the same, with `gc` as the holder in between
    a step ends          the meter charges running and restores the holder outside
    nothing happens      running is `quiet`: the next step to begin calls `on_wake` first
    a step is left out   running is `left_out`: it is not timed, and what begins inside of it is not either
    a step lets others   `suspend()` where it runs an iteration of the loop, or its greenlet is left; `resume()`
        run              where it goes on: running is a `Suspended`, which passes its charges on to the holder

The meter inlines these few lines for its own steps (see _meter.py); the slow ways are here. Only
the loop's thread writes. Other threads read while it writes: `standing` reads twice and takes what
did not change in between.

Where timing every step would be too dear, `thin` has one in n timed, and charged n times. Which, is
drawn anew for each step with the same chance (Bernoulli sampling), so that no rhythm of the host's
can hide behind it: sums are estimates without bias (Horvitz and Thompson), their variance is
(n - 1) times the sum of the squares of the steps' lengths. The longest would make up most of it, so
blocks, which are found without being timed, are charged as they are.

Long, because all that writes the books is here: each of these methods leaves them in a state that the others rely on.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import log, log1p
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

from ._clock import Clock
from ._fields import LedgerFields
from ._gil import copied
from ._interrupts import is_interrupt
from ._sessions import Account, Binding, Session

if TYPE_CHECKING:
    from ._heap import Reader

NOTABLE_S = 100e-6
"""Steps shorter than this leave no span: writing one down would cost as much as a part of them."""

MAX_SPANS = 4096


class Span(NamedTuple):
    """A part of a step, charged to one holder."""

    holder: Account
    start: float
    end: float


class Overrun(NamedTuple):
    """A step that took longer than the limit."""

    holder: Account | None
    """Who held most of it; None: no one held half of it."""
    start: float
    end: float
    shares: dict[Account, float]
    """Seconds, by holder."""


class Standing(NamedTuple):
    """What a ledger says at one moment."""

    now: float
    running: Account | None
    since: float
    """When `running` began to hold the loop; in a step with several holders, when the step began."""
    busy: float
    """Seconds charged to `running`, the span in progress included."""


class Suspended(Account):
    """Stands in as `running` for a step that has let others run in its middle, since it went on.

    The meter charges it like any holder, and the ledger's `end_special` passes that on. What the step did before is a
    span of its own, so a block of it began at the ledger's `since`.
    """

    __slots__ = ("holder", "run", "weight")

    def __init__(self, holder: Account, weight: int, run: FrameType | None) -> None:
        super().__init__(holder.session)
        self.holder = holder
        self.weight = weight
        """What the step counts for; 1 where every step is timed."""
        self.run = run
        """The frame that has run the loop's iterations in the step's middle. None: they were the loop's own."""

    def runs_others(self) -> bool:
        """Whether the calling code belongs to one of these iterations, and not to the step itself."""
        frame = sys._getframe(1) if self.run is not None else None
        while frame is not None and frame is not self.run:
            frame = frame.f_back
        return frame is not None


NEVER = 1 << 62
"""Steps that no loop takes: so many are left out once metering is switched off."""


class Ledger(LedgerFields):
    """The books of one event loop."""

    __slots__ = (
        "_in_use", "_random", "_scale", "accounts", "added", "binding", "drawn", "gc", "heap_at", "heap_booked",
        "heap_elsewhere", "idle", "left", "limit", "on_fault", "on_overrun", "on_wake", "one_in", "parts", "quiet",
        "retired", "skipped", "steps", "untagged", "weight",
    )  # fmt: skip

    def __init__(
        self, binding: Binding, clock: Clock, limit: float, on_overrun: Callable[[Overrun], None] = lambda overrun: None
    ) -> None:
        self.binding = binding
        """Where a step looks which session is bound, with `get`."""
        self.get = binding.get
        self.clock = clock
        self.limit = limit
        """Seconds a step may take before `on_overrun` is called, once for nested ones."""
        self.on_overrun = on_overrun
        self.on_wake: Callable[[], None] = lambda: None
        """Called when a step begins while the books are quiet."""
        self.on_fault: Callable[[str, BaseException], None] = lambda problem, error: None
        """Takes what went wrong in metering, in words, and the error."""
        self.accounts: dict[Session, Account] = {}
        """Of the sessions that have held this loop, until they are retired."""
        self.retired = Account()
        """What sessions before them held it for, in all. Written by whoever retires them."""
        self.untagged = Account()
        self.gc = Account()
        """Collections on the loop's thread that were long enough to matter."""
        self.quiet = Account()
        """Stands in for None as `running` while those who watch the loop sleep."""
        self.idle: float | None = None
        """Seconds the loop has waited for events; None where the loop does not tell."""
        self.running: Account | None = None
        self.since = clock()
        self.parts: deque[Span] = deque(maxlen=64)
        """Parts of recent steps that had several holders, oldest first."""
        self.steps: deque[Span] = deque(maxlen=MAX_SPANS)
        """The notable steps since the loop last waited (on uvloop: since the last heartbeat)."""

        self.special = False
        """Whether a step is more than timed: memory is measured, or not every step is timed."""
        self.one_in = 1
        """One step in so many is timed."""
        self.weight = 1
        """What the step in progress counts for; where every step is timed, 1."""
        self.left_out = Account()
        """Stands in as `running` while a step runs that is not timed."""
        self.skipped = 0
        """Steps that were not timed."""
        self.drawn = 0
        """Steps that were timed in place of others."""
        self.added = 0
        """Steps that those have been counted for, besides themselves."""
        self.gap = 0
        """Steps to leave out until the next one is timed."""
        self._scale = 0.0
        self._random = random.Random().random  # of its own: the host's may be seeded
        self._in_use: Reader | None = None
        self.heap_at = 0
        """What it read at the last switch."""
        self.heap_booked = 0
        """All that was booked to steps so far."""
        self.heap_elsewhere = 0
        """All that was booked to calls in threads: no step's. Written under their lock."""
        self.left: Account | None = None
        """Whose scope was left in the step under way: what is freed in the rest of it was taken inside."""

    @property
    def in_use(self) -> Reader | None:
        """Reads the bytes in use; None: memory is not measured."""
        return self._in_use

    @in_use.setter
    def in_use(self, read: Reader | None) -> None:
        self._in_use = read
        self.special = True  # `begin_special` takes it back where it is not

    def thin(self, one_in: int) -> None:
        """From now on one step in `one_in` is timed, 1 and up. From any thread."""
        if one_in != self.one_in:
            self._scale = 1.0 / log1p(-1.0 / one_in) if one_in > 1 else 0.0
            self.one_in = one_in
            self.special = True

    def begin_special(self, outside: Account | None) -> None:
        """A special step begins inside of `outside`, and is timed."""
        if self._in_use is not None:
            self.open_heap()
        if outside is None:
            self.weight = weight = self.one_in
            if weight > 1:
                self.drawn += 1
                self.added += weight - 1
                # How many in a row are left out where each is with the same chance: geometrically distributed.
                self.gap = gap = int(log(1.0 - self._random()) * self._scale)
                self.skipped += gap
            else:
                self.special = self._in_use is not None
        elif type(outside) is Suspended:  # an iteration's own step, in the middle of another
            self.weight = 1

    def end_special(self, running: Account, seconds: float) -> None:
        """A special step ends that was booked as any, `running` having had it last, for so long."""
        if type(running) is Suspended:
            holder, self.weight = running.holder, running.weight
            holder.busy += running.busy
            holder.steps += running.steps
            running.busy, running.steps = 0.0, 0
            running = holder
        if self.weight > 1:
            running.steps += self.weight - 1
            if seconds <= self.limit:  # a block is found and charged in any case: once
                running.busy += (self.weight - 1) * seconds
        if self._in_use is not None:
            self.close_heap(running)

    def open_heap(self) -> None:
        """A step begins: what was allocated between steps is nobody's."""
        in_use = self.in_use  # read once: another thread may switch it off
        if in_use is not None and (self.running is None or self.running is self.quiet) and in_use.draw():
            self.heap_at = in_use() - self.heap_elsewhere

    def book_heap(self, holder: Account) -> None:
        """What was allocated since the last switch is `holder`'s; nobody's, where this step is not read."""
        in_use = self.in_use
        if in_use is None or not in_use.drawn:
            return
        now = in_use() - self.heap_elsewhere
        change = now - self.heap_at
        self.heap_at = now
        self.heap_booked += change
        (self.left if self.left is not None and change < 0 else holder).heap += in_use.weight * change

    def close_heap(self, running: Account) -> None:
        """A step ends that `running` had last."""
        self.book_heap(running)
        self.left = None

    def account_of(self, session: Session | None) -> Account:
        """The session's account on this loop, opened where it has none yet; `untagged` for None.

        One that was retired, and is come back to from a context that outlived it, is nobody's.
        """
        if session is None:
            return self.untagged
        account = self.accounts.get(session)
        if account is None:
            if session.ended:
                return self.untagged
            opened = Account(session)
            account = self.accounts.setdefault(session, opened)  # a sampler may open it at the same time
            if account is opened:
                session.accounts.append(opened)
        return account

    def bound(self) -> Account:
        """The account of the session that is bound here."""
        return self.account_of(self.binding.get(None))

    def retire(self, session: Session) -> None:
        """Closes the account of an ended session that has no task left. By one thread only."""
        account = self.accounts.pop(session, None)
        if account is not None:
            self.retired.busy += account.busy
            self.retired.steps += account.steps

    def totals(self, standing: Standing) -> tuple[float, int]:
        """(seconds, steps) charged on this loop to all sessions there have been."""
        busy, steps, running = self.retired.busy, self.retired.steps, standing.running
        for account in list(self.accounts.values()):
            busy += account.busy if account is not running else standing.busy
            steps += account.steps
        return busy, steps

    def _stands_in(self, running: Account) -> bool:
        """Whether it is no holder, and is charged with nothing."""
        return running is self.quiet or running is self.left_out

    def _charge(self, running: Account, now: float) -> Account:
        """Charges whoever `running` stands for with the time since the last switch. Returns that holder."""
        holder, weight = (running.holder, running.weight) if type(running) is Suspended else (running, self.weight)
        holder.busy += weight * (now - self.since)
        self.book_heap(holder)
        return holder

    def switch(self, holder: Account) -> None:
        """In mid-step: the loop is `holder`'s from now on."""
        running = self.running
        if running is None or running is holder or self._stands_in(running):
            return
        now = self.clock()
        before = self._charge(running, now)
        if type(running) is not Suspended:
            self.parts.append(Span(before, self.since, now))
            self.running = holder
        elif before is not holder and before is not self.left_out:
            self.note(running, None, self.since, self.since, now)
            self.running = Suspended(holder, running.weight, running.run)
        self.since = now

    def interrupt(self, outside: Account, now: float) -> Account | None:
        """A step begins while `outside` holds the loop. Returns the holder to restore at its end."""
        if outside is self.quiet:
            self.running = None
            self.weight = 1
            self.on_wake()
            return None
        if type(outside) is Suspended:
            if not outside.runs_others():
                self._charge(outside, now)
        else:  # written out: each step of an eager task comes here
            outside.busy += self.weight * (now - self.since)
            if self._in_use is not None:
                self.book_heap(outside)
        return outside

    def suspend(self, now: float, run: FrameType | None = None) -> Suspended | None:
        """In mid-step: others run from now on. Returns what `resume` wants back, None where no step is under way.

        run: the frame that runs iterations of the loop inside of the step. What the iteration before has done besides
        steps, in the same frame, is nobody's, like callbacks in any iteration.
        """
        running = self.running
        if running is None or running is self.quiet:
            return None
        self.running = None
        if type(running) is Suspended and run is not None and running.run is run:
            self.since = now
            return running
        if running is self.left_out:
            return Suspended(running, 1, run)
        holder = self._charge(running, now)
        weight = running.weight if type(running) is Suspended else self.weight
        if now - self.since > NOTABLE_S and holder is not self.left_out:
            self.note(running, None, self._began(), self.since, now)
        self.since = now
        return Suspended(holder, weight, run)

    def resume(self, suspended: Suspended, now: float) -> None:
        """A step goes on in the middle of which others have run. It is no other step's until its end."""
        self.running = suspended
        self.since = now
        self.special = True
        if (in_use := self._in_use) is not None and in_use.draw():
            self.heap_at = in_use() - self.heap_elsewhere

    def begin(self, holder: Account) -> tuple[Account | None, float]:
        """A step begins that is timed in any case. Returns what `end` wants back."""
        if type(self.running) is Suspended:
            self.weight = 1
        self.open_heap()
        now = self.clock()
        outside = self.running
        if outside is None:
            self.weight = 1
        else:
            outside = self.interrupt(outside, now)
        self.running = holder
        self.since = now
        return outside, now

    def end(
        self, outside: Account | None, start: float | None, holder: Account | None = None, now: float | None = None
    ) -> None:
        """A step that began at `start` ends: at `now`, if the clock has been read already. None: it was left out.

        holder: whose it was when it began.
        """
        if start is None:
            self.running = outside
            return
        if now is None:
            now = self.clock()
        running, since = self.running, self.since
        if running is None:
            self._end_suspended(outside, holder, now)
            return
        running.busy += now - since
        running.steps += 1
        if self.special:
            self.end_special(running, now - since)
        self.running = outside
        self.since = now
        if now - start > NOTABLE_S:
            self.note(running, outside, start, since, now)

    def end_failed(
        self, error: BaseException | None, running: Account | None, outside: Account | None, holder: Account
    ) -> None:
        """The end of a step that `running` had last could not be booked. Raises no Exception.

        running: None where the step was suspended and nobody has seen it go on: that alone is no fault.
        """
        try:
            if running is None:
                self._end_suspended(outside, holder, self.clock())
                return
        except Exception as another:
            error = another
        if error is not None:
            self.failed(error)
        self.running = outside

    def _end_suspended(self, outside: Account | None, holder: Account | None, now: float) -> None:
        """A step ends that was suspended and went on unseen: when anything was last booked, at the earliest.

        So it is where a greenlet was left in the step's middle, and its switches are not traced.
        """
        since, self.running, self.since = self.since, outside, now
        if holder is not None and outside is None:
            holder.busy += now - since
            holder.steps += 1
            if now - since > NOTABLE_S:
                self.note(holder, None, since, since, now)

    def begin_failed(self, error: BaseException) -> tuple[Account | None, None]:
        """A step could not be begun, and goes on untimed. Returns what `end` wants back. Raises nothing."""
        self.failed(error)
        return self.running, None

    def failed(self, error: BaseException) -> bool:
        """Metering of this loop is switched off: no step is timed any more. Raises no Exception.

        A stack that is full and memory that is used up are the host's, and pass: only this step is not timed.
        Returns whether the error is no fault, but an interrupt that is the host's to get.
        """
        if is_interrupt(error):
            return True
        if isinstance(error, RecursionError | MemoryError):
            return False
        self.gap = NEVER
        self.special = True
        if self.running is self.quiet:
            self.running = None
        with suppress(Exception):
            self.on_fault(f"steps are not metered any more: {error!r}", error)
        return False

    def collected(self, start: float, end: float) -> None:
        """A garbage collection ran on the loop's thread from `start` to `end`, in the middle of whatever holds it."""
        self.gc.busy += end - start
        running = self.running
        if running is None or self._stands_in(running):
            self.steps.append(Span(self.gc, start, end))
            if running is None:
                self.since = end  # a step that goes on unseen is not charged with it as well
            return
        holder = self._charge(running, start)
        if type(running) is Suspended:  # its spans are no parts of one step
            self.steps.append(Span(self.gc, start, end))
        else:
            self.parts.append(Span(holder, self.since, start))
            self.parts.append(Span(self.gc, start, end))
        self.since = end

    def note(self, running: Account, outside: Account | None, start: float, since: float, end: float) -> None:
        """A notable step has ended and is booked; its last holder, `running`, had it since `since`."""
        if type(running) is Suspended:
            running, start = running.holder, since
        if (
            outside is not None and type(outside) is not Suspended
        ):  # it ran inside another's step: that one reports, once, for both
            self.parts.append(Span(running, since, end))
            return
        shares: dict[Account, float] | None = None
        if self.parts and self.parts[-1].start >= start:
            shares = {running: end - since}
            for part in self.parts:
                if part.start >= start:
                    shares[part.holder] = shares.get(part.holder, 0.0) + part.end - part.start
            self.parts.clear()
            at = start
            for holder, share in shares.items():
                self.steps.append(Span(holder, at, at + share))
                at += share
        else:
            self.steps.append(Span(running, start, end))
        if end - start > self.limit:
            shares = shares or {running: end - start}
            # A step with several holders is the block of the one that held most of it, or of none.
            holder = max(shares, key=shares.__getitem__)
            self.on_overrun(Overrun(holder if 2 * shares[holder] >= end - start else None, start, end, shares))

    def standing(self) -> Standing:
        """The holder and its unbooked time now, readable from any thread."""
        for _ in range(8):
            running, since = self.running, self.since
            suspended = running if type(running) is Suspended else None
            holder = suspended.holder if suspended is not None else running
            booked = holder.busy if holder is not None else 0.0
            now = self.clock()
            if running is self.running and since == self.since:
                break
        if holder is None or self._stands_in(holder):
            return Standing(now, None, now, 0.0)
        began, weight = (since, suspended.weight) if suspended is not None else (self._began(), self.weight)
        return Standing(now, holder, began, booked + weight * max(0.0, now - since))

    def _began(self) -> float:
        """When the step under way began, as far as its parts tell."""
        began = self.since
        for part in reversed(copied(self.parts)):
            if part.end != began:
                break
            began = part.start
        return began

    def busy_of(self, account: Account, standing: Standing) -> float:
        """Seconds charged to `account`, the span in progress included."""
        return standing.busy if account is standing.running else account.busy
