"""Top-level tasks of a Trio run. Loaded only if the program runs on Trio.

Trio reports a new task before the task's first step, and shows its context, in which its session is bound.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import Context

import trio

from .._loops.hook import LoopHook
from .._native import rebound
from .top_level import Begun, TopLevelSessions, is_top_level

Task = trio.lowlevel.Task


class TopLevelTrioTasks(trio.abc.Instrument):
    """The top-level tasks of the run that it is made in: an instrument of it.

    hook: returns the hook of this run. It is asked in the run, once that is attached to.
    """

    def __init__(self, hook: Callable[[], tuple[LoopHook, str] | None], sessions: TopLevelSessions) -> None:
        self._hook = hook
        self._sessions = sessions
        self._begun: dict[Task, Begun] = {}
        trio.lowlevel.add_instrument(self)

    def task_spawned(self, task: Task) -> None:
        """Begin a task's session. Trio calls it as the task is made."""
        try:
            binding, hook = self._sessions.sessions.binding, self._hook()
            if hook is None or not is_top_level(task.context.get(binding)) or task.coro.__qualname__ in _TRIOS:
                return
            parent = task.parent_nursery.parent_task if task.parent_nursery is not None else None
            root = parent is None or parent is trio.lowlevel.current_root_task()
            begun = self._sessions.begin(task.coro, None, sys._getframe(1), *hook, root=root)
            if begun is not None:
                task.context.run(binding.set, begun.session)
                rebound()
                self._begun[task] = begun
        except Exception as error:
            self._sessions.failed(error)

    def task_exited(self, task: Task) -> None:
        """End a task's session."""
        try:
            begun = self._begun.pop(task, None)
            if begun is not None:
                Context().run(begun.end, None)
        except Exception as error:
            self._sessions.failed(error)


_TRIOS = frozenset({"EntryQueue.task", "Runner.init"})
"""Trio's own tasks."""
