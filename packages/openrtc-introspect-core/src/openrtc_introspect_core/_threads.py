"""The stacks of all threads, now."""

from __future__ import annotations

import asyncio
import sys
import threading

from ._asyncio import AsyncioHook, name_of
from ._ledger import Ledger
from ._sessions import Session
from ._stacks import Places, take
from .wire._messages import ThreadStack


def thread_stacks(hook: AsyncioHook, ledger: Ledger, places: Places) -> list[ThreadStack]:
    """The loop's thread first, then the others by name. From any thread."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()
    holder = ledger.running
    task = asyncio.current_task(hook.loop)
    stacks = []
    for thread_id, frame in frames.items():
        is_loop = thread_id == hook.thread_id
        calls, _ = take(frame, ())
        stacks.append(
            ThreadStack(
                name=names.get(thread_id, ""),
                thread_id=thread_id,
                loop=is_loop,
                session_id=holder.session_id if is_loop and isinstance(holder, Session) else None,
                task_name=name_of(task) if is_loop and task is not None else None,
                frames=[places.location(call) for call in reversed(calls)],
            )
        )
    del frames, frame
    return sorted(stacks, key=lambda stack: (not stack.loop, stack.name, stack.thread_id))
