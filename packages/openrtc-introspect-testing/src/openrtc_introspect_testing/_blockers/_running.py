"""The event loop that runs in this thread: asyncio's, one in its place, or Trio's."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable


def asyncios() -> asyncio.AbstractEventLoop | None:
    """The running loop of asyncio's kind. None: Trio's runs, or none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def call_soon(function: Callable[[], object]) -> bool:
    """Has the loop call `function` outside of this step. Trio has no callbacks: it calls it in a task of its own.

    False: no loop runs, and nothing will.
    """
    if (loop := asyncios()) is not None:
        loop.call_soon(function)
    elif (trio := sys.modules.get("trio")) is not None and trio.lowlevel.in_trio_run():
        trio.lowlevel.current_trio_token().run_sync_soon(function)
    else:
        return False
    return True
