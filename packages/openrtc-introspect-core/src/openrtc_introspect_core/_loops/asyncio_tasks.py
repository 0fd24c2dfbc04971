"""A session's tasks on an asyncio loop, and what each of them waits for.

They are read on demand from another thread while the loop goes on: nothing is kept, and no task pays for it.
A task is a session's if the session is bound in the task's context now. So a task that is older than its scope is
found as well as one that was created inside.

The callbacks of a task show which task waits for it: a callback is the waiting task's own wake-up, or it holds the
future that gather, wait, shield or a task group has the task wait on.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import time
from collections.abc import Callable, Iterator
from types import CoroutineType
from typing import Any
from weakref import ref

from .._accounting.meter import is_metered
from .._base.gil import yield_gil
from .._os.stacks import Places
from .._sessions.session import Session
from ..wire._messages import MAX_TASKS, TaskInfo, TaskState
from .asyncio_names import context_of, coro_of, is_done, is_task, loop_of, name_of, waiter_of
from .await_chain import await_chain, is_future, may_look_into, natural
from .hook import LoopHook
from .running_calls import calls_now
from .suspended import SuspendedTask
from .task_starts import function_of

_TASKS_PER_YIELD = 500

Task = asyncio.Task[Any]


def tasks_of_loop(
    session: Session, loop: asyncio.AbstractEventLoop, hook: LoopHook, places: Places, *, first_id: int
) -> list[TaskInfo]:
    """Return the session's live tasks on this loop, by name. From any thread."""
    # One more than can be sent shows that there are more.
    bound = sorted(_bound_to(session, loop, hook), key=lambda task: natural(name_of(task)))[: MAX_TASKS + 1]
    numbers = {task: number for number, task in enumerate(bound, start=first_id)}
    waiting_on = {task: waiter for task in bound if (waiter := waiter_of(task)) is not None}
    waiting_for: dict[int, list[Task]] = {}
    for task, waiter in waiting_on.items():
        waiting_for.setdefault(id(waiter), []).append(task)
    running = asyncio.current_task(loop)
    described = []
    for task, number in numbers.items():
        state: TaskState = "waiting"
        if task is running:
            state = "running"
            calls = calls_now(hook)
            detail = None
        else:
            if (waiter := waiting_on.get(task)) is None or (is_future(waiter) and is_done(waiter)):
                state = "ready"
            calls, detail = await_chain(coro_of(task), waiter) if may_look_into(hook.thread_id) else ([], None)
        waiters = {numbers[each] for each in _waiters(task, waiting_for) if each in numbers and each is not task}
        described.append(
            TaskInfo(
                id=number,
                name=name_of(task),
                coroutine=function_of(task),
                state=state,
                awaits=[places.location(call) for call in calls],
                waiting_on=detail if state == "waiting" else None,
                awaited_by=sorted(waiters),
            )
        )
    return described


def live_tasks(loop: asyncio.AbstractEventLoop) -> list[Callable[[], Task | None]]:
    """Return weak references to the live tasks of this loop. From any thread, in slices.

    They keep no task alive, so no task ends on the reader's thread.
    """
    known = _registered()
    living: list[Callable[[], Task | None]] = []
    if sys.version_info >= (3, 14) or known is None:
        tasks = _all_tasks(loop)
        while tasks:
            living.append(ref(tasks.pop()))
            if len(living) % _TASKS_PER_YIELD == 0:
                yield_gil()
        return living
    # Copying the references is a matter of 0.2 ms for 50,000; all_tasks() would hold the GIL for 10 ms.
    for count, each in enumerate(list(known), start=1):
        task = each()
        if task is not None and loop_of(task) is loop and not is_done(task):
            living.append(each)
        if count % _TASKS_PER_YIELD == 0:
            yield_gil()
    return living


def _registered() -> set[Callable[[], Task | None]] | None:
    """Return weak references to the tasks of all loops: from Python 3.14 on, only those that are no tasks in C."""
    registry = getattr(asyncio.tasks, "_all_tasks" if sys.version_info < (3, 12) else "_scheduled_tasks", None)
    return getattr(registry, "data", None)


def _all_tasks(loop: asyncio.AbstractEventLoop) -> set[Task]:
    """Return the live tasks of this loop, those too that `asyncio.all_tasks` of Python 3.14 leaves out."""
    tasks = asyncio.all_tasks(loop)
    if sys.version_info >= (3, 14):
        others = [task for each in list(_registered() or ()) if (task := each()) is not None and is_task(task)]
        tasks.update(task for task in others if loop_of(task) is loop and not is_done(task))
    return tasks


def suspended_task(task: Task, loop: asyncio.AbstractEventLoop, hook: LoopHook) -> SuspendedTask | None:
    """Return what a live task shows of itself.

    None: it runs now, has ended, is another loop's, or no task. From any thread.
    """
    if not is_task(task) or is_done(task) or loop_of(task) is not loop:
        return None
    coro = coro_of(task)
    since = stepped_at(task, hook)
    if is_metered(coro):
        coro = coro.coro
    if coro is None or (coro.cr_running if type(coro) is CoroutineType else task is asyncio.current_task(loop)):
        return None
    binding = hook.ledger.binding
    context = context_of(task)
    session = context.get(binding) if context is not None else None
    waiter = waiter_of(task)
    waits = waiter is not None and not (is_future(waiter) and is_done(waiter))
    return SuspendedTask(task, session, coro, since, "waiting" if waits else "ready", binding, waiter)


def stepped_at(task: Task, hook: LoopHook) -> float | None:
    """Return the clock reading at the end of a suspended task's last step.

    Of a task of a session that is older than the hook: that of the session's last step, which may be later. None: it
    is not known, or the task has not begun.
    """
    coro = coro_of(task)
    if is_metered(coro):
        read: float | None = coro.stepped_at
        return read
    context = context_of(task) if hook.meters else None
    session = context.get(hook.ledger.binding) if context is not None else None
    return session.last_step if session is not None else None


def _bound_to(session: Session, loop: asyncio.AbstractEventLoop, hook: LoopHook) -> Iterator[Task]:
    binding = hook.ledger.binding
    for count, task in enumerate(_all_tasks(loop), start=1):
        context = context_of(task)
        if context is not None and context.get(binding) is session:
            yield task
        if count % _TASKS_PER_YIELD == 0:
            time.sleep(1e-6)  # gives the GIL to the loop's thread


def _waiters(task: Task, waiting_for: dict[int, list[Task]]) -> Iterator[Task]:
    """Yield the tasks that wait for this one, through the futures between them."""
    futures: list[asyncio.Future[Any]] = [task]
    for future in futures:
        yield from waiting_for.get(id(future), ())
        for callback, _ in getattr(future, "_callbacks", None) or ():
            for held in _held_by(callback):
                if is_task(held):
                    yield held
                elif is_future(held):
                    if all(held is not seen for seen in futures):
                        futures.append(held)
                elif (host := _host_of(held)) is not None:
                    yield host


def _held_by(callback: Any) -> Iterator[Any]:
    while isinstance(callback, functools.partial):
        yield from callback.args
        callback = callback.func
    yield getattr(callback, "__self__", None)
    for cell in getattr(callback, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # the cell is empty
            continue


def _host_of(group: Any) -> Task | None:
    """Return the task inside whose `async with` a task group is: asyncio's, anyio's."""
    host = getattr(group, "_parent_task", None) or getattr(getattr(group, "cancel_scope", None), "_host_task", None)
    return host if is_task(host) else None
