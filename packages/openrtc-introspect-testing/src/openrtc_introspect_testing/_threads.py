"""Which threads a FakeLoop has to wait for.

A thread that the loop has started works until its result has reached the loop. Two things start
one: `run_in_executor` (and `asyncio.to_thread`, which calls it), and anyio's `to_thread.run_sync`,
which has workers of its own.

A thread stands where it waits, without a timeout, to be notified by another one: it will do nothing
until then. The standard library's condition says so exactly, and events, queues and futures are
made of it. A thread that stands has asked the loop for something that takes virtual time, and the
clock goes on.
"""

from __future__ import annotations

import concurrent.futures.thread
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._loop import FakeLoop

_CONDITION_WAIT = threading.Condition.wait.__code__
_EXECUTOR_IDLES = concurrent.futures.thread._worker.__code__


class Calls:
    """The calls that a loop has handed to executors and that have not ended."""

    def __init__(self) -> None:
        self._running: dict[concurrent.futures.Future[Any], _Call | None] = {}
        self._last: tuple[concurrent.futures.Future[Any], _Call | None]

    def through(self, executor: concurrent.futures.Executor) -> _Through:
        """Something to `submit` to that hands on to `executor`, and notes the call."""
        return _Through(self, executor)

    def note(self, future: concurrent.futures.Future[Any], call: _Call | None) -> None:
        self._last = future, call
        self._running[future] = call

    def follow_last(self) -> None:
        """The call noted last counts until it has ended and whoever waits for it has been told."""
        future, _ = self._last
        # Callbacks of a future run in the order they were added: after the one that tells the loop.
        future.add_done_callback(lambda ended: self._running.pop(ended, None))

    def at_work(self, loop: FakeLoop) -> Iterator[threading.Thread]:
        """The threads that work for `loop`; for a call whose thread is not known, the loop's own."""
        threads = {thread.ident: thread for thread in threading.enumerate()}
        for call in list(self._running.values()):
            if call is not None and call.thread_id is not None:
                yield threads.get(call.thread_id, threading.current_thread())
            elif call is None or _starts_soon(call.executor):
                yield threading.current_thread()
        for thread in threads.values():
            if _is_anyios(thread) and _works_for(thread, loop):
                yield thread


class _Through:
    def __init__(self, calls: Calls, executor: concurrent.futures.Executor) -> None:
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


def stands(thread: threading.Thread) -> bool:
    """Whether the thread does nothing until another one tells it to."""
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None or frame.f_code is _EXECUTOR_IDLES:
        return True
    if frame.f_code is not _CONDITION_WAIT:
        return False
    inside = frame.f_locals
    # Whoever notifies takes the waiter off this list, long before the thread goes on.
    waiter, condition = inside.get("waiter"), inside["self"]
    return inside.get("timeout") is None and waiter is not None and waiter in condition._waiters


def _starts_soon(executor: concurrent.futures.ThreadPoolExecutor) -> bool:
    """Whether a call that was handed to it need not wait for another one to end."""
    frames = sys._current_frames()
    busy = [frame for thread in executor._threads if (frame := frames.get(thread.ident or 0))]
    return len(busy) < executor._max_workers or any(frame.f_code is _EXECUTOR_IDLES for frame in busy)


def others() -> Iterator[threading.Thread]:
    """All threads but this one and those of an introspector, which never call into the loop."""
    here = threading.current_thread()
    return (
        thread
        for thread in threading.enumerate()
        if thread is not here and not thread.name.startswith("openrtc-introspect")
    )


def ours() -> list[str]:
    """The names of introspection's threads that run now."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("openrtc-introspect")]


def ours_end(within_s: float = 30.0) -> bool:
    """Whether all of introspection's threads end, with nobody telling them to."""
    deadline = time.monotonic() + within_s
    while ours() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not ours()


def _is_anyios(thread: threading.Thread) -> bool:
    return type(thread).__name__ == "WorkerThread" and type(thread).__module__ == "anyio._backends._asyncio"


def _works_for(anyios: Any, loop: FakeLoop) -> bool:
    """anyio puts a worker among the idle ones when its result has reached the loop."""
    return anyios.loop is loop and not anyios.stopping and anyios not in anyios.idle_workers
