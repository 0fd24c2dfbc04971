"""The coroutine that a task of asyncio's drives, replaced by another one.

A task written in C shows its coroutine, and lets nobody set it. The place is found by its value: it is the one place of
the task that holds the coroutine. The meter in C does the same without `ctypes`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .._native import native

if TYPE_CHECKING or native is None:
    import ctypes


def replace_coro(task: Any, driven: Any, by: Any) -> bool:
    """Have a task that has not begun drive `by`, not `driven`. Return whether it does now.

    On the loop's thread. `by` keeps `driven` alive.
    """
    if not issubclass(type(task), asyncio.Task):
        task._coro = by  # the class in Python
        return True
    replaced: bool = native.replace_coro(task, driven, by) if native is not None else _replace(task, driven, by)
    return replaced


def _replace(task: Any, driven: Any, by: Any) -> bool:
    """Do what C does: give the task's reference to `driven` back, for one to `by`."""
    words = (ctypes.c_void_p * (asyncio.Task.__basicsize__ // ctypes.sizeof(ctypes.c_void_p))).from_address(id(task))
    places = [index for index, word in enumerate(words) if word == id(driven)]
    if len(places) != 1:
        return False
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(by))
    words[places[0]] = id(by)
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(driven))
    return True
