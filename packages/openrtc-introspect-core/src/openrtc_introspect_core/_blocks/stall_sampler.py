"""Stall samples of one loop's thread, taken while something holds the loop.

A C call that keeps the GIL starves the watchdog; the watchdog gets the GIL right after the call, with the frame
still on that line, or at the beginning of a function called next. How late a sample comes is evidence itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from .._accounting.account import Account
from .._accounting.ledger import Ledger
from .._base.clock import Clock, perf_counter
from .._loops.coroutine_kinds import compiled_calls
from .._loops.hook import LoopHook, Running
from .._loops.iterations import Iterations
from .._loops.running_calls import running_calls, walk_on
from .._native import native
from .._os.signal_handlers import signal_handler_in
from .._os.stacks import Call, Calls, CompiledCall, Walk, frames_of_others
from .._os.thread_usage import ThreadUsage, Usage
from .._sessions.session import session_of
from .hold_marks import HoldMarks
from .rival_threads import RivalThreads
from .rival_threads import Sample as RivalSample
from .stall_samples import STARVED_S, Look, StallSamples
from .without_gil import UNKNOWN_KEEPER, WithoutGil, samples_without_gil

CLOSE_SAMPLE_S = 0.005
"""Seconds between samples while something is held."""

RARER_SHARE = 0.02
"""The share of a block so far that passes between two samples, once that is more: so much its lines are uncertain."""

MIN_HELD_S = 0.004
"""What has been held for less is not sampled."""

NOTABLE_DELAY_S = 0.001
"""Seconds. A shorter run delay of the loop's thread is what changing threads costs."""

PARK_AFTER_S = 0.2
"""Seconds of waiting after which a loop is not observed until its next iteration."""

RARELY_S = 0.1
"""Seconds of waiting after which an iteration of a parked loop is a rare one: if it stays alone, the loop is parked
again at the next tick."""


class Waker(Protocol):
    """The watchdog, as far as the samples of one loop need it."""

    def wake(self) -> None: ...

    def is_alive(self) -> bool: ...

    def gil_wanted_s(self, since: float) -> float | None: ...

    def had_gil_alone(self, thread_id: int, *, under_way: bool) -> bool: ...


class Stack(NamedTuple):
    """What the loop's thread runs at one moment."""

    frames: Mapping[int, FrameType]
    """The innermost frame of each other thread."""
    calls: Calls
    compiled: Sequence[Call]
    """The outermost call of the task, if it is compiled."""
    running: Running
    in_handler: bool
    """Whether a signal handler runs."""


if TYPE_CHECKING:
    from .._native._meter import SamplerFields
elif native is not None:
    SamplerFields = native.SamplerFields
else:

    class SamplerFields(HoldMarks):
        """The fields that each tick reads and writes: C has a type for them."""

        def __init__(
            self, ledger: Ledger, iterations: Iterations, parked: Account, usage: ThreadUsage, interval: float
        ):
            super().__init__()
            self.usage = usage
            """Of the thread that the loop runs on."""
            self.interval = interval
            """Seconds between ticks that find nothing held."""
            self.awake = False
            self.due: float | None = None
            """When the next sample should come, or should have come when it fell asleep; None before the first."""
            self.thread_id = 0
            """Of the thread that the loop runs on."""
            self.native_id = 0
            """The operating system's number of that thread."""

        def stop_watching(self) -> None:
            """Do nothing: the meter in Python has no stall sampler."""


class StallSampler(SamplerFields):
    """Samples of one loop.

    The watchdog's thread writes; the loop's thread reads, wakes, and ends.
    """

    def __init__(self, hook: LoopHook, usage: ThreadUsage, clock: Clock, watchdog: Waker) -> None:
        interval = min(0.045, 0.9 * hook.ledger.limit)
        super().__init__(hook.ledger, hook.iterations, hook.ledger.parked, usage, interval)
        self.native_id = usage.native_id
        self._hook = hook
        self._ledger = hook.ledger
        self._clock = clock
        self._watchdog = watchdog
        self._remember(usage.read())
        self._asleep_since: float | None = self._clock()
        self._woken_rarely = False
        """Whether the next tick is the first one after a long wait of the loop."""
        self._seen_late: tuple[float, Walk] | None = None
        """When the late sample under way has seen the loop's thread, and where."""
        self._starved: StallSamples | None = None
        """The latest tick that came late and found nothing held: what had kept the GIL had just ended."""
        self._rivals = RivalThreads()
        self._waited_s = 0.0
        """Seconds of the longest wait for the GIL in the sample before: reading a file may give it away."""
        self.on_mark: Callable[[], None] = lambda: None
        """Called on the watchdog's thread when what holds the loop has done so for 1 s, 5 s, 30 s, and each minute."""
        self.on_held: Callable[[float, float], None] = lambda since, now: None
        """Called on the watchdog's thread after each sample of what has held the loop for longer than the threshold,
        with the clock readings of its begin and of the sample."""
        self.step: StallSamples | None = None
        """The latest step that was sampled."""
        self.iteration: StallSamples | None = None
        """The latest iteration that was sampled, whatever ran in it."""

    def sleep(self, *, until_next_iteration: bool) -> None:
        """Take no samples, until the loop's next iteration or until `wake`."""
        self._asleep_since = self._clock()
        self.awake = False
        self._hook.iterations.wakes_watchdog = until_next_iteration

    def wake(self) -> None:
        """Take samples again.

        From now on one is due, even if the watchdog's thread never gets to it.
        """
        self._hook.iterations.wakes_watchdog = False
        if not self.awake:
            self.thread_id = self._hook.thread_id
            self._remember(self.usage.read())
            now = self._clock()
            self._woken_rarely = now - self._hook.iterations.waiting_since > RARELY_S
            self.due = now + self.interval
            self._asleep_since = None
            self.awake = True
            self._watchdog.wake()

    @property
    def ticks_in_c(self) -> bool:
        """Whether C can take the ticks that find nothing held: on loops that show their iterations, in real time."""
        rarely = self._woken_rarely
        return native is not None and self._hook.iterations.timed and not rarely and self._clock is perf_counter

    def sample(self, late: float = 0.0, run_delay: Callable[[], float] = lambda: 0.0, *, passed: bool = False) -> float:
        """Take the sample for which the GIL was waited for `late` seconds.

        Return the seconds until the next.

        run_delay: returns how many of these seconds were a run delay of this thread, which is no wait for the GIL.
        passed: whether other threads have passed the GIL around meanwhile.
        """
        try:
            return self._sample(late, run_delay, passed=passed)
        finally:
            self._seen_late = None  # it has frames

    def _sample(self, late: float, run_delay: Callable[[], float], *, passed: bool) -> float:
        late, self._waited_s = max(late, self._waited_s), 0.0
        # First of all the stack: the loop's thread gets the GIL back within 5 ms, and on an idle machine, whose caches
        # are cold, a sample takes as long. What is read later gives it away.
        starved = late >= STARVED_S
        stack = self._stack_now(gil_kept=True) if starved else None
        reading = self._ledger.read()
        now = reading.now
        stuck = self._hook.iterations.stuck_since(now)
        held = now - reading.holder_since if reading.holder is not None else 0.0
        iterating = now - stuck if stuck is not None else 0.0
        if max(held, iterating) < MIN_HELD_S:
            if stack is not None:
                self._rivals.sample_after_hold(stack.frames, self.usage.read_clocks(), self.thread_id)
                del stack  # it has frames
                self._note_kept(now, late - run_delay())
            self._park_if_quiet(now, stuck)
            usage = self._note(self.usage.read())
            self._rivals.mark(usage, self.thread_id)
            return self.interval
        hook = self._hook
        stack = stack or self._stack_now(gil_kept=False)
        rivals = self._rivals.sample(stack.frames, self.usage.read_clocks(), hook.thread_id) if starved else None
        _, calls, compiled, running, in_handler = stack
        del stack  # it has frames
        spans: list[StallSamples] = []
        if reading.holder is not None and self._ledger.read().holder_since == reading.holder_since:
            self.step = self._of(self.step, reading.holder_since, now - late)
            spans.append(self.step)
        if stuck is not None and hook.iterations.stuck_since(now) == stuck:
            self.iteration = self._of(self.iteration, stuck, now - late)
            spans.append(self.iteration)
        alone = starved and self._watchdog.had_gil_alone(hook.thread_id, under_way=False)
        pause = min(self.interval, max(CLOSE_SAMPLE_S, RARER_SHARE * max(held, iterating)))
        for span in spans:
            # Where an iteration is in a metered step is that step's to say.
            shows = span is spans[0]
            ran = running
            if span is self.step and not in_handler and reading.holder is not None:
                ran = Running(session_of(reading.holder.session), hook.task_name())
            look = self.look(calls, compiled, shows=shows)
            span.add(calls if shows else (), ran, now - late, now, look, alone=alone)
            span.next_due = now + pause
            if rivals is not None:
                rivals.add_to(span.rivals, span.since, span.usage_before)
        began, before = self._clock(), self.run_delay_s
        own_delay = run_delay() if starved else 0.0
        if reading.holder is None:  # a step may have ended just now, whose end was the first code to give the GIL away
            self._note_kept(now, late - own_delay)
        waited_s = self._clock() - began
        usage = self._note(self.usage.read_held())
        self._waited_s = max(self._waited_s, waited_s)
        for span in spans:
            span.usage_after_first = span.usage_after_first or usage
            if starved:
                span.delayed_by(own_delay, self._loop_delayed_s(before, usage.run_delay_s), passed=passed)
        if spans and now - spans[0].since > self._ledger.limit:
            self.on_held(spans[0].since, now)
        if spans and self.take_mark(spans[0].since, now):
            self.on_mark()
        return pause

    def _stack_now(self, *, gil_kept: bool) -> Stack:
        """Return the stack of the loop's thread. gil_kept: as for `running_calls`; then `read` can use it at once."""
        hook = self._hook
        frames = frames_of_others()
        frame = frames.get(hook.thread_id)
        walked = walk_on(hook, frame)
        if gil_kept:
            self._seen_late = self._clock(), walked
        coro = hook.running_coroutine()
        calls = running_calls(hook, walked, coro, gil_kept=gil_kept)
        compiled = compiled_calls(coro)[:1]
        handler = signal_handler_in(hook.thread_id, frame, walked.end, gil_kept=gil_kept)
        running = hook.seen_running(frame, walked.end) if handler is None else Running(signal=handler)
        return Stack(frames, calls, compiled, running, handler is not None)

    def _note(self, usage: Usage) -> Usage:
        """Take note of the usage of the loop's thread, read a moment ago."""
        self._waited_s = self._clock() - usage.when
        self._remember(usage)
        return usage

    def _remember(self, usage: Usage) -> None:
        self.when, self.cpu_s, self.run_delay_s, self.process_s = usage
        self.idle = self._ledger.idle

    @property
    def _last(self) -> Usage:
        return Usage(self.when or 0.0, self.cpu_s, self.run_delay_s, self.process_s)

    def look(self, calls: Calls = (), compiled: Sequence[Call] = (), *, shows: bool = True) -> Look:
        """Return what reads the samples without the GIL.

        calls: of another sample of the same task. compiled: the outermost call of the task, if it is compiled: so it is
        theirs. shows: whether they have their calls.
        """
        framed = tuple(call for call in calls if type(call) is not CompiledCall)
        ends = self._hook.ends

        def look(since: float, until: float) -> list[WithoutGil]:
            seen = samples_without_gil(self, since, until, ends.codes, framed, compiled, unbounded=not ends.known)
            return seen if shows else [each._replace(calls=()) for each in seen]

        return look

    def _look_back(self, calls: Calls, compiled: Sequence[Call]) -> Look:
        """Return `look`, and what a sample under way has seen by now, if nothing else did."""

        def look(since: float, until: float) -> Sequence[WithoutGil]:
            seen, late = self.look(calls, compiled)(since, until), self._seen_late
            if seen or late is None or not since < late[0] <= until:
                return seen
            came, walked = late
            late_calls = running_calls(self._hook, walked, self._hook.running_coroutine(), gil_kept=True)
            return [WithoutGil(came, came, UNKNOWN_KEEPER, late_calls)]

        return look

    def rivals_at_end(self, since: float) -> list[RivalSample]:
        """Return what the other threads have used that no span has, in a block that ends now. From any thread."""
        return self._rivals.at_end(since, frames_of_others(), self.usage.read_clocks(), self._hook.thread_id)

    def read(self, kind: Literal["step", "iteration"], since: float, end: float) -> StallSamples | None:
        """Return what the samples say of the span that began at `since`, up to `end`. From any thread.

        None: there are none, and no sample was late.
        """
        samples: StallSamples | None = getattr(self, kind)
        compiled = compiled_calls(self._hook.running_coroutine())[:1] if kind == "step" else []
        if samples is not None and samples.since == since:
            calls = samples.latest[0] if samples.latest is not None else ()
            late = end - samples.next_due >= STARVED_S
            # The watchdog that is over takes no samples; that none came is no evidence then.
            if late and not self._watchdog.is_alive():
                return samples
            not_run_s = self._not_run_s(samples.next_due, end) if late else 0.0
            alone = late and self._has_gil_alone()
            return samples.up_to(end, self._look_back(calls, compiled), not_run_s, tuple(compiled), alone=alone)
        return self._overdue(since, end, compiled)

    def _not_run_s(self, due: float, end: float) -> float:
        """Return the seconds in which the GIL was not what a sample waited for, or the loop's thread did not run.

        0 with the meter in Python: reading gives the GIL away, and the sample would come, and find this code.
        """
        wanted_s = self._watchdog.gil_wanted_s(due)
        if wanted_s is None:
            return 0.0
        return max(0.0, end - due - wanted_s) + self._loop_delayed_s(self.run_delay_s, self.usage.run_delay_s())

    def _loop_delayed_s(self, before: float | None, after: float | None) -> float:
        """Return how long the loop's thread had to wait for a processor between two readings of its run delay."""
        if before is None or after is None or self._clock is not perf_counter:  # the kernel's seconds are real ones
            return 0.0
        return after - before if after - before > NOTABLE_DELAY_S else 0.0

    def _overdue(self, since: float, end: float, compiled: Sequence[Call]) -> StallSamples | None:
        """Return what the lack of samples of a span says: one was due and is late, or came late. None: neither."""
        due, asleep_since = self.due, self._asleep_since
        if due is None or not self._watchdog.is_alive():
            return None
        if due >= end:
            starved = self._starved
            if starved is None or starved.since >= end or starved.until <= since:
                return None
            due = max(starved.since, since)
            unseen = StallSamples(since, starved.usage_before, starved.idle_before, due)
            seen = unseen.up_to(min(end, starved.until), self.look((), compiled), compiled=tuple(compiled))
            return replace(seen, until=end)
        if asleep_since is not None and asleep_since <= since:  # nobody was to take samples
            return None
        due = max(due, since)
        not_run_s = self._not_run_s(due, end)
        return self._nothing_seen(since, due).up_to(
            end, self._look_back((), compiled), not_run_s, tuple(compiled), alone=self._has_gil_alone()
        )

    def _has_gil_alone(self) -> bool:
        """Return whether the loop's thread alone has had the GIL since the watchdog waits for it."""
        return self._watchdog.had_gil_alone(self._hook.thread_id, under_way=True)

    def _nothing_seen(self, since: float, due: float) -> StallSamples:
        """Return the samples of a span in which one is due, and none has come."""
        return StallSamples(since, self._last, self.idle, due)

    def _note_kept(self, now: float, kept_s: float) -> None:
        """Take note that the GIL was kept for so long until `now`, by what is over by now."""
        if kept_s >= STARVED_S:
            self._starved = self._nothing_seen(now - kept_s, now - kept_s).up_to(now)

    def _of(self, samples: StallSamples | None, since: float, due: float) -> StallSamples:
        """Return the samples of the span that began at `since`: these, if they are. due: when the next one was."""
        if samples is not None and samples.since == since:
            return samples
        return self._nothing_seen(since, max(since, due))

    def _park_if_quiet(self, now: float, stuck: float | None) -> None:
        hook = self._hook
        quiet_s = 0.5 * self.interval if self._woken_rarely else PARK_AFTER_S
        self._woken_rarely = False
        if not hook.runs():
            self.sleep(until_next_iteration=True)
        elif not hook.iterations.timed:
            if hook.iterations.dormant():
                self.sleep(until_next_iteration=False)
                if not hook.iterations.dormant():  # it woke up in between, when this was still awake
                    self.wake()
        elif stuck is None and now - hook.iterations.waiting_since > quiet_s:
            self.sleep(until_next_iteration=True)
            if hook.iterations.busy_since is not None:  # it woke up in between, and may have missed the flag
                self.wake()
