"""Sessions' work in threads: what `asyncio.to_thread` and `run_in_executor` do for them.

Such work holds no loop, and competes with it for the GIL all the same. `run_in_executor` of the
loop's instance wraps what it is given for a pool of threads, if a session is bound: the call's CPU
time is then booked to it, and what it allocated. Calls that go to threads in other ways (anyio's
to_thread, threads of one's own, pools of processes) are not seen.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from inspect import iscoroutinefunction
from typing import Any, NamedTuple

from ._ledger import Ledger
from ._meter import without_our_frame
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


class Call:
    """One call in a thread, for a session. Called there, once."""

    __slots__ = ("_func", "_work", "began_cpu", "heap", "ident", "session", "start")

    def __init__(self, func: Callable[..., Any], session: Session, work: ThreadWork) -> None:
        self._func = func
        self._work = work
        self.session = session
        self.start = 0.0
        """Clock reading at its beginning."""
        self.began_cpu = 0.0
        """CPU seconds that its thread had used by then."""
        self.ident = 0
        """The thread's."""
        self.heap: HeapMark | None = None

    def __call__(self, *args: Any) -> Any:
        self._work.begin(self)
        try:
            return self._func(*args)
        except BaseException as error:
            without_our_frame(error)
            raise
        finally:
            self._work.end(self)

    def cpu_s_seen(self) -> float:
        """CPU seconds so far, from another thread; 0 where the platform has no clock of another thread."""
        with suppress(AttributeError, OSError):
            used: float = time.clock_gettime(time.pthread_getcpuclockid(self.ident)) - self.began_cpu
            return max(0.0, used)
        return 0.0


class ThreadWork:
    """The calls in threads that one loop's sessions make."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ledger: Ledger) -> None:
        self._loop = loop
        self._ledger = ledger
        self._lock = threading.Lock()
        self._running: set[Call] = set()
        self._recent: deque[Done] = deque(maxlen=64)
        self._wrapper: Callable[..., Any] | None = None

    def attach(self) -> None:
        original = self._loop.run_in_executor
        bound = self._ledger.binding.get

        def run_in_executor(executor: Executor | None, func: Callable[..., Any], *args: Any) -> Any:
            session = bound(None)
            if session is not None and self._can_wrap(executor, func):
                func = Call(func, session, self)
            return original(executor, func, *args)

        with suppress(AttributeError):  # a loop that is all C: there such work is not seen
            self._loop.run_in_executor = run_in_executor  # type: ignore[assignment]
            self._wrapper = run_in_executor

    def detach(self) -> None:
        """Calls under way are booked to their end."""
        if self._wrapper is not None and vars(self._loop).get("run_in_executor") is self._wrapper:
            del self._loop.run_in_executor
        self._wrapper = None

    @property
    def known(self) -> bool:
        """Whether this loop tells of calls in threads."""
        return self._wrapper is not None

    def _can_wrap(self, executor: Executor | None, func: Callable[..., Any]) -> bool:
        in_threads = executor is None or isinstance(executor, ThreadPoolExecutor)
        # What is no function to call is refused by the loop itself, in words of its own.
        return self._wrapper is not None and in_threads and not iscoroutinefunction(func)

    # --- on the thread of the call ---------------------------------------------------------------

    def begin(self, call: Call) -> None:
        call.start = self._ledger.clock()
        call.ident = threading.get_ident()
        call.began_cpu = time.thread_time()
        with self._lock:
            call.heap = self._heap_mark()
            self._running.add(call)

    def end(self, call: Call) -> None:
        cpu_s = time.thread_time() - call.began_cpu
        with self._lock:
            self._running.discard(call)
            call.session.thread_cpu += cpu_s
            self._book_heap(call)
        self._recent.append(Done(call.session, call.start, self._ledger.clock(), cpu_s))

    def _heap_mark(self) -> HeapMark | None:
        """Where the books stand. None: memory is not measured."""
        ledger = self._ledger
        in_use = ledger.in_use
        if in_use is None:
            return None
        now = in_use() - ledger.heap_elsewhere
        pending = 0 if ledger.running in (None, ledger.quiet) else now - ledger.heap_at
        return HeapMark(now, ledger.heap_booked, pending)

    def _book_heap(self, call: Call) -> None:
        """What the bytes in use rose by, less what was booked to steps and other calls meanwhile, is the call's."""
        before, after = call.heap, self._heap_mark()
        if before is None or after is None:
            return
        change = after.in_use - before.in_use
        if after.booked != before.booked:  # the step that it began in is over: that had a part before the call
            change -= after.booked - before.booked - before.pending
        call.session.thread_heap += change
        self._ledger.heap_elsewhere += change

    # --- from any thread -------------------------------------------------------------------------

    def under_way(self) -> dict[Session, float]:
        """CPU seconds that the calls under way have used, by session."""
        used: dict[Session, float] = {}
        with self._lock:
            running = list(self._running)
        for call in running:
            used[call.session] = used.get(call.session, 0.0) + call.cpu_s_seen()
        return used

    def culprit(self, start: float, end: float) -> Session | None:
        """The session whose calls kept the GIL busy in this span. None: none did, or not one alone.

        A call's CPU time is taken to be spread evenly over its duration.
        """
        with self._lock:
            running = list(self._running)
        calls = [Done(call.session, call.start, end, call.cpu_s_seen()) for call in running]
        used: dict[Session, float] = {}
        for call in (*calls, *list(self._recent)):
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
