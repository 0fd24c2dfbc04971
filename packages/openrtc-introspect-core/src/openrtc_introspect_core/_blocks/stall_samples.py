"""The stall samples of one span in which a loop was held, each weighted by the time that it stands for.

A sample stands for the time from the moment at which it was due to that at which the next one is. If it came late, the
GIL was kept from the watchdog: then the loop's thread stood where the sample finds it, or where samples without the GIL
have found it meanwhile (docs/decisions/0020-weighted-stall-samples.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from .._loops.hook import Running
from .._os.stacks import Calls
from .._os.thread_usage import Usage
from .._sessions.session import Session
from .rival_threads import Rivals
from .without_gil import OWN_THREAD, WithoutGil

STARVED_S = 0.0075
"""Seconds of lateness from which on a sample met something that kept the GIL.

Python code gives the GIL away after 5 ms (sys.getswitchinterval); this is half as much again.
"""

MAX_FREE_GIL_WAIT_S = 0.002
"""The wait for the GIL, in seconds, up to which it was free.

Python code gives the GIL away after 5 ms (sys.getswitchinterval), C code that has released it at once.
"""

MAX_PLACES = 48
"""Of one span; the next one takes the room of the one with the least time."""

MAJORITY = 0.5
"""A share of a block from which on something is its cause."""

Place = tuple[Calls, Running | None]
"""A stack, and the code that ran: of a metered step, the session and the task that held it then. None: who it was is
not known."""

Look = Callable[[float, float], Sequence[WithoutGil]]
"""Returns what was seen without the GIL between two clock readings."""


def see_nothing(since: float, until: float) -> Sequence[WithoutGil]:
    """Return no samples."""
    return ()


@dataclass(slots=True)
class StallSamples:
    """Stack samples of the loop's thread, and the thread's usage around them.

    The watchdog's thread adds; others read, from any thread. Times are clock readings, in seconds.
    """

    since: float
    """When the step, or the iteration, began."""
    usage_before: Usage
    """The thread's usage at the last tick before the span was noticed."""
    idle_before: float | None = None
    """The loop's idle seconds at the time of `usage_before`; None if the loop does not report them."""
    next_due: float = 0.0
    """When the next sample should come."""
    usage_after_first: Usage | None = None
    """The thread's usage right after the first sample; None until it is read."""
    places: dict[Place, float] = field(default_factory=dict)
    """The seconds that each place stands for."""
    latest: Place | None = None
    """The place of the latest sample. None: there is no sample."""
    count: int = 0
    """The number of samples that had the GIL."""
    first_due: float = 0.0
    """When the first of them should have come."""
    until: float = 0.0
    """Up to here, the samples account for the span."""
    kept_s: float = 0.0
    """Seconds, since the first sample was due, in which the GIL was kept from the watchdog."""
    passed_s: float = 0.0
    """Seconds of `kept_s` in which threads of Python code passed the GIL around."""
    last_kept_s: float = 0.0
    """The part of `kept_s` before the last sample."""
    free_s: float = 0.0
    """Seconds, since the first sample, in which the watchdog got the GIL at once."""
    not_run_s: float = 0.0
    """Seconds, since the first sample was due, in which the watchdog waited, for the GIL or for a processor, and the
    loop's thread or the watchdog's was ready and did not run: they say nothing of the code."""
    alone: bool = False
    """Whether the loop's own thread alone had the GIL during the wait for the last sample."""
    alone_s: float = 0.0
    """Seconds of `kept_s` in such waits."""
    own_s: float = 0.0
    """Seconds of `kept_s` in which the loop's own thread was seen to keep it."""
    unseen_s: float = 0.0
    """Seconds at the end of the span in which it was kept, and nobody could see where the loop's thread stood."""
    rivals: Rivals = field(default_factory=dict)
    """The other threads that computed before the samples that came late."""

    def __post_init__(self) -> None:
        self.until = self.until or self.since

    # --- the watchdog's thread -------------------------------------------------------------------

    def add(
        self,
        calls: Calls,
        running: Running,
        due: float,
        came: float,
        look: Look = see_nothing,
        *,
        alone: bool = False,
    ) -> None:
        """Add the sample that should have come at `due`, and came at `came`.

        alone: whether the loop's own thread alone had the GIL meanwhile.
        """
        due, before = max(due, self.since), self.until
        self._go_on_until(min(due, came))
        if not self.count:
            self.first_due = due
        elif came - due < MAX_FREE_GIL_WAIT_S:
            self.free_s += came - before
        self.last_kept_s = came - due if came - due >= STARVED_S else 0.0
        self.kept_s += self.last_kept_s
        self.alone = alone
        self.alone_s += self.last_kept_s if alone else 0.0
        if self.last_kept_s:
            self._see(look(self.until, came), (calls, running), came)
        self.count += 1
        self.latest = calls, running
        self._spend(self.latest, came - self.until)
        self.until = came

    def delayed_by(self, own_s: float, loop_s: float = 0.0, *, passed: bool = False) -> None:
        """Correct what the last sample, a late one, says of the GIL.

        own_s: seconds for which the watchdog's thread had to wait for a processor meanwhile. loop_s: the loop's thread,
        which may have had the GIL. passed: whether threads passed the GIL around.
        """
        late = self.last_kept_s
        if late:
            ran_s = max(0.0, late - own_s) * (1.0 - min(1.0, loop_s / late))
            if ran_s >= STARVED_S:
                ran_s = late - max(own_s, loop_s)  # C code does not mind that the watchdog did not run either
                self.last_kept_s = ran_s
            else:
                self.last_kept_s = 0.0
            self.kept_s += self.last_kept_s - late
            self.alone_s += self.last_kept_s - late if self.alone else 0.0
            self.not_run_s += late - ran_s
            self.passed_s += self.last_kept_s if passed else 0.0

    # --- from any thread -------------------------------------------------------------------------

    def up_to(
        self,
        end: float,
        look: Look = see_nothing,
        not_run_s: float = 0.0,
        compiled: Calls = (),
        *,
        alone: bool = False,
    ) -> StallSamples:
        """Return a copy that accounts for the span up to `end`, too.

        not_run_s: seconds, since a sample was due, in which the GIL was not what the watchdog waited for, or in which
        the loop's thread had to wait for a processor. compiled: the outermost call of the task, if it is compiled: that
        code was there where nobody saw what was. alone: whether the loop's own thread alone has had the GIL since a
        sample was due.
        """
        rivals = {key: replace(each, places=dict(each.places)) for key, each in self.rivals.items()}
        copy = replace(self, places=dict(self.places), rivals=rivals)
        if not copy.count:
            copy.first_due = copy.next_due
        if end - copy.next_due >= STARVED_S:
            ran_s = max(0.0, end - copy.next_due - not_run_s)
            kept = ran_s if ran_s >= STARVED_S else 0.0
            copy.kept_s += kept
            copy.alone_s += kept if alone else 0.0
            copy.not_run_s += end - copy.next_due - ran_s
            copy._go_on_until(copy.next_due)
            if not copy._see(look(copy.until, end), None, end):
                if not kept and copy.latest is not None:
                    copy._spend(copy.latest, end - copy.until)
                elif compiled:
                    copy._spend((compiled, None), end - copy.until)
                else:
                    copy.unseen_s = end - copy.until
        elif copy.latest is not None:
            copy._spend(copy.latest, end - copy.until)
        copy.until = end
        return copy

    @property
    def starved(self) -> bool:
        """Whether the GIL was kept from the watchdog for most of the time since a sample was due."""
        return self.kept_s >= STARVED_S and self.kept_s >= MAJORITY * (self.until - self.first_due)

    def is_only_c(self, gc_s: float, run_delay_s: float = 0.0) -> bool:
        """Return whether the GIL was kept or free for most of that time, as it is while C code runs.

        Collections, which are C code, do not count. Nor do times of which nothing is known: the threads did not run, or
        others passed the GIL around. Or samples without the GIL have seen the loop's own thread keep it for most of the
        time in which it ran. gc_s: the seconds of collections. run_delay_s: those of its run delay.
        """
        ran_s = self.until - self.first_due - run_delay_s - gc_s
        if ran_s > 0.0 and self.own_s - run_delay_s - gc_s >= MAJORITY * ran_s:
            return True
        free_s = self.free_s if self.count > 2 else 0.0
        known_s = self.until - self.first_due - self.not_run_s - gc_s
        if self.kept_by_loop:  # else the waits alone say so, and they are the less certain, the less the thread ran
            known_s = min(known_s, ran_s)
        known_s -= self.passed_s
        return known_s > 0.0 and max(0.0, self.kept_s - self.passed_s - gc_s) + free_s >= MAJORITY * known_s

    @property
    def kept_by_loop(self) -> bool:
        """Whether it is known that the loop's own thread kept the GIL."""
        own_s = max(self.own_s, self.alone_s)
        return own_s > 0.0 and own_s >= MAJORITY * self.kept_s

    def held_by(self, session: Session | None) -> StallSamples:
        """Return the samples of the parts of a step that a session held, None being untagged tasks.

        They are all samples if none of a part of it is known.
        """
        places = {
            place: seconds
            for place, seconds in self.places.items()
            if (running := place[1]) is not None and running.signal is None and running.session is session
        }
        if not places:
            return self
        latest = self.latest if self.latest in places else max(places, key=places.__getitem__)
        return replace(self, places=places, latest=latest)

    # ---------------------------------------------------------------------------------------------

    def _go_on_until(self, due: float) -> None:
        """Count the time until a sample is due for the place of the sample before.

        Something that kept the GIL until then has just ended: then what comes next counts from its end.
        """
        if self.latest is not None and not self.last_kept_s and due > self.until:
            self._spend(self.latest, due - self.until)
            self.until = due

    def _see(self, seen: Sequence[WithoutGil], after: Place | None, until: float) -> bool:
        """Account for the time up to `until` with what was seen without the GIL. Return whether anything was.

        Between two samples, the later one counts: Python code would have given the GIL away.

        after: the place of the sample with the GIL that came next. It knows what ran, if it found the same function at
        the outside of the stack. None: none came.
        """
        for number, sample in enumerate(seen, start=1):
            last = until if number == len(seen) else min(sample.last, until)
            seconds = last - self.until
            if seconds > 0.0:
                if sample.keeper == OWN_THREAD:
                    self.own_s += seconds
                self._spend((sample.calls, _running_as(after, sample.calls)), seconds)
                self.until = last
        return len(seen) > 0

    def _spend(self, place: Place, seconds: float) -> None:
        """Count so many seconds for a place."""
        if place not in self.places and len(self.places) >= MAX_PLACES:
            del self.places[min(self.places, key=self.places.__getitem__)]
        self.places[place] = self.places.get(place, 0.0) + seconds


def _running_as(after: Place | None, calls: Calls) -> Running | None:
    """Return what ran when these calls were seen, by a later sample of a place. None: it is not known."""
    if after is None or _outermost(after[0]) != _outermost(calls):
        return None
    running = after[1]
    if running is None or running.signal is None or running.signal in {(call.file, call.function) for call in calls}:
        return running
    return None  # the handler had not begun


def _outermost(calls: Calls) -> tuple[str, str] | None:
    return (calls[-1].file, calls[-1].function) if calls else None
