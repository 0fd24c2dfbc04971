"""Which loop to attach to, and with what kind of hook."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import TYPE_CHECKING, Any

from ._asyncio import AsyncioHook
from ._errors import StateError
from ._hook import LoopHook

if TYPE_CHECKING:
    from trio.lowlevel import TrioToken

    Loop = asyncio.AbstractEventLoop | TrioToken
else:
    Loop = Any


def loop_to_attach(loop: Loop | None) -> Loop:
    """`loop`, or the running one for None. Raises StateError where there is none, or it runs elsewhere."""
    running = running_loop()
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
    """asyncio's running loop, or the token of the Trio run; where one is the other's guest, whose task this is."""
    trio = sys.modules.get("trio")  # a host that runs on it has loaded it
    in_trio = trio is not None and trio.lowlevel.in_trio_run()
    if trio is not None and in_trio and trio.lowlevel.in_trio_task():
        token: TrioToken = trio.lowlevel.current_trio_token()
        return token
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return trio.lowlevel.current_trio_token() if trio is not None and in_trio else None


def told(loop: Loop) -> str:
    """What an error calls it."""
    return repr(loop) if isinstance(loop, asyncio.AbstractEventLoop) else "this Trio run"


def hook_into(loop: Loop, **arguments: Any) -> LoopHook:
    """The hook into a loop of this kind. Raises StateError for what is none, or is closed."""
    if isinstance(loop, asyncio.AbstractEventLoop):
        return AsyncioHook(loop, **arguments)
    trio = sys.modules.get("trio")
    if trio is None or not isinstance(loop, trio.lowlevel.TrioToken):
        raise StateError(f"cannot attach to {loop!r}: it is no asyncio event loop and no Trio token")
    from ._trio import TrioHook

    return TrioHook(loop, **arguments)
