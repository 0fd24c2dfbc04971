"""Where the tasks of one loop are created, noted while their number grows, or for a while after someone has asked.

Else nothing is added to the creation of a task. The service thread calls `tick` about once a second.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from types import CoroutineType, FrameType
from typing import Any, Protocol

from .._accounting.ledger import Ledger
from .._accounting.meter import is_metered
from .._base.interrupts import is_interrupt
from .._os.callers import user_call
from .._os.stacks import Call, Places
from .._sessions.session import Session
from .asyncio_names import coro_of, is_task
from .coroutine_kinds import name_in
from .greenlet_switches import GreenletSwitches
from .portals import original_of
from .stack_ends import StackEnds
from .starts import Start, Starts, names_of

GROWN_TASKS = 100
"""Fewer live tasks are not said to grow."""
GROWTH = 1.2
"""The number of live tasks grows if it is this many times its lowest of the last seconds."""
WINDOW_S = 30.0
"""The seconds that growth is looked for in."""
NOTED_FOR_S = 60.0
"""Seconds for which creations are noted after the number has grown, or someone has asked."""

_ANYIOS = frozenset({"TaskHandle._run_coro", "TaskGroup._run_wrapped_task"})
"""The coroutines that anyio puts around those of its task groups."""

Note = Callable[[Any, FrameType], None]
"""Called with each new task and the frame that creates it."""


class TaskLoop(Protocol):
    """The hook of a loop, as far as it is needed here."""

    ledger: Ledger
    ends: StackEnds
    greenlets: GreenletSwitches

    def note_tasks(self, note: Note | None) -> None: ...


class TaskStarts(Starts):
    """Where the live tasks of one loop were created, as far as it was noted."""

    def __init__(self, hook: TaskLoop, on_fault: Callable[[str, BaseException], None]) -> None:
        super().__init__()
        self._hook = hook
        self._on_fault = on_fault
        self._failed = False
        self._marks: deque[tuple[float, int]] = deque()
        """(clock reading, live tasks), of the last seconds."""
        self._until = float("-inf")
        self._places: Places | None = None
        """None: creations are not noted now."""

    @property
    def noting(self) -> bool:
        """Return whether creations are noted now."""
        return self._places is not None

    def tick(self, now: float, places: Places) -> None:
        """Begin to note creations once the number of tasks grows, and end it later. From one thread."""
        alive = self._hook.ledger.accounts.tasks()
        while self._marks and now - self._marks[0][0] > WINDOW_S:
            self._marks.popleft()
        self._marks.append((now, alive))
        if alive >= GROWN_TASKS and alive >= GROWTH * min(before for _, before in self._marks):
            self.ask(now, places)
        elif now >= self._until and self.noting:
            self._places = None
            self._hook.note_tasks(None)

    def ask(self, now: float, places: Places) -> None:
        """Note creations from now on, for a while. From the thread that ticks."""
        self._until = now + NOTED_FOR_S
        if not self.noting and not self._failed:
            self.started.clear()
            self._places = places
            self._hook.note_tasks(self._created)

    def _created(self, task: Any, frame: FrameType) -> None:
        """Note a task that the code of `frame` has created. Raise no Exception but interrupts."""
        places, hook = self._places, self._hook
        if places is None:
            return
        try:
            call = user_call_on(hook, frame, places)
            self.note(task, Start(call, function_of(task), names_of(session_of_task(task, hook.ledger.binding))))
        except Exception as error:
            if is_interrupt(error):
                raise
            self._failed, self._places = True, None
            hook.note_tasks(None)
            self._on_fault(f"where tasks are created is not seen any more: {error!r}", error)


def user_call_on(hook: TaskLoop, frame: FrameType, places: Places) -> Call | None:
    """Return the user's call that `frame` is in, on the thread of a loop: no further out than its task's own stack."""
    return user_call(frame, places, hook.ends.codes, in_c=hook.ends.in_c, beyond=hook.greenlets.beyond())


def function_of(task: Any) -> str:
    """Return the qualified name of the function that a task runs, else of its coroutine's type. Empty: it has ended."""
    coro = original_of(_coro_of(task))
    coro = users_coroutine(coro.coro if is_metered(coro) else coro)
    return name_in(coro) if coro is not None else ""


def users_coroutine(coro: Any) -> Any:
    """Return the user's coroutine, if this is the one that anyio's task groups run it in."""
    if type(coro) is CoroutineType and coro.cr_code.co_qualname in _ANYIOS:
        for held in gc.get_referents(coro):
            if type(held) is CoroutineType:
                return held
            if type(held).__module__ == "anyio._core._tasks":  # a TaskHandle
                return getattr(held, "_coro", coro)
    return coro


def session_of_task(task: Any, binding: ContextVar[Session]) -> Session | None:
    """Return the session that a task was created for. None: none, or it is not known. From any thread."""
    if not is_task(task):  # Trio's, which shows its context
        return task.context.get(binding)  # type: ignore[no-any-return]
    coro = original_of(coro_of(task))
    session: Session | None = coro.tag.session if is_metered(coro) else None
    return session


def _coro_of(task: Any) -> Any:
    return coro_of(task) if is_task(task) else task.coro  # Trio's
