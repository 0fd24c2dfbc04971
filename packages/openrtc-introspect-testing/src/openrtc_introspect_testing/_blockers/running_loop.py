"""The event loop that runs in this thread: one of asyncio's kind, or Trio's."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable


def asyncios() -> asyncio.AbstractEventLoop | None:
    """Return the running loop of asyncio's kind; None if Trio or no loop runs."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def call_soon(function: Callable[[], object]) -> bool:
    """Make the loop call `function` outside of this step; return whether it will.

    False: no loop runs.

    Trio has no callbacks: it calls `function` in a task of its own.
    """
    if (loop := asyncios()) is not None:
        loop.call_soon(function)
    elif (trio := sys.modules.get("trio")) is not None and trio.lowlevel.in_trio_run():
        trio.lowlevel.current_trio_token().run_sync_soon(function)
    else:
        return False
    return True
