"""Waits for tasks: whose they are, and which of them only wrap what is really waited for."""

from __future__ import annotations

import asyncio
from typing import Any

from .._accounting.meter import is_metered
from .._loops.asyncio_names import callbacks_of, context_of, coro_of, is_task, name_of
from .found import Looker, TaskWait
from .future_callbacks import closures

_NO_WAITERS = ("_count_down", "shield.<locals>._clear_awaited_by_callback", "shield.<locals>._log_on_exception")
"""Callbacks by which nobody waits: the hook's, which counts live tasks if steps are not metered, and asyncio's."""


def session_of_task(task: asyncio.Task[Any], looker: Looker) -> Any:
    """Return the session that is bound in a task. None: no session is, or it cannot be seen."""
    context = context_of(task)
    if context is not None:
        return context.get(looker.binding)
    coro = coro_of(task)
    return coro.tag.session if is_metered(coro) else None


def wait_for_task(task: asyncio.Task[Any], looker: Looker, what: str = "") -> TaskWait:
    """Return the wait for a task."""
    session = session_of_task(task, looker)
    kind = "shared-task" if session is None else "own-task" if session is looker.session else "other-task"
    return TaskWait(kind, task, what or f"task {name_of(task)}")


def only_wraps(task: asyncio.Task[Any], looker: Looker) -> bool:
    """Return whether nobody but the looker waits for this task, which is of its own session.

    wait_for, shield and gather make such a task of a coroutine. Whoever looks waits for the same as the task.
    """
    if session_of_task(task, looker) is not looker.session:
        return False
    return sum(name not in _NO_WAITERS for name, _ in closures(callbacks_of(task))) <= 1


def name_of_task(task: Any) -> str:
    """Return the name of a task of any loop, as text that can be sent."""
    if is_task(task):
        return name_of(task)
    name: str = getattr(task, "name", "")  # Trio's
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
