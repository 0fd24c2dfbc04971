"""The callbacks of a loop of asyncio's interface. Loops written in Python show their queue; uvloop does not."""

from __future__ import annotations

import asyncio
import time
from asyncio import futures
from collections import deque
from collections.abc import Sequence
from contextvars import Context
from selectors import EVENT_READ, EVENT_WRITE
from types import CodeType, FrameType, MethodType
from typing import Any

from .._accounting.ledger import Ledger
from .._base.gil import has_gil
from .._os.signal_handlers import code_of
from .._os.stacks import Function, call_of
from .._sessions.session import Binding, Session
from .asyncio_names import context_of, name_of
from .asyncio_tasks import live_tasks
from .callbacks import Callback, LoopCallbacks, describe_function
from .connection_users import UserSearch
from .connections import (
    Connection,
    Readers,
    connection_in,
    connection_of,
    isinstance_of,
    method_in,
    reading_sessions,
    task_of,
)
from .delays import overdue
from .hook import Running

_MAX_READY = 2000
"""Handles of the queue in which tasks are looked for that a connection has woken."""
_MAX_TASKS = 5000
"""The tasks of a loop that are searched for a connection's user."""
_ADDING_DEPTH = 4
"""The frames, from the innermost on, in which a thread that adds to the queue is recognised."""

_WAKES_SLEEP = getattr(futures, "_set_result_unless_cancelled", None)
"""The function that `asyncio.sleep` has a timer call: it wakes a task."""

_ADDERS = {
    getattr(asyncio.BaseEventLoop, name).__code__
    for name in ("call_soon_threadsafe", "call_soon", "call_later", "call_at")
}


class AsyncioCallbacks(LoopCallbacks):
    """The callbacks of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ledger: Ledger) -> None:
        self._loop: Any = loop
        self._ledger = ledger
        self._binding: Binding = ledger.binding
        self.shows_queue = True
        """Whether the loop's queue and timers are those that asyncio's own has."""
        self._search: tuple[Any, UserSearch | None] | None = None
        """What has not changed while the same callback runs, and the search for its connection's user.

        The search is None: there are too many tasks."""

    # --- the queue -------------------------------------------------------------------------------

    def queue(self) -> deque[Any] | None:
        ready = getattr(self._loop, "_ready", None) if self.shows_queue else None
        return ready if type(ready) is deque else None

    def overdue(self, seconds: float) -> Sequence[Any]:
        if not self.shows_queue or type(self._loop).time is not asyncio.BaseEventLoop.time:
            return ()
        try:
            timers = overdue(getattr(self._loop, "_scheduled", ()), time.monotonic() - seconds)
            return [timer for timer in timers if not timer._cancelled]
        except IndexError:
            return ()

    def registered(self, fd: int, mask: int) -> Sequence[tuple[str, Any]]:
        keys = getattr(getattr(self._loop, "_selector", None), "_fd_to_key", None)
        key = keys.get(fd) if type(keys) is dict else None
        if key is None or type(key.data) is not tuple:
            return ()
        mask &= key.events
        wanted = ("reader", EVENT_READ), ("writer", EVENT_WRITE)
        return [
            (source, handle)
            for (source, event), handle in zip(wanted, key.data, strict=False)
            if handle is not None and mask & event
        ]

    def describe(self, queued: Any) -> Callback | None:
        callback = self.callback_of(queued)
        own = callback.__self__ if type(callback) is MethodType else None
        if callback is None or callback is _WAKES_SLEEP or task_of(callback) is not None or own is self._loop:
            return None
        connection = connection_of(callback)
        if connection is None:
            return describe_function(callback, self._context_of(queued))
        user, _ = self._user(connection, writes=_writes(callback), handle=queued)
        return describe_function(callback, user, connection)

    def adds_from(self, frame: FrameType) -> Any:
        each: FrameType | None = frame
        for _ in range(_ADDING_DEPTH):
            if each is None:
                return None
            if each.f_code in _ADDERS and (values := each.f_locals).get("self") is self._loop:
                return values.get("callback")
            each = each.f_back
        return None

    # --- what runs -------------------------------------------------------------------------------

    def running(self, handle: Any, frame: FrameType | None, end: FrameType | None) -> Running:
        """Return the callback of a handle, or the connection's, on a loop without handles of asyncio's."""
        if handle is None:
            return self._running_unseen(frame, end)
        task = task_of(getattr(handle, "_callback", None))
        if task is not None:
            return Running(self._context_of(handle), name_of(task))
        callback = getattr(handle, "_callback", None) or method_in(frame, end)
        if any(each is handle for each in _values(getattr(self._loop, "_signal_handlers", None))):
            return Running(signal=_function_of(code_of(callback)))
        connection = connection_of(callback)
        if connection is None:
            return Running(self._context_of(handle))
        seen = connection_in(frame, end)
        method = seen[1] if seen is not None else describe_function(callback, None, connection).function
        user, readers = self._user(connection, writes=_writes(callback), handle=handle)
        return self._running_of(connection, method, user, readers)

    def _running_unseen(self, frame: FrameType | None, end: FrameType | None) -> Running:
        seen = connection_in(frame, end)
        if seen is not None:
            connection, method = seen
            user, readers = self._user(connection, writes=method.endswith(".resume_writing"))
            return self._running_of(connection, method, user, readers)
        outermost = _outermost(frame, end)
        handled = outermost is not None and outermost.f_code in self.signal_callbacks()
        return Running(signal=_function_of(outermost.f_code)) if outermost is not None and handled else Running()

    def running_function(self, frame: FrameType, idle: FrameType | None) -> Callback | None:
        outermost = _outermost(frame, idle)
        if outermost is None:
            return None
        seen = connection_in(frame, idle)
        call = call_of(outermost)._replace(line=outermost.f_code.co_firstlineno)
        if seen is None:
            return Callback(call.function, call)
        user, _ = self._user(seen[0], writes=seen[1].endswith(".resume_writing"))
        return Callback(seen[1], call, user, seen[0].describe())

    # --- whose -----------------------------------------------------------------------------------

    def _user(
        self, connection: Connection, *, writes: bool, handle: Any = None
    ) -> tuple[Session | None, Readers | None]:
        """Return the session that a connection's callback is for, as far as the connection shows it.

        It is the one whose tasks wait for the data, or to write. Of a connection that a server has accepted, else the
        one whose task serves it, or in whose context the server was made. The other value: what is known of the users
        if the tasks are to be searched; None: what is known is enough. writes: the transport can be written to again.
        handle: the loop's. None: it is not known.
        """
        if not has_gil():
            return None, None
        woken = (self.callback_of(each) for each in self.queued(_MAX_READY))
        readers = reading_sessions(connection.protocol, self._bound_in, woken, writes=writes)
        context = connection.context()
        if writes and context is None and handle is not None and not readers.to_write:
            return _living(self._context_of(handle)), None  # until Python 3.14: of who has written
        if readers.waiting:
            return _only(readers.waiting), None
        if not connection.was_accepted():
            return None, readers
        if readers.referred:
            return _only(readers.referred), None
        opener = context.get(self._binding) if context is not None else self._context_of(handle)
        return _living(opener), None

    def _running_of(
        self, connection: Connection, method: str, user: Session | None, readers: Readers | None
    ) -> Running:
        """Return what runs, for a stall sample: with the search for the connection's user, if it is to be searched."""
        peer = connection.peer
        callback = f"{method}, connection with {peer}" if peer is not None else method
        return Running(
            user, callback=callback, search=self._go_on(connection, readers) if readers is not None else None
        )

    def _go_on(self, connection: Connection, readers: Readers) -> UserSearch | None:
        """Search the tasks for a connection's user, a part each time. Return the search. None: there are too many."""
        same = self._moment(connection)
        if self._search is None or self._search[0] != same:
            search = None
            if self._ledger.accounts.tasks() <= _MAX_TASKS:  # once a callback: for 10,000 sessions it takes 1 ms
                search = UserSearch(connection, live_tasks(self._loop), self._bound_in, readers.referred)
            self._search = same, search
        search = self._search[1]
        if search is None:
            return None
        search.go_on()
        if self._moment(connection) == same:
            return search
        self._search = None  # the callback has ended meanwhile, and tasks have gone on
        return None

    def _moment(self, connection: Connection) -> tuple[object, ...]:
        """Return what stays the same while a callback of the connection runs, and no task steps."""
        return id(connection.protocol), self._ledger.holder_since, self._ledger.steps_until_sample

    def _context_of(self, handle: Any) -> Session | None:
        context = self.context_of(handle)
        return context.get(self._binding) if context is not None else None

    def _bound_in(self, task: asyncio.Task[Any]) -> Session | None:
        context = context_of(task)
        return context.get(self._binding) if context is not None else None

    # --- the loop's own handles ------------------------------------------------------------------

    def callback_of(self, handle: Any) -> Any:
        """Return what a handle calls. None: it is not known, or the loop's own."""
        return getattr(handle, "_callback", None)

    def context_of(self, handle: Any) -> Context | None:
        """Return the context in which a handle calls."""
        return getattr(handle, "_context", None)

    def signal_callbacks(self) -> set[CodeType]:
        """Return the code of the functions that `add_signal_handler` was given."""
        handles = _values(getattr(self._loop, "_signal_handlers", None))
        return {code for each in handles if (code := code_of(self.callback_of(each))) is not None}


def _only(sessions: set[Session]) -> Session | None:
    return next(iter(sessions)) if len(sessions) == 1 else None


def _living(session: Session | None) -> Session | None:
    return session if session is not None and not session.ended else None


def _writes(callback: Any) -> bool:
    """Return whether this method of a transport is called when the file can be written to."""
    return bool(callback.__func__.__name__.startswith(("_write", "_sendto")))


def _function_of(code: CodeType | None) -> Function:
    return (code.co_filename, code.co_qualname) if code is not None else ("", "")


def _values(table: Any) -> list[Any]:
    """Return the values of a dictionary by signals' numbers; nothing of other things."""
    if type(table) is not dict or not all(isinstance_of(key, int) for key in table):
        return []
    return list(table.values())


def _outermost(frame: FrameType | None, end: FrameType | None) -> FrameType | None:
    """Return the outermost frame inside of `end`. None: there is none, or `end` is not around this frame."""
    if end is None:
        return None
    outermost = None
    while frame is not None and frame is not end:
        outermost, frame = frame, frame.f_back
    return outermost if frame is end else None
