"""An asyncio event loop on a virtual clock: waiting takes no time, and the order is always the same.

A loop asks its selector to wait until its next timer is due. This one's selector looks once whether
anything real is ready, and else moves the clock on to that timer, so hours pass in milliseconds.

- The order is asyncio's own, with nothing left to chance: what is ready runs in the order in which
  it became so, timers by when they are due, and those due at one moment in the order they were set.
- What is real takes no virtual time. While a thread that the loop has started works, the clock
  stands still, and the loop waits for it in real time; see _threads.py for when a thread works.
- Where nothing can ever happen any more, tasks wait for each other: that is an error, at once.
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

from . import _threads
from ._clock import FakeClock
from ._places import where_task_waits, where_thread_is

Result = TypeVar("Result")

_LOOK_S = 0.01
"""Real seconds that one look for something real waits for it."""

_SHOWN = 20
"""Tasks that an error lists."""


class DeadlockError(RuntimeError):
    """Nothing is scheduled, nothing is ready and no thread works: the tasks of a FakeLoop wait for each other."""


class FakeLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time()` is virtual: `asyncio.Runner(loop_factory=FakeLoop)`, or `FakeLoop.run(main())`.

    `loop.clock` is its clock; `Introspector(clock=loop.clock)` measures in its time.

    real_wait_s: real seconds, more than 0, to wait for a thread or for I/O without anything happening.

    Raises, out of `run_forever` and what calls it, DeadlockError where all tasks wait for each other,
    and TimeoutError where what is real has not come within `real_wait_s`. Both list who waits where.
    """

    def __init__(self, *, real_wait_s: float = 10.0) -> None:
        self.clock = FakeClock()
        self.real_wait_s = real_wait_s
        self._calls = _threads.Calls()
        self._holds = 0
        self._timers = count()
        super().__init__(_VirtualSelector(self))
        if not real_wait_s > 0:
            self.close()
            raise ValueError(f"real_wait_s must be more than 0 seconds, got {real_wait_s!r}")

    @classmethod
    def run(cls, main: Coroutine[Any, Any, Result]) -> Result:
        """What `asyncio.run(main, loop_factory=FakeLoop)` does on Python 3.12 and newer."""
        with asyncio.Runner(loop_factory=cls) as runner:
            return runner.run(main)

    def time(self) -> float:
        return self.clock()

    def block(self, seconds: float) -> None:
        """Holds the loop for `seconds` of virtual time, 0 or more, as a blocking call would.

        Raises ValueError for less, and RuntimeError in another thread than the loop's.
        """
        if self.is_running() and asyncio._get_running_loop() is not self:
            raise RuntimeError("block() holds the loop: call it in the loop's own thread")
        self.clock.advance(seconds)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Inside, the clock stands still, for what is real and not a thread that the loop has started.

        Such as a socket, a subprocess, or a thread of one's own that will call `call_soon_threadsafe`.
        """
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1

    # --- what asyncio asks of a loop -------------------------------------------------------------

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = super().call_at(_When(when, next(self._timers)), callback, *args, context=context)
        if stack := getattr(timer, "_source_traceback", None):
            del stack[-1]  # in debug mode a timer remembers where it was set: not here
        return timer

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        if executor is None:
            executor = self._threads_for_calls()
        through: Any = self._calls.through(executor)
        future: asyncio.Future[Any] = super().run_in_executor(through, func, *args)
        self._calls.follow_last()
        return future

    def _threads_for_calls(self) -> Any:
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
        """A timer that is less than this ahead is due. Late in time, floats are further apart than a nanosecond."""
        return max(1e-9, math.ulp(self.clock()))

    @_clock_resolution.setter
    def _clock_resolution(self, value: float) -> None:
        """The base class sets it to that of the real clock."""

    # --- what the selector asks ------------------------------------------------------------------

    def _next_due(self) -> float | None:
        """When the next timer is due. None where there is none, or only those that never are."""
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return timers[0].when() if timers and timers[0].when() < math.inf else None

    def _deadlock(self) -> DeadlockError:
        waiting = sorted(asyncio.all_tasks(self), key=lambda task: (len(task.get_name()), task.get_name()))
        listed = [f"  {task.get_name()} at {where_task_waits(task)}" for task in waiting[:_SHOWN]]
        if len(waiting) > _SHOWN:
            listed.append(f"  and {len(waiting) - _SHOWN} more")
        who = f"{len(waiting)} task{'s wait' if len(waiting) != 1 else ' waits'} forever"
        return DeadlockError("\n".join([f"nothing is scheduled and no thread works: {who}", *listed]))

    def _too_late(self) -> TimeoutError:
        told = f"nothing real happened for {self.real_wait_s:g} s, and the clock stands still meanwhile"
        threads = [f"  {each.name} at {where_thread_is(each)}" for each in self._calls.at_work(self)]
        if not threads:
            return TimeoutError(f"{told}: a socket, a subprocess or a thread of one's own was waited for")
        return TimeoutError("\n".join([f"{told}: it waits for", *threads]))


class _When(float):
    """When a timer is due: of two due at one moment, the one set first is less."""

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
    """Waits for nothing virtual, and for what is real a moment at a time."""

    def __init__(self, loop: FakeLoop) -> None:
        super().__init__()
        self._loop = loop
        self._waits_since: float | None = None

    def select(self, timeout: float | None = None) -> Any:
        loop = self._loop
        # Asked before looking: what a thread that works no more has handed over is there to be found.
        held = loop._holds > 0 or any(not _threads.stands(thread) for thread in loop._calls.at_work(loop))
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            self._waits_since = None
            return ready
        due = loop._next_due()
        if not held and due is not None:
            now = loop.time()
            loop.clock.advance_to(due if timeout is None or due - now <= timeout else now + timeout)
            self._waits_since = None
            return []
        only_ours = len(self.get_map()) == 1  # the loop's own wake-up pipe
        if not held and only_ours and all(_threads.stands(thread) for thread in _threads.others()):
            raise loop._deadlock()
        return self._wait()

    def _wait(self) -> Any:
        """A moment of real time. The loop asks again, so that its waits never seem longer than they should be."""
        now = time.monotonic()
        if self._waits_since is None:
            self._waits_since = now
        elif now - self._waits_since > self._loop.real_wait_s:
            self._waits_since = None
            raise self._loop._too_late()
        return super().select(_LOOK_S)
