"""The sampler of waits: what each session's tasks wait for, looked at about once a second.

A round of samples goes over all tasks, in slices between which other threads get the GIL. It looks only into tasks of
sessions that have stepped since they were last looked at: what the others wait for has not changed. Rounds come at
random moments, so that no rhythm of the host distorts their sum. They have a budget: in a worker of very many tasks a
round is made in portions, and takes many seconds.
"""

from __future__ import annotations

import math
import random
import struct
import time
from collections.abc import Iterator, Sequence

from msgspec import Struct

from .._base.clock import Clock, perf_counter
from .._base.gil import has_gil, yield_gil
from .._diagnosis.wait_kind import WAIT_KINDS
from .._loops.hook import LoopHook
from .._sessions.registry import SessionRegistry
from .._sessions.session import Session
from .._sessions.waited_time import WaitedTime
from .task_wait import wait_of

INTERVAL_S = 1.0
"""Seconds between two rounds, on average."""
MAX_SHARE = 0.002
"""The share of a core that rounds may take."""
PORTION_S = 0.002
"""CPU seconds after which a round is interrupted: the rest follows at the next tick, if the budget allows it."""
BURST_S = 0.5
"""The CPU seconds of a budget not used so far that may be spent at once: on 50,000 tasks, say, when all sessions have
begun to wait."""
TOLERANCE_S = 0.02
"""A round that is a little early is better than one that is late by a tick."""
CALM_S = 1.0
"""Seconds without a step from which on a session's row shows what it waits for."""
MAX_BUSY = 5
"""Samples in a row that find a session busy, after which its row shows no wait any more."""

MAX_TASKS = 64
"""The most tasks of a session that a sample has: those that stepped last."""

_SESSIONS_PER_PAUSE = 512
_SEEN_PER_PAUSE = 100
_LOOK = 5
"""The cost of a look into a task, in tasks that are passed over."""
_WORK_PER_PAUSE = 200

NAMES = tuple(WAIT_KINDS)
"""The names of kinds by number."""
_NUMBERS = {name: number for number, name in enumerate(NAMES)}
_UNKNOWN = _NUMBERS["unknown"]
_PASSING = bytes([_NUMBERS["executor"], _NUMBERS["ready"]])
"""The kinds of waits that end without a step: a queued call begins to run, a ready task is reached."""


_WAIT = struct.Struct("=dB")
"""The clock reading of a task's last step (-inf: it is not known), and the number of the kind of what it waits for."""


# gc=False: ten thousand of them would set off collections of the host's whole heap.
class Sample(Struct, gc=False, eq=False):
    """What is seen of one session in a round."""

    steps: int
    last_step: float
    """Both before its tasks are looked at."""
    waits: bytes = b""
    """A `_WAIT` for each task that waits."""

    def add(self, since: float | None, kind: str) -> None:
        """Add a task that waits for this kind of thing. since: clock reading of its last step. None: not known."""
        self.waits += _WAIT.pack(since if since is not None else -math.inf, _NUMBERS.get(kind, _UNKNOWN))

    def kinds(self) -> bytes:
        """Return the number of each task's kind; first that of the task that stepped last."""
        latest_first = sorted(_WAIT.iter_unpack(self.waits), key=lambda wait: wait[0], reverse=True)
        return bytes(kind for _, kind in latest_first[:MAX_TASKS])


Samples = dict[Session, Sample]


class WaitSampler:
    """The sampler of one introspector. The service thread calls `sample`."""

    def __init__(self, sessions: SessionRegistry, clock: Clock) -> None:
        self._sessions = sessions
        self._clock = clock
        real = clock is perf_counter
        self._cpu_clock: Clock = (
            time.thread_time if real else clock
        )  # a clock of the caller's own stands still meanwhile
        self._random = random.Random().random if real else lambda: 0.5
        self._credit_s = BURST_S
        """CPU seconds that may be spent."""
        self._credited_at = clock()
        self._under_way: Iterator[None] | None = None
        """The round that goes on when `sample` is called next. None: the last one is complete."""
        self.due = clock()
        """Clock reading at which `sample` has something to do."""
        self.passed = clock()
        """Clock reading at the beginning of the last round that is complete."""
        self._began = self.passed
        """Clock reading at the beginning of the round under way."""

    def sample(self, hooks: Sequence[LoopHook]) -> None:
        """Begin a round of samples, or go on with it, if that is due.

        hooks: those of all loops, whose steps are timed.
        """
        now = self._clock()
        if now < self.due - TOLERANCE_S:
            return
        if not has_gil():  # coroutines may go on while they are looked into
            self.due = now + INTERVAL_S
            return
        began = self._cpu_clock()
        if self._under_way is None:
            self._under_way, self._began = self._round(now, hooks), now
        for _ in self._under_way:
            if self._cpu_clock() - began >= PORTION_S:
                interval_s = 0.0
                break
            yield_gil()
        else:
            self._under_way = None
            self.passed = self._began
            interval_s = (0.5 + self._random()) * INTERVAL_S
        self.due = now + max(interval_s, self._spend(self._cpu_clock() - began, now))

    def _spend(self, cpu_s: float, now: float) -> float:
        """Return the seconds until the budget allows more, if so many CPU seconds have been spent now."""
        earned_s = (now - self._credited_at) * MAX_SHARE
        self._credit_s = min(BURST_S, self._credit_s + earned_s) - cpu_s
        self._credited_at = now
        return max(0.0, -self._credit_s / MAX_SHARE)

    def stop(self) -> None:
        """Make no more rounds. No row says any longer what its session waits for."""
        self._under_way = None
        self.due = float("inf")
        for session in list(self._sessions.live.values()):
            session.show_wait(None)

    def _round(self, now: float, hooks: Sequence[LoopHook]) -> Iterator[None]:
        """Make a round. Yield where the GIL may be given away."""
        all_timed = all(hook.ledger.sampling.period == 1 for hook in hooks)
        samples: Samples = {}
        yield from self._find_changed(samples, now)
        if samples:
            for hook in hooks:
                yield from _look(samples, hook)
        now = self._clock()
        in_progress = {reading.holder: reading.busy for reading in (hook.ledger.read() for hook in hooks)}
        for number, (session, sample) in enumerate(samples.items(), start=1):
            if number % _SEEN_PER_PAUSE == 0:
                yield
            waited, kinds = session.waited, sample.kinds()
            if waited is None:
                waited = session.waited = WaitedTime(session.started)
            if not kinds and session.tasks:  # they ran
                waited.missed()
                continue
            busy = sum(in_progress.get(account, account.busy) for account in session.accounts)
            waited.see(
                kinds,
                now,
                now - session.started - busy - session.delayed,
                steps=sample.steps,
                last_step=sample.last_step,
                passed=self.passed,
                final=all_timed and not any(kind in _PASSING for kind in kinds),
            )
            _show(session, waited, now - sample.last_step)

    def _find_changed(self, samples: Samples, now: float) -> Iterator[None]:
        """Find the sessions to look at, which are those that have stepped since the last time.

        All is done in one function, since a worker may have ten thousand sessions.
        """
        for number, session in enumerate(list(self._sessions.live.values()), start=1):
            if number % _SESSIONS_PER_PAUSE == 0:
                yield
            if len(session.accounts) == 1:
                account = session.accounts[0]
                steps, last_step = account.steps, account.last_step
            else:
                steps, last_step = session.steps, session.last_step
            waited = session.waited
            if waited is None or not waited.holds(steps, last_step):
                samples[session] = Sample(steps, last_step)
            elif waited.kinds and session.waits is not (name := NAMES[waited.kinds[0]]) and now - last_step >= CALM_S:
                session.show_wait(name)


def _look(samples: Samples, hook: LoopHook) -> Iterator[None]:
    """Find what the tasks of these sessions wait for on one loop. Where it yields, it holds no task."""
    work = 0
    for living in hook.live_tasks():
        work += 1
        if (task := living()) is not None:
            suspended = hook.suspended_task(task)
            session = suspended.session if suspended is not None else None
            if suspended is not None and session is not None and (sample := samples.get(session)) is not None:
                sample.add(suspended.since, wait_of(suspended).kind)
                work += _LOOK
            del task, suspended
        if work >= _WORK_PER_PAUSE:
            work = 0
            yield


def _show(session: Session, waited: WaitedTime, idle_s: float) -> None:
    """Have the row of a session that was just looked at show what it waits for, if it is calm."""
    if idle_s >= CALM_S:
        waited.count_busy(False)
        session.show_wait(NAMES[waited.kinds[0]] if waited.kinds else None)
    elif waited.count_busy(True) >= MAX_BUSY:
        session.show_wait(None)
