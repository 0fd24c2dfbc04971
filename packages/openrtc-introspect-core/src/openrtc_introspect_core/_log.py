"""The log: records are made where something is logged, and handled on a thread of ours.

A log handler may take long: it may send the record over a network, or write to a pipe that nobody reads. On a loop's
thread it would hold every session, and the block would be put on one of them. So records wait in a queue, and one
thread for the whole process hands them to the user's filters and handlers, in their order. The thread starts with the
first record and ends when there was none for a while, or after a flush.

Nothing here takes a lock that another thread may hold for long, nor one that a garbage collection or a signal handler
could find held by its own thread.
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

from ._gil import copied

MAX_QUEUED = 1024
"""Records that wait at most; a newer one is dropped and counted."""

IDLE_S = 0.25
"""Seconds without a record after which the thread ends."""

EXIT_WITHIN_S = 1.0
"""Seconds that the interpreter's exit waits for records to be handled."""

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

_fallback = logging.NullHandler()
"""Reports what a filter or handler raises the way that `logging.raiseExceptions` asks for."""


class QueuedLogger:
    """Logs under a name of `logging`, without ever waiting for a handler. From any thread. Never raises."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def warning(self, message: str, *args: object, exc_info: BaseException | ExcInfo | None = None) -> None:
        self._log(logging.WARNING, message, args, exc_info)

    def error(self, message: str, *args: object, exc_info: BaseException | ExcInfo | None = None) -> None:
        self._log(logging.ERROR, message, args, exc_info)

    def _log(
        self, level: int, message: str, args: tuple[object, ...], exc_info: BaseException | ExcInfo | None
    ) -> None:
        with suppress(Exception):  # of a record factory of the user's, or where the stack is full
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
    """Asks for all records queued so far to be handled. Alive until they are, and the thread that did it has ended."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._by: threading.Thread | None = None

    def is_alive(self) -> bool:
        return not self._reached.is_set() or (self._by is not None and self._by.is_alive())

    def join(self, timeout_s: float) -> None:
        """Waits at most so many seconds."""
        deadline = time.monotonic() + timeout_s
        if self._reached.wait(timeout_s) and self._by is not None:
            self._by.join(max(0.0, deadline - time.monotonic()))

    def reach(self, by: threading.Thread | None) -> None:
        """All records before it have been handled; the thread `by` is about to end."""
        self._by = by
        self._reached.set()


class Writer:
    """The queue, and the thread that empties it."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[logging.Logger, logging.LogRecord] | Flush] = queue.SimpleQueue()
        self._claim = threading.Lock()
        """Held, for as long as it works, by whoever handles records. Nobody waits for it."""
        self._ident = 0
        """Which thread that is; 0: none is known."""
        self._thread: threading.Thread | None = None
        """The last one that there has been. None: it was a bare one."""
        self._dropped = 0
        self._counting = threading.RLock()
        self._over = False

    def add(self, logger: logging.Logger, record: logging.LogRecord) -> None:
        """Queues the record. Drops and counts it where there is no room; the next one that is queued tells how many."""
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
        self._see_to_it()

    def flush(self) -> Flush:
        """Begins a flush. It has ended already where nothing waits, or the caller is the thread that it waits for."""
        flush, last = Flush(), self._thread
        if self._claim.locked() and self._ident == threading.get_ident():
            flush.reach(None)
        elif self._queue.empty() and not self._claim.locked():
            flush.reach(last)
        else:
            self._queue.put(flush)
            if not self._see_to_it():
                flush.reach(None)
        return flush

    def end(self, timeout_s: float) -> None:
        """The interpreter exits: flushes, within so many seconds. From now on no thread is started."""
        pending = self.flush()
        pending.join(timeout_s)
        self._over = True
        if pending.is_alive():
            _leave_stuck_handlers()
        self._handle_here()

    def _see_to_it(self) -> bool:
        """Whether what is queued will be handled, by the thread there is or by a new one."""
        if self._over:
            return self._handle_here()
        if not self._claim.acquire(blocking=False):
            return True  # the thread looks at the queue once more after it has let go of the claim
        try:
            _thread.start_new_thread(self._start, ())
        except Exception:  # no more threads: the next record tries again, or the interpreter's exit handles them
            self._claim.release()
            return False
        return True

    def _start(self) -> None:
        # On a bare thread: `Thread.start` waits until the new one runs, which on a busy machine takes milliseconds.
        try:
            # A context of its own: what a handler starts is no session's.
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
            self._see_to_it()

    def _handle_here(self) -> bool:
        """Handles on the calling thread what no other one handles."""
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
        """Whether to go on. Keeps nothing of the record, whose error keeps the frames that it came through."""
        if isinstance(item, Flush):
            item.reach(by)
            return False
        logger, record = item
        _handled.append((time.perf_counter(), math.inf))
        try:
            logger.handle(record)
        except BaseException:  # a SystemExit, too, would end the thread
            with suppress(BaseException):
                _fallback.handleError(record)
        finally:
            _handled[-1] = (_handled[-1][0], time.perf_counter())
        return True


_handled: deque[tuple[float, float]] = deque(maxlen=64)
"""From when to when the last records were handled, by time.perf_counter; infinity: until now, at least."""


def handled_within(start: float, end: float) -> float:
    """Seconds of this span in which a record of ours was handled, by time.perf_counter."""
    return sum(max(0.0, min(end, until) - max(start, since)) for since, until in copied(_handled))


def _leave_stuck_handlers() -> None:
    """The interpreter ends without the handlers that our thread is stuck in, whose locks it would wait for.

    A standard stream that such a handler writes to is left as well: flushing it would end in a fatal error.
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
    """Begins to flush: for whoever cannot wait on this thread."""
    return _writer.flush()


def flush(timeout_s: float) -> bool:
    """Waits until all records queued so far were handled, at most so many seconds. Whether they were."""
    pending = _writer.flush()
    pending.join(timeout_s)
    return not pending.is_alive()


def abandon_after_fork() -> None:
    """In a forked child there is no thread, the records are the parent's, and locks may be held for ever."""
    global _writer
    _writer = Writer()


def _at_exit() -> None:
    _writer.end(EXIT_WITHIN_S)


_writer = Writer()
atexit.register(_at_exit)
