"""The kind of an asyncio loop; the name of a task, the context it runs in, and what else futures and tasks show.

A host may derive classes from asyncio's. What they override is not called, so that no code of the host runs on a thread
that is not its own.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Sequence
from contextvars import Context
from typing import Any

from .._accounting.meter import is_metered
from .coroutine_kinds import name_in

_IN_C: Any = sys.modules.get("_asyncio", asyncio)  # nest_asyncio puts the classes in Python under asyncio's own names
FUTURES: tuple[Any, Any] = _IN_C.Future, asyncio.futures._PyFuture  # type: ignore[attr-defined]
"""The classes of futures: that of asyncio's module in C, and the one in Python."""
_TASKS: tuple[Any, Any] = _IN_C.Task, asyncio.tasks._PyTask  # type: ignore[attr-defined]
"""The same of tasks."""

_WAITER, _CALLBACKS = vars(_TASKS[0]).get("_fut_waiter"), vars(FUTURES[0]).get("_callbacks")
"""Attributes of tasks and futures in C. None: each object has its own, as those in Python do."""


def is_task(future: object) -> bool:
    """Return whether this is a task of asyncio's."""
    return issubclass(type(future), _TASKS)


def is_done(future: Any) -> bool:
    """Return whether a future or a task of asyncio's has ended."""
    base = FUTURES[0] if issubclass(type(future), FUTURES[0]) else FUTURES[1]
    done: bool = base.done(future)
    return done


def coro_of(task: Any) -> Any:
    """Return the coroutine of a task of asyncio's."""
    return _base_of(task).get_coro(task)


def loop_of(task: Any) -> Any:
    """Return the loop of a task of asyncio's."""
    return _base_of(task).get_loop(task)


def callbacks_of(future: Any) -> Sequence[Any]:
    """Return the callbacks of a future or a task of asyncio's, as it has them."""
    return _own(future, _CALLBACKS, FUTURES[0], "_callbacks") or ()


def waiter_of(task: Any) -> Any:
    """Return the future that a task of asyncio's awaits. None: it awaits none."""
    return _own(task, _WAITER, _TASKS[0], "_fut_waiter")


def _own(future: Any, attribute: Any, base: type, name: str) -> Any:
    if attribute is not None and issubclass(type(future), base):
        return attribute.__get__(future)
    return object.__getattribute__(future, "__dict__").get(name)


def _base_of(task: Any) -> Any:
    """Return asyncio's class that a task's class is derived from; its own class, if a factory made something else."""
    kind = type(task)
    if issubclass(kind, _TASKS[0]):  # asked for each of 50,000 tasks: no loop
        return _TASKS[0]
    return _TASKS[1] if issubclass(kind, _TASKS[1]) else kind


def kind_of(loop: asyncio.AbstractEventLoop) -> str:
    """Return the loop's kind, as snapshots show it: the package that runs it, such as "asyncio" or "uvloop"."""
    runs = next((kind for kind in type(loop).__mro__ if "run_forever" in vars(kind)), type(loop))
    return runs.__module__.partition(".")[0]


def name_of(task: asyncio.Task[Any]) -> str:
    """Return the task's name, as text that can be sent."""
    name: str = _base_of(task).get_name(task)
    if name == "None":  # the name that CPython 3.13.0–3.13.2 gives unnamed tasks if a task factory is set
        coro = coro_of(task)
        name = name_in(coro.coro if is_metered(coro) else coro) if coro is not None else name
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def context_of(task: asyncio.Task[Any]) -> Context | None:
    """Return the context that the task runs in; None if it cannot be read."""
    if sys.version_info >= (3, 12):
        base = _base_of(task)
        return base.get_context(task) if hasattr(base, "get_context") else None  # a class of Qt's has none
    # On 3.11 no attribute has it. It is the first context that the task refers to; those of its callbacks follow.
    return next((held for held in gc.get_referents(task) if type(held) is Context), None)
