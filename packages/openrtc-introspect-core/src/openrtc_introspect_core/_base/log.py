"""The log: callers make records, and a thread of this package handles them.

A log handler may take long: it may send the record over a network, or write to a pipe that nobody reads. On a loop's
thread it would hold every session, and one of them would be blamed for the block. So records wait in a queue, and one
thread for the whole process passes them to the user's filters and handlers, in their order. The thread starts with the
first record, and ends after a flush or a while without records.

No code here takes a lock that another thread may hold for long, nor a lock that a garbage collection or a signal
handler could find held by its own thread.
"""

from __future__ import annotations

import _thread
import atexit
import contextvars
import logging
import math
import queue
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from types import TracebackType

from .gil import copied

MAX_QUEUED = 1024
"""The maximum number of waiting records; further ones are dropped and counted."""

IDLE_S = 0.25
"""Seconds without a record after which the thread ends."""

EXIT_WITHIN_S = 1.0
"""Seconds that the interpreter's exit waits for records to be handled."""

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

_fallback = logging.NullHandler()
"""Reports the errors of filters and handlers, as `logging.raiseExceptions` asks for."""


class QueuedLogger:
    """A logger that never waits for a handler and never raises. Used from any thread."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def warning(self, message: str, *args: object, exc_info: BaseException | ExcInfo | None = None) -> None:
        """Log a warning; the arguments are those of `logging.Logger.warning`."""
        self._log(logging.WARNING, message, args, exc_info)

    def error(self, message: str, *args: object, exc_info: BaseException | ExcInfo | None = None) -> None:
        """Log an error; the arguments are those of `logging.Logger.error`."""
        self._log(logging.ERROR, message, args, exc_info)

    def _log(
        self, level: int, message: str, args: tuple[object, ...], exc_info: BaseException | ExcInfo | None
    ) -> None:
        with suppress(Exception):  # the user's record factory may fail, or the stack be full
            logger = self._logger
            if logger.isEnabledFor(level):
                if isinstance(exc_info, BaseException):
                    exc_info = type(exc_info), exc_info, exc_info.__traceback__
                caller = sys._getframe(2)
                record = logger.makeRecord(
                    logger.name,
                    level,
                    caller.f_code.co_filename,
                    caller.f_lineno,
                    message,
                    args,
                    exc_info,
                    caller.f_code.co_name,
                )
                _writer.add(logger, record)


class Flush:
    """A request to handle all records that are queued so far.

    It has the methods of a thread: alive until the records are handled and the thread that did it has ended.
    """

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._by: threading.Thread | None = None

    def is_alive(self) -> bool:
        """Return whether there is still something to wait for."""
        return not self._reached.is_set() or (self._by is not None and self._by.is_alive())

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the flush, for at most `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        if self._reached.wait(timeout_s) and self._by is not None:
            self._by.join(max(0.0, deadline - time.monotonic()))

    def complete(self, by: threading.Thread | None) -> None:
        """End the flush: all records before it are handled.

        by: the thread that did it and is about to end.
        """
        self._by = by
        self._reached.set()


class Writer:
    """The queue, and the thread that empties it."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[logging.Logger, logging.LogRecord] | Flush] = queue.SimpleQueue()
        self._claim = threading.Lock()
        """Held by the thread that handles records, while it does. No thread waits for it."""
        self._ident = 0
        """The id of that thread; 0: none is known."""
        self._thread: threading.Thread | None = None
        """The latest thread of that kind. None: it had no Thread object."""
        self._dropped = 0
        self._counting = threading.RLock()
        self._over = False

    def add(self, logger: logging.Logger, record: logging.LogRecord) -> None:
        """Queue the record.

        If the queue is full, drop and count it; the next record reports the count.
        """
        if self._queue.qsize() >= MAX_QUEUED:
            with self._counting:
                self._dropped += 1
            return
        if self._dropped:
            with self._counting:
                dropped, self._dropped = self._dropped, 0
            if dropped:
                record.msg = f"{record.msg} (log records dropped before this one: {dropped}; handlers are too slow)"
        self._queue.put((logger, record))
        self._ensure_handling()

    def flush(self) -> Flush:
        """Begin a flush.

        It has ended already if nothing waits, or if the calling thread is the one that handles.
        """
        flush, last = Flush(), self._thread
        if self._claim.locked() and self._ident == threading.get_ident():
            flush.complete(None)
        elif self._queue.empty() and not self._claim.locked():
            flush.complete(last)
        else:
            self._queue.put(flush)
            if not self._ensure_handling():
                flush.complete(None)
        return flush

    def end(self, timeout_s: float) -> None:
        """Flush for at most `timeout_s` seconds, and start no thread any more."""
        pending = self.flush()
        pending.join(timeout_s)
        self._over = True
        if pending.is_alive():
            _abandon_stuck_handlers()
        self._handle_here()

    def _ensure_handling(self) -> bool:
        """Start the thread if none runs. False: queued records will not be handled."""
        if self._over:
            return self._handle_here()
        if not self._claim.acquire(blocking=False):
            return True  # the thread checks the queue once more after it has released the claim
        try:
            _thread.start_new_thread(self._start, ())
        except Exception:  # no more threads: the next record tries again, or the interpreter's exit handles them
            self._claim.release()
            return False
        return True

    def _start(self) -> None:
        # From a bare thread, as `Thread.start` waits until the new one runs: milliseconds on a busy machine.
        try:
            # In an empty context: the tasks that a handler starts belong to no session.
            run = contextvars.Context().run
            threading.Thread(target=run, args=(self._run,), name="openrtc-introspect-log", daemon=True).start()
        except Exception:  # the interpreter has begun to exit, or there are too many
            self._run(bare=True)

    def _run(self, *, bare: bool = False) -> None:
        self._ident = threading.get_ident()
        self._thread = None if bare else threading.current_thread()
        with suppress(queue.Empty):
            while self._handle(self._queue.get(timeout=IDLE_S), self._thread):
                pass
        self._ident = 0
        self._claim.release()
        if not self._queue.empty():
            self._ensure_handling()

    def _handle_here(self) -> bool:
        """Handle the queued records on the calling thread, unless another thread does."""
        if sys.is_finalizing() or not self._claim.acquire(blocking=False):
            return False
        try:
            with suppress(queue.Empty):
                while True:
                    self._handle(self._queue.get_nowait(), None)
        finally:
            self._claim.release()
        return True

    @staticmethod
    def _handle(item: tuple[logging.Logger, logging.LogRecord] | Flush, by: threading.Thread | None) -> bool:
        """Handle one item. False: it was a flush, and the thread ends.

        Keeps no reference to a record: its error keeps frames alive.
        """
        if isinstance(item, Flush):
            item.complete(by)
            return False
        logger, record = item
        _handled.append((time.perf_counter(), math.inf))
        try:
            logger.handle(record)
        except BaseException:  # SystemExit too, which would end the thread
            with suppress(BaseException):
                _fallback.handleError(record)
        finally:
            _handled[-1] = (_handled[-1][0], time.perf_counter())
        return True


_handled: deque[tuple[float, float]] = deque(maxlen=64)
"""(start, end) of the handling of the latest records, by time.perf_counter(); infinity: still being handled."""


def handled_within(start: float, end: float) -> float:
    """Return the seconds of a span in which a record was being handled.

    start, end: by time.perf_counter().
    """
    return sum(max(0.0, min(end, until) - max(start, since)) for since, until in copied(_handled))


def _abandon_stuck_handlers() -> None:
    """Remove the handlers that hang from those that the interpreter flushes.

    It would wait for their locks.

    A standard stream that such a handler writes to is abandoned too: flushing it would be a fatal error.
    """
    with suppress(Exception):
        for reference in list(logging._handlerList):  # type: ignore[attr-defined]
            handler = reference()
            lock = getattr(handler, "lock", None)
            if lock is None or lock.acquire(blocking=False):
                if lock is not None:
                    lock.release()
                continue
            logging._handlerList.remove(reference)  # type: ignore[attr-defined]
            for name in ("stdout", "stderr"):
                if getattr(handler, "stream", None) is getattr(sys, name):
                    setattr(sys, name, None)


def flushing() -> Flush:
    """Begin a flush, for callers that must not wait on this thread."""
    return _writer.flush()


def flush(timeout_s: float) -> bool:
    """Wait at most `timeout_s` seconds until all queued records are handled.

    Return whether they are.
    """
    pending = _writer.flush()
    pending.join(timeout_s)
    return not pending.is_alive()


def abandon_after_fork() -> None:
    """Start anew in a forked child, where locks may be held for ever."""
    global _writer
    _writer = Writer()


def _at_exit() -> None:
    _writer.end(EXIT_WITHIN_S)


_writer = Writer()
atexit.register(_at_exit)
