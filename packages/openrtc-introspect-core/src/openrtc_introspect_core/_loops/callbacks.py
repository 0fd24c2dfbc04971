"""The callbacks of a loop: those in its queue, those of files, and the one that runs.

From any thread, if not said otherwise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from types import BuiltinMethodType, FrameType, FunctionType, MethodType
from typing import Any, NamedTuple

from .._os.signal_handlers import code_of
from .._os.stacks import Call
from .._sessions.session import Session
from .connections import UVLOOP, Connection


class Callback(NamedTuple):
    """A callback: equal ones are of the same function, session and connection."""

    function: str
    """The qualified name of the function that is called."""
    call: Call | None = None
    """Its first line. None: it is not written in Python."""
    session: Session | None = None
    """The session that it is for. None: it is not known, or no session's."""
    peer: str | None = None
    """The other end of the connection, and the protocol's class. None: it is no connection's."""


class LoopCallbacks:
    """The callbacks of a loop that shows none."""

    def queue(self) -> deque[Any] | None:
        """Return the loop's own queue of callbacks as it has them. None: this loop does not show it."""
        return None

    def queued(self, most: int) -> list[Any]:
        """Return `most` callbacks of the queue at most, from its two ends."""
        queue = self.queue()
        found: list[Any] = []
        for number in range(min(most, len(queue)) if queue is not None else 0):
            try:
                found.append(queue[number // 2 if number % 2 == 0 else -1 - number // 2])  # type: ignore[index]
            except IndexError:  # the loop has taken some meanwhile
                break
        return found

    def overdue(self, seconds: float) -> Sequence[Any]:
        """Return the timers that have been due for so many seconds."""
        return ()

    def ready_now(self) -> Sequence[tuple[int, int]]:
        """Return (descriptor, mask) of the files that are ready, if the loop does not show what its selector finds."""
        return ()

    def registered(self, fd: int, mask: int) -> Sequence[tuple[str, Any]]:
        """Return ("reader" or "writer", callback) of a file that the selector has found ready."""
        return ()

    def describe(self, queued: Any) -> Callback | None:
        """Return what a callback as the loop has it is. None: it steps or wakes a task, or is the loop's own."""
        return None

    def running_function(self, frame: FrameType, idle: FrameType) -> Callback | None:
        """Return the callback whose frames these are: from the innermost to the one that called the loop, `idle`."""
        return None

    def adds_from(self, frame: FrameType) -> Any:
        """Return the function that another thread, whose innermost frame this is, is giving to the loop now.

        None: it is doing something else.
        """
        return None


def describe_function(function: Any, session: Session | None, connection: Connection | None = None) -> Callback:
    """Return what a callback is that calls this function."""
    peer = None
    if connection is not None:
        peer = connection.describe()
        method = next(
            (m for name in ("data_received", "buffer_updated") if (m := _own(connection.protocol, name))), None
        )
        function = method or function
    code = code_of(function)
    call = Call(code.co_filename, code.co_firstlineno, code.co_qualname) if code is not None else None
    return Callback(code.co_qualname if code is not None else name_of(function), call, session, peer)


def name_of(function: Any) -> str:
    """Return the qualified name of a function that is not written in Python, or of the class of a callable object."""
    while type(function) is partial:
        function = function.func
    if issubclass(
        type(function), (FunctionType, BuiltinMethodType)
    ):  # some methods in C are of a class derived from it
        return str(function.__qualname__)
    if type(function) is MethodType:
        return name_of(function.__func__)
    return type(function).__qualname__


def _own(protocol: Any, name: str) -> Any:
    """Return a method of a protocol's class, if it is written in Python."""
    kinds = type(protocol).__mro__
    found = next((vars(kind)[name] for kind in kinds if name in vars(kind)), None)
    return found if type(found) is FunctionType and not found.__module__.startswith(("asyncio.", UVLOOP)) else None
