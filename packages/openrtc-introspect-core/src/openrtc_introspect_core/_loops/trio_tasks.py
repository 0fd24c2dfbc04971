"""A session's tasks on a Trio run, as asyncio_tasks.py lists asyncio's.

Loaded only if the host runs on Trio.

Trio's tasks are a tree: each is a child of a nursery, which is open in a task. That task waits for the children of
its nursery once it has reached the nursery's end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from weakref import ref

import trio

from .._os.stacks import Places
from .._sessions.session import Session
from ..wire._messages import MAX_TASKS, TaskInfo, TaskState
from .await_chain import await_chain, may_look_into, natural
from .hook import LoopHook
from .running_calls import calls_now
from .suspended import SuspendedTask
from .task_starts import function_of

_TASKS_PER_YIELD = 500

Task = trio.lowlevel.Task


def tasks_of_run(
    session: Session, hook: LoopHook, root: Task | None, stepping: Task | None, places: Places, *, first_id: int
) -> list[TaskInfo]:
    """Return the session's live tasks on this run, by name. From any thread.

    root: the ancestor of all tasks; None: the run is over. stepping: the task whose step runs.
    """
    bound = [task for task in all_below(root) if task.context.get(hook.ledger.binding) is session]
    # One more than can be sent shows that there are more.
    tasks = sorted(bound, key=lambda task: natural(name_of(task)))[: MAX_TASKS + 1]
    numbers = {task: number for number, task in enumerate(tasks, start=first_id)}
    described = []
    for task, number in numbers.items():
        parent = task.parent_nursery.parent_task if task.parent_nursery is not None else None
        state: TaskState = "waiting"
        waiting_on = None
        if task is stepping:
            state = "running"
            calls = calls_now(hook)
        else:
            calls, _ = await_chain(task.coro) if may_look_into(hook.thread_id) else ([], None)
            if getattr(task, "_next_send_fn", None) is not None:
                state = "ready"
            elif any(call.function == "Nursery._nested_child_finished" for call in calls):
                children = sum(len(nursery.child_tasks) for nursery in tuple(task.child_nurseries)[-1:])
                waiting_on = f"{children} child task{'s' if children != 1 else ''}" if children else None
        described.append(
            TaskInfo(
                id=number,
                name=name_of(task),
                coroutine=function_of(task),
                state=state,
                awaits=[places.location(call) for call in calls],
                waiting_on=waiting_on,
                awaited_by=[numbers[parent]] if parent in numbers else [],
            )
        )
    return described


def live_tasks(root: Task | None) -> list[Callable[[], Task | None]]:
    """Return weak references to the tasks of this run. From any thread. root: None: the run is over."""
    return [ref(task) for task in all_below(root)]


def suspended_task(task: Any, hook: LoopHook) -> SuspendedTask | None:
    """Return what a task shows of itself; None if it has ended, or is no task. It is not the one whose step runs."""
    if type(task) is not Task:
        return None
    ready = getattr(task, "_next_send_fn", None) is not None
    if not ready and not getattr(task.coro, "cr_suspended", True):
        return None
    binding = hook.ledger.binding
    return SuspendedTask(
        task, task.context.get(binding), task.coro, hook.stepped_at(task), "ready" if ready else "waiting", binding
    )


def all_below(root: Task | None) -> Iterator[Task]:
    """Yield this task, and all tasks that it is an ancestor of. From any thread. None: none."""
    pending: list[Any] = [root] if root is not None else []
    for count, task in enumerate(pending, start=1):  # the list grows meanwhile
        yield task
        for nursery in tuple(task.child_nurseries):
            pending.extend(nursery.child_tasks)
        if count % _TASKS_PER_YIELD == 0:
            time.sleep(1e-6)  # gives the GIL to the loop's thread


def name_of(task: Task) -> str:
    """Return the task's name, as text that can be sent."""
    return task.name.encode("utf-8", "backslashreplace").decode("utf-8")
