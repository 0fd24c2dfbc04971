"""Sessions' calls in threads: by `to_thread`, `run_in_executor`, anyio and Trio.

Such a call holds no loop, but competes with it for the GIL. Where a loop hands a call to a thread while a session is
bound, the call is wrapped (`_loops/executor_calls`, `_loops/anyio_threads`, `_loops/trio_threads`): it is known from
the moment at which it is handed over, and the session is charged with its CPU time and with what it allocated.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import CoroutineType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

from .._base.clock import Clock
from .._base.gil import copied
from .account import Owner
from .call_heap import HeapMark, allocated, heap_mark
from .called_function import name_of
from .ledger import Ledger
from .thread_pools import ThreadPool, ThreadPools

COMPETES = 0.25
"""A session whose calls have used this share of a span as CPU time has kept the GIL busy. The share is no larger,
because on a crowded machine a thread that has the GIL waits for a processor like any other."""

RIVALS = 0.5
"""If the calls of a second session have used this share of the first one's CPU time, no single one is the culprit."""


class Done(NamedTuple):
    """A call that has ended. Clock readings."""

    session: Owner
    start: float
    end: float
    cpu_s: float
    thread_id: int = 0
    function: str = ""
    """The qualified name of the function that was called."""


class Unbound(NamedTuple):
    """A call without a session, which is handed on as it is."""

    func: Callable[..., Any]
    pool: ThreadPool
    submitted: float
    """Clock reading at which it was handed over."""


class ThreadCall:
    """One call in a thread, for a session. The thread calls it, once."""

    __slots__ = (
        "__weakref__", "_calls", "_func", "awaited", "began_cpu", "cpu_clock", "heap", "ledger", "pool", "session",
        "start", "submitted", "thread_id",
    )  # fmt: skip

    def __init__(
        self,
        func: Callable[..., Any],
        session: Owner,
        ledger: Ledger,
        calls: ThreadCalls,
        pool: ThreadPool | None = None,
    ) -> None:
        self._func = func
        self._calls = calls
        self.session = session
        self.ledger = ledger
        """The ledger of the loop that the call was made from."""
        self.pool = pool
        """The pool that it was handed to. None: not known."""
        self.submitted = 0.0
        """Clock reading at which it was handed over."""
        self.awaited: ref[Any] | None = None
        """What the caller waits for: asyncio's future, or the coroutine of anyio's function. None: not known."""
        self.start = 0.0
        """Clock reading at its beginning."""
        self.thread_id = 0
        """The thread that it runs in. 0: none so far."""
        self.began_cpu = 0.0
        """CPU seconds that its thread had used by then."""
        self.cpu_clock: int | None = None
        """The CPU clock of its thread, which other threads can read even after its end. None: the platform has none."""
        self.heap: HeapMark | None = None
        """The bytes in use at its beginning."""

    @property
    def function(self) -> str:
        """Return the qualified name of the function that is called."""
        return name_of(self._func)

    def __call__(self, *args: Any) -> Any:
        self._calls.begin(self)
        try:
            return self._func(*args)
        except BaseException as error:
            error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # this frame is ours
            raise
        finally:
            self._calls.end(self)  # like `begin`, it raises no Exception

    def is_given_up(self) -> bool:
        """Return whether nobody waits for it any more. From any thread."""
        if self.awaited is None:
            return False
        awaited = self.awaited()
        if type(awaited) is CoroutineType:
            return awaited.cr_frame is None  # it has ended
        return awaited is None or bool(awaited.cancelled())

    def cpu_s_seen(self) -> float:
        """Return its CPU seconds so far. From another thread.

        0 on platforms without a clock of another thread.
        """
        if self.cpu_clock is not None:
            with suppress(OSError):
                return max(0.0, time.clock_gettime(self.cpu_clock) - self.began_cpu)
        return 0.0


class ThreadCalls:
    """The calls in threads that sessions make, from all loops.

    A call that waits for a thread is known by a weak reference alone: one that never begins is forgotten with its
    executor's queue.
    """

    def __init__(
        self, clock: Clock, on_fault: Callable[[str, BaseException], None] = lambda problem, error: None
    ) -> None:
        self.clock = clock
        self.pools = ThreadPools()
        self.on = True
        """False after a fault: calls are not seen any more."""
        self._on_fault = on_fault
        self._lock = threading.Lock()
        self._waiting: WeakValueDictionary[int, ThreadCall] = WeakValueDictionary()
        self._running: set[ThreadCall] = set()
        self._unbound: WeakKeyDictionary[Any, Unbound] = WeakKeyDictionary()
        """By what lives as long as it does."""
        self._recent: deque[Done] = deque(maxlen=64)

    def submit(self, func: Callable[..., Any], session: Owner, ledger: Ledger, pool: ThreadPool | None) -> ThreadCall:
        """Return the call to hand to a thread instead of `func`."""
        call = ThreadCall(func, session, ledger, self, pool)
        call.submitted = self.clock()
        self._waiting[id(call)] = call
        return call

    def submit_unbound(self, owner: Any, func: Callable[..., Any], pool: ThreadPool) -> None:
        """Note a call without a session, for as long as `owner` lives: the coroutine that waits for it, or the function
        that the thread calls.
        """
        self._unbound[owner] = Unbound(func, pool, self.clock())

    # --- on the thread of the call ---------------------------------------------------------------

    def begin(self, call: ThreadCall) -> None:
        """Note the beginning of a call. Raise no Exception."""
        try:
            call.start = self.clock()
            call.thread_id = threading.get_ident()
            with suppress(AttributeError, OSError):  # not on macOS
                call.cpu_clock = time.pthread_getcpuclockid(call.thread_id)
            call.began_cpu = time.thread_time()
            self._waiting.pop(id(call), None)
            with self._lock:
                call.heap = heap_mark(call.ledger)
                self._running.add(call)
        except Exception as error:
            self.failed(error)

    def end(self, call: ThreadCall) -> None:
        """Charge its session with a call that has ended. Raise no Exception."""
        try:
            cpu_s = time.thread_time() - call.began_cpu
            with self._lock:
                if call not in self._running:  # its beginning has failed
                    return
                self._running.discard(call)
                heap = allocated(call.heap, heap_mark(call.ledger))
                call.ledger.heap.charged_elsewhere += heap
            call.session.has_computed(cpu_s, heap)
            done = Done(call.session, call.start, self.clock(), cpu_s, call.thread_id, call.function)
            self._recent.append(done)
        except Exception as error:
            self.failed(error)

    def failed(self, error: Exception) -> None:
        """Note a fault of ours, after which calls are not seen any more. Raise no Exception."""
        self.on = False
        with suppress(Exception):
            self._on_fault(f"calls in threads are not seen any more: {error!r}", error)

    # --- from any thread -------------------------------------------------------------------------

    def waiting(self) -> list[ThreadCall]:
        """Return the calls that wait for a thread, the oldest first."""
        found = [call for each in self._waiting.valuerefs() if (call := each()) is not None]
        waiting = (call for call in found if not call.thread_id and not call.is_given_up())
        return sorted(waiting, key=lambda call: call.submitted)

    def running(self) -> list[ThreadCall]:
        """Return the calls that run."""
        with self._lock:
            return list(self._running)

    def unbound(self) -> list[tuple[Any, Unbound]]:
        """Return the calls without a session, and what lives as long as each of them."""
        owners = [owner for each in self._unbound.keyrefs() if (owner := each()) is not None]
        owners = [each for each in owners if type(each) is not CoroutineType or each.cr_frame is not None]
        return [(owner, call) for owner in owners if (call := self._unbound.get(owner)) is not None]

    def under_way(self) -> dict[Owner, float]:
        """Return the CPU seconds that the calls under way have used, by session."""
        used: dict[Owner, float] = {}
        for call in self.running():
            used[call.session] = used.get(call.session, 0.0) + call.cpu_s_seen()
        return used

    def culprit(self, start: float, end: float) -> Owner | None:
        """Return the session whose calls kept the GIL busy in this span.

        None: no session did, or not one alone. The CPU time of a call is taken to be spread evenly over its duration.
        """
        used: dict[Owner, float] = {}
        for call, cpu_s in self._within(start, end):
            used[call.session] = used.get(call.session, 0.0) + cpu_s
        by_use = sorted(used, key=used.__getitem__, reverse=True)
        if not by_use or used[by_use[0]] < COMPETES * (end - start):
            return None
        if len(by_use) > 1 and used[by_use[1]] > RIVALS * used[by_use[0]]:
            return None
        return by_use[0]

    def call_in(
        self, start: float, end: float, *, thread_id: int | None = None, session: Owner | None = None
    ) -> Done | None:
        """Return the call that used the most CPU time in this span, on this thread or of this session.

        The end of one that runs is `end`. None: there was none.
        """
        there = [
            (cpu_s, call)
            for call, cpu_s in self._within(start, end)
            if thread_id in (None, call.thread_id) and session in (None, call.session)
        ]
        return max(there, key=lambda each: each[0], default=(0.0, None))[1]

    def _within(self, start: float, end: float) -> list[tuple[Done, float]]:
        """Return the calls that ran in this span, and the CPU seconds that each used in it."""
        running = [
            Done(call.session, call.start, end, call.cpu_s_seen(), call.thread_id, call.function)
            for call in self.running()
        ]
        found = []
        for call in (*running, *copied(self._recent)):
            inside = min(call.end, end) - max(call.start, start)
            if inside > 0.0:
                found.append((call, call.cpu_s * min(1.0, inside / max(call.end - call.start, 1e-9))))
        return found
