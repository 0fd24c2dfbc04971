"""The stacks of all threads, now."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import FrameType

from ._hook import LoopHook
from ._stacks import Places, frames_now, take
from .wire._messages import ThreadStack


def thread_stacks(hooks: Sequence[LoopHook], places: Places) -> list[ThreadStack]:
    """The loops' threads first, then the others by name. From any thread; without a GIL only its own has frames."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames: dict[int, FrameType | None] = {**dict.fromkeys(filter(None, names)), **frames_now()}
    # Of several loops of one thread, the one that runs.
    loops = {hook.thread_id: hook for hook in sorted(hooks, key=lambda hook: hook.runs())}
    stacks = []
    for thread_id, frame in frames.items():
        hook = loops.get(thread_id)
        holder = hook.ledger.running if hook is not None else None
        session = holder.session if holder is not None else None
        calls, _ = take(frame, ())
        stacks.append(
            ThreadStack(
                name=names.get(thread_id, ""),
                thread_id=thread_id,
                loop=hook is not None,
                session_id=session.session_id if session is not None else None,
                task_name=hook.task_name() if hook is not None else None,
                frames=[places.location(call) for call in reversed(calls)],
            )
        )
    del frames, frame
    return sorted(stacks, key=lambda stack: (not stack.loop, stack.name, stack.thread_id))
