"""A session's tasks on a Trio run, as _tasks.py tells asyncio's. Loaded only where the host runs on Trio.

Trio's tasks are a tree: each is a child of a nursery, which is a task's. So who waits for a task is
the task that its nursery is open in, and what that one waits for is said where it waits for them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ._hook import LoopHook
from ._sessions import Session
from ._stacks import Places, frames_now, take
from ._tasks import await_chain, may_look_into, natural
from ._trio import Task, TrioHook, name_of
from .wire._messages import MAX_TASKS, TaskInfo, TaskState

_TASKS_PER_BREATH = 500


def tasks_of_run(session: Session, hook: LoopHook, places: Places, *, first_id: int) -> list[TaskInfo]:
    """The session's live tasks on this run, by name. From any thread."""
    assert isinstance(hook, TrioHook)
    bound = [task for task in _all_below(hook.root()) if task.context.get(hook.ledger.binding) is session]
    # One more than can be told of, so that it is known that there are more.
    tasks = sorted(bound, key=lambda task: natural(name_of(task)))[: MAX_TASKS + 1]
    numbers = {task: number for number, task in enumerate(tasks, start=first_id)}
    described = []
    for task, number in numbers.items():
        parent = task.parent_nursery.parent_task if task.parent_nursery is not None else None
        state: TaskState = "waiting"
        waiting_on = None
        if task is hook.stepping:
            state = "running"
            calls, _ = take(frames_now().get(hook.thread_id), hook.ends)
            calls.reverse()
        else:
            calls, _ = await_chain(task.coro) if may_look_into([hook]) else ([], None)
            if getattr(task, "_next_send_fn", None) is not None:
                state = "ready"
            elif any(call.code.co_qualname == "Nursery._nested_child_finished" for call in calls):
                children = sum(len(nursery.child_tasks) for nursery in tuple(task.child_nurseries)[-1:])
                waiting_on = f"{children} child task{'s' if children != 1 else ''}" if children else None
        described.append(
            TaskInfo(
                id=number,
                name=name_of(task),
                coroutine=getattr(task.coro, "__qualname__", ""),
                state=state,
                awaits=[places.location(call) for call in calls],
                waiting_on=waiting_on,
                awaited_by=[numbers[parent]] if parent in numbers else [],
            )
        )
    return described


def _all_below(root: Task | None) -> Iterator[Task]:
    pending: list[Any] = [root] if root is not None else []
    for count, task in enumerate(pending, start=1):  # it grows meanwhile
        yield task
        for nursery in tuple(task.child_nurseries):
            pending.extend(nursery.child_tasks)
        if count % _TASKS_PER_BREATH == 0:
            time.sleep(1e-6)  # the loop's thread may have the GIL meanwhile
