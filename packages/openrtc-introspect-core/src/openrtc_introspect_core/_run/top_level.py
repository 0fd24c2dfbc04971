"""Sessions of a program that opens none: its top-level tasks, by name and by the line that creates them.

A root is a task that is made while its loop does not run, such as the main task of `asyncio.run`. A root is a session.
So is each task that a root creates, and each one that is created outside of every session, as for the connections of a
server: a top-level task. What a top-level task creates is its session's. A session ends with its task, on asyncio
within a second: the program's tasks have no callbacks of ours, which messages about a task would show.

A line that creates tasks faster than MAX_AT_ONCE, and RATE a second after those, has its further tasks in one session
that all of them share, as have those beyond MAX_LIVE. So thousands of short tasks are one row, and calls that last are
a row each.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Mapping
from types import CodeType, CoroutineType, FrameType, MappingProxyType
from typing import Any

from .._base.clock import Clock
from .._base.interrupts import is_interrupt
from .._base.validation import MAX_NAME
from .._loops.coroutine_kinds import name_in
from .._loops.hook import LoopHook
from .._loops.task_starts import user_call_on, users_coroutine
from .._os.callers import user_call
from .._os.stacks import Call, Places
from .._sessions.registry import SessionRegistry
from .._sessions.scope import SessionScope
from .._sessions.session import Session

MAX_AT_ONCE = 200
"""The tasks that one line may create at once, each a session of its own."""
RATE = 10.0
"""The tasks per second that it may create so after those."""
MAX_LIVE = 1000
"""While so many sessions live, further tasks share one with the others of their line."""
MAX_ORIGINS = 500
"""The lines that are known. The tasks of further ones belong to no session of their own."""

INTERNAL = frozenset({"_serve_one_listener", "shutdown_asyncgens", "shutdown_default_executor"})
"""Functions that serve all sessions: of Trio what accepts connections, of uvloop what ends a loop."""
_INTERNAL_OF = "EventLoop"
"""The end of the names of asyncio's classes of loops: their methods accept connections, and look up names."""

_CREATORS = frozenset(
    {asyncio.create_task.__code__, asyncio.ensure_future.__code__, asyncio.TaskGroup.create_task.__code__}
)
"""What creates tasks for others."""

_AROUND_MAIN = frozenset({"run.<locals>.wrapper", "AsyncIOBackend.run.<locals>.wrapper"})
"""The coroutines that uvloop and anyio put around the main one."""

ROOT: Mapping[str, Any] = MappingProxyType({})
"""The metadata of a root's session, by which it is known."""


class Begun:
    """A task's session. `end` is called with the exception that ended the task, or None."""

    __slots__ = ("_scope", "session")

    def __init__(self, session: Session, scope: SessionScope | None) -> None:
        self.session = session
        self._scope = scope
        """None: the session is shared, and does not end with this task."""

    @property
    def shared(self) -> bool:
        """Return whether others share the session: it does not end with this task."""
        return self._scope is None

    def end(self, error: BaseException | None) -> None:
        """End the session, unless others share it."""
        scope, self._scope = self._scope, None
        if scope is not None:
            scope.__exit__(type(error) if error is not None else None, error, None)


class Origin:
    """A line that creates tasks, and a function that they run."""

    def __init__(self, function: str, place: str, now: float) -> None:
        self.function = function
        self.place = place
        self.count = 0
        self.shared: SessionScope | None = None
        self._left = float(MAX_AT_ONCE)
        self._at = now

    def take(self, now: float) -> bool:
        """Return whether one more of its tasks may be a session of its own."""
        self._left = min(MAX_AT_ONCE, self._left + RATE * (now - self._at))
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class TopLevelSessions:
    """The sessions of one process's top-level tasks. Used on any loop's thread."""

    def __init__(self, sessions: SessionRegistry, places: Places, clock: Clock) -> None:
        self.sessions = sessions
        self.places = places
        self._clock = clock
        self._origins: dict[tuple[str, str, int], Origin] = {}
        self._known: dict[tuple[CodeType, CodeType, int], Origin | None] = {}
        """Those of tasks that a line of the user's own creates, by the code of the task and of that line."""
        self._followed: list[tuple[weakref.ref[Any], Begun]] = []
        self._lock = threading.RLock()

    def begin(
        self, coro: Any, name: str | None, frame: FrameType | None, hook: LoopHook, loop_name: str, *, root: bool
    ) -> Begun | None:
        """Begin the session of a new task, unless it inherits that of its creator.

        name: the task's, if it was given one. frame: the code that creates it. root: whether its loop does not run.
        """
        if self.sessions.state != "open":
            return None
        with self._lock:
            origin = self._origin(coro, frame, None if root else hook)
            if origin is None:
                return None
            if root or (origin.take(self._clock()) and len(self.sessions.live) < MAX_LIVE):
                scope = self._scope(origin, name or origin.function, loop_name, root=root)
                return Begun(_session_of(scope), scope)
            if origin.shared is None:
                origin.shared = self._scope(origin, f"{origin.function} (others)", loop_name, root=False)
            return Begun(_session_of(origin.shared), None)

    def _origin(self, coro: Any, frame: FrameType | None, hook: LoopHook | None) -> Origin | None:
        """Return where a task is created. None: it serves all sessions, or there are too many lines.

        hook: that of the loop whose code creates it; None: it is created outside of the loop.
        """
        while frame is not None and frame.f_code in _CREATORS:
            frame = frame.f_back
        if frame is None or type(coro) is not CoroutineType or not self.places.is_users(frame.f_code.co_filename):
            return self._look_up(coro, frame, hook)
        key = coro.cr_code, frame.f_code, frame.f_lineno  # a user's line: nobody else's is further in
        if key not in self._known:
            if len(self._known) >= MAX_ORIGINS:
                return None
            self._known[key] = self._look_up(coro, frame, hook)
        return self._known[key]

    def _look_up(self, coro: Any, frame: FrameType | None, hook: LoopHook | None) -> Origin | None:
        coro = users_coroutine(coro)
        name = name_in(coro)
        function = "main" if name in _AROUND_MAIN else name.rpartition("<locals>.")[2]
        owner, _, method = function.rpartition(".")
        if method in INTERNAL or owner.endswith(_INTERNAL_OF):
            return None
        if hook is None:
            call = user_call(frame, self.places)
        else:
            call = user_call_on(hook, frame, self.places) if frame is not None else None
        code = getattr(coro, "cr_code", None) or getattr(coro, "gi_code", None)
        if call is None and code is not None:  # a callback of a library's creates it
            call = Call(code.co_filename, code.co_firstlineno, code.co_qualname)
        key = (function, call.file, call.line) if call is not None else (function, "", 0)
        if key not in self._origins:
            if len(self._origins) >= MAX_ORIGINS:
                return None
            location = self.places.location(call) if call is not None else None
            place = f"{location.file}:{location.line}" if location is not None else function
            self._origins[key] = Origin(function, place[-MAX_NAME:], self._clock())
        return self._origins[key]

    def follow(self, begun: Begun, task: Any) -> None:
        """Have the session end soon after this task of asyncio's."""
        if not begun.shared:
            with self._lock:
                self._followed.append((weakref.ref(task), begun))

    def end_of_tasks(self) -> None:
        """End the sessions of followed tasks that are done, or were never finished and are gone. From any thread."""
        with self._lock:
            followed, self._followed = self._followed, []
            for task_ref, begun in followed:
                task = task_ref()
                if task is not None and not task.done():
                    self._followed.append((task_ref, begun))
                else:  # not by `exception()`, after which asyncio would no longer log that nobody has retrieved it
                    begun.end(None if task is None or task.cancelled() else getattr(task, "_exception", None))

    def failed(self, error: Exception) -> None:
        """Note that a session could not be begun or ended. Raise the error if it is an interrupt."""
        if is_interrupt(error):
            raise error
        self.sessions.notes.add("top-level tasks", f"a task's session could not be begun: {error!r}", error)

    def _scope(self, origin: Origin, name: str, loop_name: str, *, root: bool) -> SessionScope:
        """Return the scope of a new session, begun: it is named after its task, with a number if that is not new."""
        origin.count += 1
        name = name[: MAX_NAME - 12].encode("utf-8", "replace").decode()
        number = origin.count if name == origin.function else 1
        session_id = name if number == 1 else f"{name}-{number}"
        if session_id in self.sessions.live:
            self.end_of_tasks()
        while session_id in self.sessions.live:
            number += 1
            session_id = f"{name}-{number}"
        scope = SessionScope(self.sessions, session_id, origin.place, ROOT if root else {})
        scope.begin().loop = loop_name
        return scope


def is_top_level(creator: Session | None) -> bool:
    """Return whether a task that code of this session creates is a session of its own."""
    return creator is None or creator.metadata is ROOT


def _session_of(scope: SessionScope) -> Session:
    session = scope.session
    assert session is not None
    return session
