"""The threads that a FakeLoop has to wait for.

A thread that the loop has started works until its result has reached the loop. Two functions start one:
`run_in_executor` (and `asyncio.to_thread`, which calls it), and anyio's `to_thread.run_sync`, which has workers of its
own.

A thread is parked if it waits, without a timeout, until another thread notifies it: it does nothing before that. The
frame of the standard library's condition says so exactly, and events, queues and futures are made of conditions. A
thread that is parked has asked the loop for something that takes virtual time, so the clock goes on.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from .introspection_threads import is_ours

_CONDITION_WAIT = threading.Condition.wait.__code__
_EXECUTOR_IDLES = concurrent.futures.thread._worker.__code__


class ExecutorCalls:
    """The calls that a loop has handed to executors and that have not ended."""

    def __init__(self) -> None:
        self._running: dict[concurrent.futures.Future[Any], _Call | None] = {}
        self._last: tuple[concurrent.futures.Future[Any], _Call | None]

    def through(self, executor: concurrent.futures.Executor) -> _NotingExecutor:
        """Return an object whose `submit` notes the call and hands it on to `executor`."""
        return _NotingExecutor(self, executor)

    def note(self, future: concurrent.futures.Future[Any], call: _Call | None) -> None:
        self._last = future, call
        self._running[future] = call

    def follow_last(self) -> None:
        """Count the call noted last until it has ended and its waiter has been notified."""
        future, _ = self._last
        # Callbacks of a future run in the order they were added: this one runs after the one that notifies the loop.
        future.add_done_callback(lambda ended: self._running.pop(ended, None))

    def threads_of(self, loop: asyncio.AbstractEventLoop) -> Iterator[threading.Thread]:
        """Yield the threads that work for `loop`.

        For a call whose thread is not known it yields the loop's own thread.
        """
        threads = {thread.ident: thread for thread in threading.enumerate()}
        for call in list(self._running.values()):
            if call is not None and call.thread_id is not None:
                yield threads.get(call.thread_id, threading.current_thread())
            elif call is None or _starts_soon(call.executor):
                yield threading.current_thread()
        for thread in threads.values():
            if _is_anyios(thread) and _works_for(thread, loop):
                yield thread


class _NotingExecutor:
    def __init__(self, calls: ExecutorCalls, executor: concurrent.futures.Executor) -> None:
        self._calls = calls
        self._executor = executor

    def submit(self, func: Callable[..., Any], *args: Any) -> concurrent.futures.Future[Any]:
        call = None
        if isinstance(self._executor, concurrent.futures.ThreadPoolExecutor):
            func = call = _Call(func, self._executor)
        future = self._executor.submit(func, *args)
        self._calls.note(future, call)
        return future


class _Call:
    """A call that knows the thread it runs in."""

    def __init__(self, func: Callable[..., Any], executor: concurrent.futures.ThreadPoolExecutor) -> None:
        self._func = func
        self.executor = executor
        self.thread_id: int | None = None

    def __call__(self, *args: Any) -> Any:
        self.thread_id = threading.get_ident()
        return self._func(*args)


def is_parked(thread: threading.Thread) -> bool:
    """Return whether the thread does nothing until another thread notifies it."""
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None or frame.f_code is _EXECUTOR_IDLES:
        return True
    if frame.f_code is not _CONDITION_WAIT:
        return False
    inside = frame.f_locals
    # The thread that notifies takes the waiter off this list, long before the notified thread goes on.
    waiter, condition = inside.get("waiter"), inside["self"]
    return inside.get("timeout") is None and waiter is not None and waiter in condition._waiters


def other_threads() -> Iterator[threading.Thread]:
    """Yield all threads but this one and introspection's.

    Those of introspection never call into the loop.
    """
    here = threading.current_thread()
    return (thread for thread in threading.enumerate() if thread is not here and not is_ours(thread))


def _starts_soon(executor: concurrent.futures.ThreadPoolExecutor) -> bool:
    """Return whether a call handed to the executor starts before another ends."""
    frames = sys._current_frames()
    busy = [frame for thread in executor._threads if (frame := frames.get(thread.ident or 0))]
    return len(busy) < executor._max_workers or any(frame.f_code is _EXECUTOR_IDLES for frame in busy)


def _is_anyios(thread: threading.Thread) -> bool:
    return type(thread).__name__ == "WorkerThread" and type(thread).__module__ == "anyio._backends._asyncio"


def _works_for(anyios: Any, loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether a worker thread of anyio works for `loop`.

    anyio puts it among the idle ones once its result has reached the loop.
    """
    return anyios.loop is loop and not anyios.stopping and anyios not in anyios.idle_workers
