"""Samples of what one loop does beside steps."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from itertools import islice
from types import FrameType
from typing import Any

from .._base.clock import WallTime
from .._loops.callbacks import Callback, describe_function
from .._loops.hook import LoopHook
from .._loops.iteration_sample import IterationSample
from .._os.stacks import Places
from ..wire._messages import CallbackGroup, LoopActivity

MAX_QUEUED = 100
"""The callbacks of a queue that one sample describes."""
MAX_THREADS = 256
"""The threads of which one sample asks whether they add to a queue."""
MAX_CALLBACKS = 20
"""The groups of callbacks that a loop's activity names."""
DUE_S = 0.001
"""Timers that are due so soon count as queued: one that is set again for now at each turn is in no queue in between."""
LOST_S = 0.05
"""Seconds for which a callback stays in the queue of a loop that sleeps, until it counts as lost."""

Group = tuple[str, int | None, Callback]
"""(source, descriptor, callback)."""


class LoopSampler:
    """A sampler of one loop. It runs on any thread but the loop's own.

    name: as the loop's activity has it.
    """

    def __init__(self, name: str, hook: LoopHook) -> None:
        self._name = name
        self._hook = hook
        self._iterations = hook.iterations
        self._callbacks = hook.callbacks
        self._began, self._count, self._steps = self._totals()
        self._samples = 0
        self._iteration_sample = IterationSample(hook.ledger, self._callbacks.queue(), self._callbacks.describe)
        self._seen: dict[Callback, float] = {}
        """How many of each callback there were in the queue, in all samples together."""
        self._ready: Counter[tuple[int, int]] = Counter()
        """The samples in which a file was ready, if the loop does not show what its selector finds."""
        self._ran: Counter[Callback] = Counter()
        """The samples in which a callback ran, on a loop without iterations."""
        self._shortest: list[int] = []
        """The frames of the shortest stack of the loop's thread, by id, the outermost first."""
        self._adders: dict[str, str] = {}
        """The thread that adds a function, by the function's name."""
        self._asleep: tuple[float, float, set[int]] | None = None
        """(when the loop began to wait, when that was seen first, what its queue had then, by id)."""

    def _totals(self) -> tuple[float, int | None, int | None]:
        ledger = self._hook.ledger
        reading = ledger.read()
        _, steps = ledger.accounts.totals(reading)
        counted = self._iterations.count if self._iterations.timed else None
        return reading.now, counted, steps + ledger.untagged.steps if self._hook.meters else None

    def sample(self, frames: dict[int, FrameType], iterations: int) -> None:
        """Take one sample, and have the loop sample so many iterations until the next one.

        frames: the innermost of each thread.
        """
        self._samples += 1
        self._note_sleep()
        queued = self._callbacks.queued(MAX_QUEUED)
        number = len(self._callbacks.queue() or queued) / len(queued) if queued else 0.0
        for timer in islice(self._callbacks.overdue(-DUE_S), MAX_QUEUED):
            if (described := self._callbacks.describe(timer)) is not None:
                self._seen[described] = self._seen.get(described, 0.0) + 1.0
        for each in queued:
            if (described := self._callbacks.describe(each)) is not None:
                self._seen[described] = self._seen.get(described, 0.0) + number
        if self._iterations.timed:
            self._iteration_sample.more(iterations)
            self._iterations.sample = self._iteration_sample
        else:
            self._ready.update(self._callbacks.ready_now())
            ledger = self._hook.ledger
            if ledger.holder is None or ledger.holder is ledger.parked:
                self._note_running(frames.get(self._hook.thread_id))
        self._note_adders(frames)

    def stop(self) -> None:
        """Have the loop sample nothing any more."""
        self._iterations.sample = None

    # --- samples ---------------------------------------------------------------------------------

    def _note_sleep(self) -> None:
        """Note what is in the queue of a loop that sleeps."""
        since = self._asleep_since()
        if since is None:
            self._asleep = None
        elif self._asleep is None or self._asleep[0] != since:
            self._asleep = since, time.perf_counter(), {id(each) for each in self._waiting()}

    def _lost(self) -> list[Any]:
        """Return what has stayed in the queue while the loop slept."""
        asleep, waiting = self._asleep, self._waiting()
        # Read last: the loop has slept while its queue was read.
        if asleep is None or time.perf_counter() - asleep[1] < LOST_S or self._asleep_since() != asleep[0]:
            return []
        return [each for each in waiting if id(each) in asleep[2]]

    def _waiting(self) -> list[Any]:
        return [*self._callbacks.queued(MAX_QUEUED), *self._callbacks.overdue(LOST_S)]

    def _asleep_since(self) -> float | None:
        """Return since when the loop waits for events. None: it does not wait, or that is not known."""
        iterations = self._iterations
        since, busy = iterations.waiting_since, iterations.busy_since
        return since if iterations.timed and busy is None and self._hook.runs() else None

    def _note_running(self, frame: FrameType | None) -> None:
        """Note the callback that runs: what is inside of the frame that runs the loop.

        That is the innermost one that the hook knows to be it, or else the innermost of the shortest stack so far.
        """
        stack: list[FrameType] = []
        while frame is not None:
            stack.insert(0, frame)
            frame = frame.f_back
        ids = [id(each) for each in stack]
        if not self._shortest or len(ids) < len(self._shortest):
            self._shortest = ids
        known = [number for number, each in enumerate(stack) if each.f_code in self._hook.ends.codes]
        runner = known[-1] if known else len(self._shortest) - 1
        if 0 <= runner < len(stack) - 1 and (known or ids[runner] == self._shortest[runner]):
            described = self._callbacks.running_function(stack[-1], stack[runner])
            if described is not None:
                self._ran[described] += 1

    def _note_adders(self, frames: dict[int, FrameType]) -> None:
        """Note which threads are adding to the queue."""
        for thread_id, frame in list(frames.items())[:MAX_THREADS]:
            if thread_id != self._hook.thread_id and (function := self._callbacks.adds_from(frame)) is not None:
                names = {thread.ident: thread.name for thread in threading.enumerate()}
                self._adders[describe_function(function, None).function] = names.get(thread_id, "")

    # --- what was seen ---------------------------------------------------------------------------

    def activity(self, wall: WallTime, places: Places) -> LoopActivity:
        """Return what the samples say."""
        now, count, steps = self._totals()
        seconds = now - self._began
        asleep = self._asleep_since()
        queue = self._callbacks.queue()
        groups = self._groups()
        most = sorted(groups.items(), key=lambda group: (group[0][0] != "lost", -group[1]))[:MAX_CALLBACKS]
        reads = self._iterations.timed and self._hook.kind != "trio"
        return LoopActivity(
            name=self._name,
            iterations_per_s=_rate(self._count, count, seconds),
            steps_per_s=_rate(self._steps, steps, seconds),
            ready=len(queue) if queue is not None else None,
            asleep_since=wall.at(asleep) if asleep is not None else None,
            sampled=self._iteration_sample.without_step if reads else self._samples if self._ready else None,
            callbacks=[self._group(*group, count, places) for group, count in most],
        )

    def _groups(self) -> Counter[Group]:
        groups: Counter[Group] = Counter()
        for each in self._lost():
            if (described := self._callbacks.describe(each)) is not None:
                groups["lost", None, described] += 1
        lost = {callback for _, _, callback in groups}
        for (fd, mask), times in (self._iteration_sample.ready or self._ready).items():
            for source, handle in self._callbacks.registered(fd, mask):
                if (described := self._callbacks.describe(handle)) is not None:
                    groups[source, fd, described] += times
        queued = Counter(self._seen)
        queued.update(self._iteration_sample.queued)
        of_files = Counter(callback for _, _, callback in groups)  # the queue has them because their file was ready
        for described, total in queued.items():
            count = math.ceil(total / (self._samples + self._iteration_sample.iterations))
            if described not in lost and count > of_files[described]:
                groups["ready", None, described] = count
        named = {callback.function for _, _, callback in groups}
        for described, times in self._ran.items():
            if described.function not in named:
                groups["running", None, described] = times
        return groups

    def _group(self, source: str, fd: int | None, callback: Callback, count: int, places: Places) -> CallbackGroup:
        session = callback.session
        return CallbackGroup(
            source=source,
            function=callback.function,
            location=places.location(callback.call) if callback.call is not None else None,
            session_id=session.session_id if session is not None else None,
            agent_name=session.agent_name if session is not None else None,
            tenant=session.tenant if session is not None else None,
            fd=fd,
            peer=callback.peer,
            thread=self._adders.get(callback.function) or None,
            count=count,
        )


def _rate(before: int | None, now: int | None, seconds: float) -> float | None:
    return (now - before) / seconds if before is not None and now is not None and seconds > 0.0 else None
