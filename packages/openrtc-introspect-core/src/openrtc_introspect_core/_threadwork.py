"""Sessions' work in threads: what `asyncio.to_thread` and `run_in_executor` do for them.

Such work holds no loop, and competes with it for the GIL all the same. `run_in_executor` of the
loop's instance wraps what it is given for a pool of threads, if a session is bound: the call's CPU
time is then booked to it, and what it allocated. Calls that go to threads in other ways (anyio's
to_thread, threads of one's own, pools of processes) are not seen.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from inspect import iscoroutinefunction
from types import MethodType
from typing import Any, NamedTuple

from ._clock import Clock
from ._gil import copied
from ._ledger import Ledger
from ._replaced import Replaced
from ._sessions import Session

COMPETES = 0.25
"""A session whose calls have used this share of a span as CPU time has kept the GIL busy. Not more, since on a
crowded machine a thread that has the GIL waits for a processor like any other."""

RIVALS = 0.5
"""Where another session's calls have used this share of what the first one's did, it is not one's alone."""


class Done(NamedTuple):
    """A call that has ended."""

    session: Session
    start: float
    end: float
    cpu_s: float


class HeapMark(NamedTuple):
    """Bytes in use, and what of them is booked, when a call begins or ends."""

    in_use: int
    """Without what calls in threads were booked."""
    booked: int
    """To steps."""
    pending: int
    """By the step under way, so far."""
    exact_since: float
    """Since when every step is booked."""


def _heap_mark(ledger: Ledger) -> HeapMark | None:
    """Where the books stand. None: memory is not measured, or not in every step, and what is not booked is anyone's."""
    in_use = ledger.in_use
    if in_use is None or not in_use.exact:
        return None
    now = in_use.raw() - ledger.heap_elsewhere  # the account is the loop's thread's
    pending = 0 if ledger.running in (None, ledger.quiet) else now - ledger.heap_at
    return HeapMark(now, ledger.heap_booked, pending, in_use.exact_since)


def _allocated(before: HeapMark | None, after: HeapMark | None) -> int:
    """What the bytes in use rose by, less what was booked to steps and other calls meanwhile."""
    if before is None or after is None or before.exact_since != after.exact_since:
        return 0
    change = after.in_use - before.in_use
    if after.booked != before.booked:  # the step that the call began in is over: that had a part before it
        change -= after.booked - before.booked - before.pending
    return change


class Call:
    """One call in a thread, for a session. Called there, once."""

    __slots__ = ("_func", "_work", "began_cpu", "cpu_clock", "heap", "ledger", "session", "start")

    def __init__(self, func: Callable[..., Any], session: Session, ledger: Ledger, work: ThreadWork) -> None:
        self._func = func
        self._work = work
        self.session = session
        self.ledger = ledger
        """Of the loop that it was called from."""
        self.start = 0.0
        """Clock reading at its beginning."""
        self.began_cpu = 0.0
        """CPU seconds that its thread had used by then."""
        self.cpu_clock: int | None = None
        """Its thread's, which can be read from others even once the thread is gone. None: there is none here."""
        self.heap: HeapMark | None = None

    def __call__(self, *args: Any) -> Any:
        self._work.begin(self)
        try:
            return self._func(*args)
        except BaseException as error:
            error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # this frame is not theirs
            raise
        finally:
            self._work.end(self)  # like `begin`, it raises no Exception

    def cpu_s_seen(self) -> float:
        """CPU seconds so far, from another thread; 0 where the platform has no clock of another thread."""
        if self.cpu_clock is not None:
            with suppress(OSError):
                return max(0.0, time.clock_gettime(self.cpu_clock) - self.began_cpu)
        return 0.0


class ThreadWork:
    """The calls in threads that sessions make, from whatever loop."""

    def __init__(
        self, clock: Clock, on_fault: Callable[[str, BaseException], None] = lambda problem, error: None
    ) -> None:
        self._clock = clock
        self._on_fault = on_fault
        self._on = True
        self._lock = threading.Lock()
        self._running: set[Call] = set()
        self._recent: deque[Done] = deque(maxlen=64)

    def wrap(self, loop: Any, ledger: Ledger) -> Callable[[], None] | None:
        """Sees the calls of `loop` from now on. Returns what undoes it; None: this loop does not let us."""
        if getattr(loop, "run_in_executor", None) is None:
            return None
        bound = ledger.binding.get
        wrapped = True

        def seeing_calls(before: Callable[..., Any] | None) -> Callable[..., Any]:
            def run_in_executor(loop: Any, executor: Executor | None, func: Callable[..., Any], *args: Any) -> Any:
                try:
                    session = bound(None)
                    if session is not None and wrapped and self._on and _can_wrap(executor, func):
                        func = Call(func, session, ledger, self)
                except Exception as error:
                    self._failed(error)
                run = before or MethodType(type(loop).run_in_executor, loop)
                return run(executor, func, *args)

            return run_in_executor

        def unwrap() -> None:
            nonlocal wrapped
            wrapped = False
            replaced.put_back()

        try:
            replaced = Replaced(loop, "run_in_executor", seeing_calls)
        except AttributeError:  # a loop that is all C
            return None
        return unwrap

    # --- on the thread of the call ---------------------------------------------------------------

    def begin(self, call: Call) -> None:
        try:
            call.start = self._clock()
            with suppress(AttributeError, OSError):  # not on macOS
                call.cpu_clock = time.pthread_getcpuclockid(threading.get_ident())
            call.began_cpu = time.thread_time()
            with self._lock:
                call.heap = _heap_mark(call.ledger)
                self._running.add(call)
        except Exception as error:
            self._failed(error)

    def end(self, call: Call) -> None:
        try:
            cpu_s = time.thread_time() - call.began_cpu
            with self._lock:
                if call not in self._running:  # its beginning has failed
                    return
                self._running.discard(call)
                heap = _allocated(call.heap, _heap_mark(call.ledger))
                call.ledger.heap_elsewhere += heap
            call.session.has_computed(cpu_s, heap)
            self._recent.append(Done(call.session, call.start, self._clock(), cpu_s))
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._on = False
        with suppress(Exception):
            self._on_fault(f"calls in threads are not seen any more: {error!r}", error)

    # --- from any thread -------------------------------------------------------------------------

    def under_way(self) -> dict[Session, float]:
        """CPU seconds that the calls under way have used, by session."""
        used: dict[Session, float] = {}
        for call in self._calls_under_way():
            used[call.session] = used.get(call.session, 0.0) + call.cpu_s_seen()
        return used

    def culprit(self, start: float, end: float) -> Session | None:
        """The session whose calls kept the GIL busy in this span. None: none did, or not one alone.

        A call's CPU time is taken to be spread evenly over its duration.
        """
        calls = [Done(call.session, call.start, end, call.cpu_s_seen()) for call in self._calls_under_way()]
        used: dict[Session, float] = {}
        for call in (*calls, *copied(self._recent)):
            inside = min(call.end, end) - max(call.start, start)
            if inside > 0.0:
                part = call.cpu_s * min(1.0, inside / max(call.end - call.start, 1e-9))
                used[call.session] = used.get(call.session, 0.0) + part
        by_use = sorted(used, key=used.__getitem__, reverse=True)
        if not by_use or used[by_use[0]] < COMPETES * (end - start):
            return None
        if len(by_use) > 1 and used[by_use[1]] > RIVALS * used[by_use[0]]:
            return None
        return by_use[0]

    def _calls_under_way(self) -> list[Call]:
        with self._lock:
            return list(self._running)


def _can_wrap(executor: Executor | None, func: Callable[..., Any]) -> bool:
    in_threads = executor is None or isinstance(executor, ThreadPoolExecutor)
    # What is no function to call is refused by the loop itself, in words of its own.
    return in_threads and not iscoroutinefunction(func)
