"""The loop to attach to, and the hook for its kind."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any

from .._base.errors import StateError
from .asyncio_hook import AsyncioHook
from .hook import LoopHook
from .inner_loops import token_around

if TYPE_CHECKING:
    from trio.lowlevel import TrioToken

    Loop = asyncio.AbstractEventLoop | TrioToken
else:
    Loop = Any


def loop_to_attach(loop: Loop | None) -> Loop:
    """Return `loop`, or the running one for None.

    Raise StateError if there is none, or it runs elsewhere. For a loop of trio-asyncio's: the token of its Trio run.
    """
    running = running_loop()
    if (token := token_around(loop)) is not None:
        loop = token  # it is metered with the Trio run that it is a part of
    if loop is None and running is None:
        raise StateError("no event loop is running here: attach inside asyncio or Trio, or name the loop to attach to")
    if isinstance(loop, asyncio.AbstractEventLoop) and loop is not running and loop.is_running():
        thread_id = getattr(loop, "_thread_id", None)
        if thread_id is None:
            raise StateError(f"{loop!r} runs, and does not run this code: attach from a callback or a task of its own")
        if thread_id != threading.get_ident():
            raise StateError(f"{loop!r} runs in another thread: attach from its own, by loop.call_soon_threadsafe")
    target = loop if loop is not None else running
    assert target is not None
    return target


def running_loop() -> Loop | None:
    """Return asyncio's running loop, or the token of the Trio run.

    None if neither runs here.

    If one is the guest of the other, the one whose task runs this code.
    """
    trio = sys.modules.get("trio")  # a host that runs on Trio has loaded it
    in_trio = trio is not None and trio.lowlevel.in_trio_run()
    if trio is not None and in_trio and trio.lowlevel.in_trio_task():
        token: TrioToken = trio.lowlevel.current_trio_token()
        return token
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return trio.lowlevel.current_trio_token() if trio is not None and in_trio else None


def describe(loop: Loop) -> str:
    """Return the loop's name for error messages."""
    return repr(loop) if isinstance(loop, asyncio.AbstractEventLoop) else "this Trio run"


def hook_into(loop: Loop, **arguments: Any) -> LoopHook:
    """Return a hook into a loop of this kind.

    Raise StateError if `loop` is no event loop, or is closed.
    """
    if isinstance(loop, asyncio.AbstractEventLoop):
        return AsyncioHook(loop, **arguments)
    trio = sys.modules.get("trio")
    if trio is None or not isinstance(loop, trio.lowlevel.TrioToken):
        raise StateError(f"cannot attach to {loop!r}: it is no asyncio event loop and no Trio token")
    from .trio_hook import TrioHook

    return TrioHook(loop, **arguments)
