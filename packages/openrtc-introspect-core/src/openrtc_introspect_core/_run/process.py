"""The introspection of one process: an introspector on each event loop that it runs."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, cast

from .._base import fork
from .._base.errors import StateError
from .._base.interrupts import is_interrupt
from .._base.replaced_method import Replaced
from .._introspector import Introspector, parts_of
from .._loops.hook import LoopHook
from .._loops.loop_starts import LoopStarts
from .._loops.running_loop import Loop
from .._sessions.registry import SessionRegistry
from .asyncio_tasks import TopLevelTasks, serve_outside_of_sessions
from .children import follow_children
from .livekit_jobs import see_jobs
from .top_level import TopLevelSessions


class ProcessIntrospection:
    """One introspector, made with the process's first loop, and attached to each one before it runs.

    It gives way for good as soon as the program attaches an introspector of its own. A forked child has another one.

    options: the arguments of the Introspector.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = dict(options)
        self.gave_way = False
        self._has_failed = False
        self._starts = LoopStarts(self._attach, self._detach, self._guarded)
        self._serving: dict[type, list[Replaced]] = {}
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self._introspector: Introspector | None = None
        self._sessions: TopLevelSessions | None = None
        self._tasks: dict[Loop, TopLevelTasks] = {}

    abandon_after_fork = _forget

    def begin(self) -> None:
        """Attach to each loop that runs from now on, until the process ends."""
        fork.shared.append(self)
        self._starts.__enter__()
        follow_children(lambda: None if self.gave_way else self.options)
        see_jobs(self)

    @property
    def name(self) -> str:
        """Return the worker's name."""
        return str(self.options["name"])

    @property
    def introspector(self) -> Introspector | None:
        """Return the introspector; None: no loop has run so far, or it has given way."""
        return self._introspector

    def attached(self) -> Introspector:
        """Return the introspector. Raise StateError if there is none."""
        if self._introspector is None:
            raise StateError("this process is not introspected by `openrtc run`")
        return self._introspector

    def give_way(self) -> None:
        """Leave the process to an introspector of its own."""
        self.gave_way = True
        self.close()

    def ended_by(self, error: BaseException) -> None:
        """Take note of the exception that ends the program."""
        if self._introspector is not None:
            parts_of(self._introspector).ended_by(error)

    def close(self) -> None:
        """Detach from all loops."""
        with self._lock:
            introspector, tasks = self._introspector, list(self._tasks.values())
            self._introspector = self._sessions = None
            self._tasks = {}
        if introspector is not None:
            for each in tasks:
                each.detach()
            introspector.close()

    # --- loops ---------------------------------------------------------------------------------------

    def _attach(self, loop: Loop) -> bool:
        """Attach to a loop that is new; return whether this call did. Raise nothing but interrupts."""
        with self._guarded(type(loop).__qualname__), self._lock:
            if self.gave_way:
                return False
            introspector = self._introspector or self._made()
            if any(each.hook.is_loop(loop) for each in parts_of(introspector).loops):
                return False
            self._leave_idle()
            self._attach_new(loop, introspector)
            return True
        return False

    def _made(self) -> Introspector:
        introspector = Introspector(**self.options)
        parts = parts_of(introspector)
        parts.give_way = self.give_way
        parts.shared.history.logged = False  # the program's output stays its own
        self._introspector = introspector
        self._sessions = TopLevelSessions(parts.shared.sessions, parts.shared.places, parts.shared.clock)
        parts.each_tick = self._sessions.end_of_tasks
        atexit.register(self.give_way)  # what runs later, in another handler of the end, is not introspected
        if (util := sys.modules.get("multiprocessing.util")) is not None:  # whose children may end without `atexit`
            util.Finalize(None, self.give_way, exitpriority=0)
        return introspector

    def _attach_new(self, loop: Loop, introspector: Introspector) -> None:
        sessions, parts = self._sessions, parts_of(introspector)
        assert sessions is not None
        if not isinstance(loop, asyncio.AbstractEventLoop):
            from .trio_tasks import TopLevelTrioTasks

            # First, so that a task is bound before the hook sees it.
            TopLevelTrioTasks(lambda: hook_here(introspector), sessions)
            introspector.attach(loop)
            return
        introspector.attach(loop)
        parts.watch_without_sessions()
        attached = next(each for each in parts.loops if each.hook.is_loop(loop))
        self._tasks[loop] = TopLevelTasks(loop, attached.hook, attached.name, sessions)
        if type(loop) not in self._serving:
            self._serving[type(loop)] = serve_outside_of_sessions(type(loop), self._registry)

    def _leave_idle(self) -> None:
        """Detach from this thread's loops that do not run and have no task: they may never be closed.

        One that runs again is attached to again. Its tasks would still be metered as those of the first time.
        """
        for loop, tasks in list(self._tasks.items()):
            here = tasks.hook.thread_id == threading.get_ident()
            if here and not tasks.hook.runs() and not asyncio.all_tasks(cast("asyncio.AbstractEventLoop", loop)):
                self._detach(loop)

    def _registry(self) -> SessionRegistry | None:
        sessions = self._sessions
        return sessions.sessions if sessions is not None else None

    def _detach(self, loop: Loop) -> None:
        """Detach from a loop that does not run."""
        with self._lock:
            tasks = self._tasks.pop(loop, None)
            introspector, sessions = self._introspector, self._sessions
        if tasks is not None and introspector is not None and sessions is not None:
            tasks.detach()
            sessions.end_of_tasks()
            if any(each.hook.is_loop(loop) for each in parts_of(introspector).loops):
                introspector.detach(loop)

    # --- faults --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if is_interrupt(error):
                raise
            self._failed(what, error)

    def _failed(self, what: str, error: Exception) -> None:
        """Describe the first fault in one line on stderr; the program runs on."""
        if not self._has_failed:
            self._has_failed = True
            with contextlib.suppress(Exception):
                print(f"openrtc: introspection of {what} is not possible: {error}", file=sys.stderr)


def follow(options: Mapping[str, Any]) -> ProcessIntrospection:
    """Begin to attach to the loops of this process and of those that it spawns, unless that has begun."""
    if not _following:
        _following.append(ProcessIntrospection(options))
        _following[0].begin()
    return _following[0]


_following: list[ProcessIntrospection] = []
"""That of this process, once it has begun."""


def hook_here(introspector: Introspector) -> tuple[LoopHook, str] | None:
    """Return the hook and the name of the loop that the calling code runs on; None: it is not attached to."""
    attached = parts_of(introspector).loops.here()
    return (attached.hook, attached.name) if attached is not None else None
