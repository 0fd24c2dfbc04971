"""Differences between Python with and without a GIL.

On free-threaded builds threads run Python code at the same time. Reading and writing an attribute or an item of a list
or dict, and copying a dict's views, is atomic there too. Two things are not (docs/decisions/0011-free-threaded.md):

- copying a deque to which another thread appends
- reading the frames of another thread, or of a coroutine that may be resumed meanwhile: it crashes the interpreter
"""

from __future__ import annotations

import sys
import sysconfig
import time
from collections import deque
from typing import TypeVar

Item = TypeVar("Item")

FREE_THREADED_BUILD: bool = sysconfig.get_config_var("Py_GIL_DISABLED") == 1
"""Whether this Python can run without a GIL; an extension module may have switched the GIL on."""

MISSING_WITHOUT_GIL = (
    "no GIL: other threads' stacks cannot be read safely, so blocks have no line, C code and imports count as Python "
    "code, and neither the session of a callback nor where tasks wait is reported"
)
"""The note of a worker without a GIL."""

_MAX_TRIES = 1000


def has_gil() -> bool:
    """Return whether the GIL is on now.

    Importing an extension module may switch it on.
    """
    enabled: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
    return enabled


def copied(items: deque[Item]) -> list[Item]:
    """Return the items of a deque to which other threads append.

    Returns an empty list if they never stop.
    """
    for _ in range(_MAX_TRIES):
        try:
            return list(items)
        except RuntimeError:  # it changed during the copy
            continue
    return []


def yield_gil() -> None:
    """Let another thread take the GIL, if one waits for it.

    Without the pause that thread waits for the switch interval of 5 ms. After a pause of 0 this thread takes the GIL
    back before the other one wakes.
    """
    time.sleep(1e-6)
