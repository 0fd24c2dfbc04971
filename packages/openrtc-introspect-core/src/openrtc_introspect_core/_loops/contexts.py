"""Whether a loop runs each callback in the context that it was given in.

asyncio's own does, and each of its tasks has a copy of the context in which it was made. On a loop that runs all in one
context, as Qt's own does, a variable that one task sets is set for all: the session whose scope was opened last is
bound in whatever runs then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar

_given: ContextVar[object] = ContextVar("openrtc_introspect_given")

ONE_CONTEXT = (
    "this loop runs all callbacks in one context: of sessions whose scopes are open at once, the one that was opened "
    "last is charged with what all do"
)


def see_contexts(loop: asyncio.AbstractEventLoop, on_one: Callable[[], None]) -> None:
    """Have `on_one` called by a callback, soon, if the loop has one context for all. On the loop's thread."""
    mark = object()

    def see() -> None:
        with suppress(Exception):
            if _given.get(None) is not mark:
                on_one()

    token = _given.set(mark)
    try:
        loop.call_soon(see)
    finally:
        _given.reset(token)
