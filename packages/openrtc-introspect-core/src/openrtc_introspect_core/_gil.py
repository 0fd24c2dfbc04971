"""What holds without a GIL: on free-threaded builds of Python, threads run Python code at the same time.

Reading and writing an attribute, an item of a list or a dict, and copying a dict's views are whole
everywhere. Two things are not (docs/decisions/0011-free-threaded.md):

- a deque that another thread appends to cannot be copied in one go;
- the frames of another thread must not be walked, nor a coroutine's that may be resumed meanwhile: that
  crashes the interpreter.
"""

from __future__ import annotations

import sys
import sysconfig
from collections import deque
from typing import TypeVar

Item = TypeVar("Item")

FREE_THREADED_BUILD: bool = sysconfig.get_config_var("Py_GIL_DISABLED") == 1
"""Whether this Python can do without; an extension module may have switched the GIL on all the same."""

BLIND_TO = (
    "no GIL: other threads' stacks cannot be looked at safely, so blocks have no line, C code is not told from "
    "Python code, and imports, whose a callback is and where tasks wait are not told"
)

_TRIES = 1000


def has_gil() -> bool:
    """Whether one thread at a time runs Python code, now: importing an extension module may switch it on."""
    enabled: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
    return enabled


def copied(items: deque[Item]) -> list[Item]:
    """What is in it, while other threads append. Nothing, should they never stop."""
    for _ in range(_TRIES):
        try:
            return list(items)
        except RuntimeError:  # it changed meanwhile
            continue
    return []
