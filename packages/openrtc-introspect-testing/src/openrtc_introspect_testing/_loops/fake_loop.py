"""An asyncio event loop on a virtual clock.

Waiting takes no time, and the order is always the same.

A loop asks its selector to wait until its next timer is due. The selector of a FakeLoop polls once for real I/O; if
none is ready, it moves the clock on to that timer, so hours pass in milliseconds.

- The order is asyncio's own, with nothing left to chance: ready callbacks run in the order in which they became ready,
  timers by the time they are due, and timers due at one moment in the order they were set.
- Real work takes no virtual time. While a thread that the loop has started works, the clock stands still, and the loop
  waits for the thread in real time; working_threads.py says when a thread works.
- If nothing can ever happen again, tasks wait for each other: the loop raises an error at once.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import math
import selectors
import time
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context
from itertools import count
from typing import Any, TypeVar

from . import working_threads
from .fake_clock import FakeClock
from .places import where_task_waits, where_thread_is

Result = TypeVar("Result")

_REAL_POLL_S = 0.01
"""Real seconds that one poll waits for real I/O."""

_MAX_SHOWN = 20
"""Tasks that an error lists, at most."""


class DeadlockError(RuntimeError):
    """The tasks of a FakeLoop wait for each other.

    Nothing is scheduled, nothing is ready, and no thread works.
    """


class FakeLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time()` is virtual.

    Start it by `FakeLoop.run(main())`, or by `asyncio.Runner(loop_factory=FakeLoop)`.

    `loop.clock` is its clock; `Introspector(clock=loop.clock)` measures in its time.

    real_wait_s: real seconds, more than 0, to wait for a thread or for I/O without anything happening.

    `run_forever`, and each method that calls it, raises DeadlockError if all tasks wait for each other, and
    TimeoutError if a thread or I/O has not come within `real_wait_s`. Both list which task or thread waits where.
    """

    def __init__(self, *, real_wait_s: float = 10.0) -> None:
        self.clock = FakeClock()
        self.real_wait_s = real_wait_s
        self._calls = working_threads.ExecutorCalls()
        self._holds = 0
        self._timers = count()
        super().__init__(_VirtualSelector(self))
        if not real_wait_s > 0:
            self.close()
            raise ValueError(f"real_wait_s must be more than 0 seconds, got {real_wait_s!r}")

    @classmethod
    def run(cls, main: Coroutine[Any, Any, Result]) -> Result:
        """Run `main` on a new FakeLoop.

        `asyncio.run(main, loop_factory=FakeLoop)` does the same on Python 3.12 and newer.
        """
        with asyncio.Runner(loop_factory=cls) as runner:
            return runner.run(main)

    def time(self) -> float:
        return self.clock()

    def block(self, seconds: float) -> None:
        """Hold the loop for `seconds` of virtual time, as a blocking call would.

        seconds: 0 or more.

        Raises ValueError for fewer seconds, and RuntimeError in another thread than the loop's.
        """
        if self.is_running() and asyncio._get_running_loop() is not self:
            raise RuntimeError("block() holds the loop: call it in the loop's own thread")
        self.clock.advance(seconds)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Stop the clock inside the `with` block.

        It is for real work that the loop has not started itself.

        Examples are a socket, a subprocess, or a thread of the test's own that will call `call_soon_threadsafe`.
        """
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1

    # --- methods that asyncio calls --------------------------------------------------------------

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = super().call_at(_When(when, next(self._timers)), callback, *args, context=context)
        if stack := getattr(timer, "_source_traceback", None):
            del stack[-1]  # in debug mode a timer remembers who set it: the caller of this method
        return timer

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        if executor is None:
            executor = self._own_executor()
        through: Any = self._calls.through(executor)
        future: asyncio.Future[Any] = super().run_in_executor(through, func, *args)
        self._calls.follow_last()
        return future

    def _own_executor(self) -> Any:
        inherited: Any = self
        if inherited._default_executor is None:
            self.set_default_executor(concurrent.futures.ThreadPoolExecutor(thread_name_prefix="asyncio"))
        inherited._check_default_executor()
        return inherited._default_executor

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        with self.hold():
            await super().shutdown_default_executor(*args, **kwargs)

    @property
    def _clock_resolution(self) -> float:
        """The seconds within which a timer is due.

        Late in time, floats are further apart than a nanosecond.
        """
        return max(1e-9, math.ulp(self.clock()))

    @_clock_resolution.setter
    def _clock_resolution(self, value: float) -> None:
        """Ignore the real clock's resolution, which the base class sets."""

    # --- for the selector ------------------------------------------------------------------------

    def _next_due(self) -> float | None:
        """Return when the next timer is due; None if none ever is."""
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return timers[0].when() if timers and timers[0].when() < math.inf else None

    def _deadlock(self) -> DeadlockError:
        waiting = sorted(asyncio.all_tasks(self), key=lambda task: (len(task.get_name()), task.get_name()))
        listed = [f"  {task.get_name()} at {where_task_waits(task)}" for task in waiting[:_MAX_SHOWN]]
        if len(waiting) > _MAX_SHOWN:
            listed.append(f"  and {len(waiting) - _MAX_SHOWN} more")
        who = f"{len(waiting)} task{'s wait' if len(waiting) != 1 else ' waits'} forever"
        return DeadlockError("\n".join([f"nothing is scheduled and no thread works: {who}", *listed]))

    def _too_late(self) -> TimeoutError:
        text = f"nothing real happened for {self.real_wait_s:g} s, and the clock stands still meanwhile"
        threads = [f"  {each.name} at {where_thread_is(each)}" for each in self._calls.threads_of(self)]
        if not threads:
            return TimeoutError(f"{text}: a socket, a subprocess or a thread of one's own was waited for")
        return TimeoutError("\n".join([f"{text}: it waits for", *threads]))


class _When(float):
    """The time at which a timer is due: of two equal ones, the one set first is less."""

    order: int

    def __new__(cls, when: float, order: int) -> _When:
        self = super().__new__(cls, when)
        self.order = order
        return self

    def __lt__(self, other: float) -> bool:
        if isinstance(other, _When) and float.__eq__(self, other):
            return self.order < other.order
        return float(self) < other


class _VirtualSelector(selectors.DefaultSelector):
    """A selector that never waits for virtual time.

    It waits for real I/O a moment at a time.
    """

    def __init__(self, loop: FakeLoop) -> None:
        super().__init__()
        self._loop = loop
        self._waiting_since: float | None = None

    def select(self, timeout: float | None = None) -> Any:
        loop = self._loop
        # Before the poll: what a thread has handed over, if it stopped working just now, is then found by the poll.
        held = loop._holds > 0 or any(not working_threads.is_parked(thread) for thread in loop._calls.threads_of(loop))
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            self._waiting_since = None
            return ready
        due = loop._next_due()
        if not held and due is not None:
            now = loop.time()
            loop.clock.advance_to(due if timeout is None or due - now <= timeout else now + timeout)
            self._waiting_since = None
            return []
        only_ours = len(self.get_map()) == 1  # the loop's own wake-up pipe
        if not held and only_ours and all(map(working_threads.is_parked, working_threads.other_threads())):
            raise loop._deadlock()
        return self._wait()

    def _wait(self) -> Any:
        """Wait a moment of real time.

        The loop selects again, so that its waits never seem too long.
        """
        now = time.monotonic()
        if self._waiting_since is None:
            self._waiting_since = now
        elif now - self._waiting_since > self._loop.real_wait_s:
            self._waiting_since = None
            raise self._loop._too_late()
        return super().select(_REAL_POLL_S)
