"""Answers that are read on demand: tasks of a session, stacks of all threads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import FrameType

from msgspec.structs import replace

from .._loops.await_chain import natural
from .._loops.hook import LoopHook
from .._os.stacks import Places, frames_now, take
from .._sessions.session import Session, session_of
from ..wire._messages import MAX_TASKS, TaskInfo, ThreadStack


def tasks_of(session: Session, hooks: Sequence[LoopHook], places: Places) -> tuple[list[TaskInfo], bool]:
    """Return (its live tasks on these loops by name, whether there are more than MAX_TASKS).

    From any thread.
    """
    described: list[TaskInfo] = []
    for hook in hooks:
        described += hook.tasks(session, places, first_id=len(described) + 1)
    listed = sorted(described, key=lambda task: natural(task.name))[:MAX_TASKS]
    numbers = {task.id: number for number, task in enumerate(listed, start=1)}
    tasks = [
        replace(
            task, id=numbers[task.id], awaited_by=sorted(numbers[each] for each in task.awaited_by if each in numbers)
        )
        for task in listed
    ]
    return tasks, len(described) > MAX_TASKS


def thread_stacks(hooks: Sequence[LoopHook], places: Places) -> list[ThreadStack]:
    """Return the loops' threads first, then the others by name. From any thread.

    Without a GIL only the calling thread has frames.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames: dict[int, FrameType | None] = {**dict.fromkeys(filter(None, names)), **frames_now()}
    # Of several loops of one thread, the one that runs.
    loops = {hook.thread_id: hook for hook in sorted(hooks, key=lambda hook: hook.runs())}
    stacks = []
    for thread_id, frame in frames.items():
        hook = loops.get(thread_id)
        holder = hook.ledger.holder if hook is not None else None
        session = session_of(holder.session) if holder is not None else None
        calls, _ = take(frame, (), beyond=hook.greenlets.beyond() if hook is not None else ())
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
