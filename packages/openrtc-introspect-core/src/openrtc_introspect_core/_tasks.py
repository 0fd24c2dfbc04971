"""A session's tasks: where each of them waits, and which waits for which.

Read on demand from another thread while the loop goes on: nothing is kept, and no task pays for it.
A task is a session's where the session is bound in the task's context now, so that a task older
than its scope is found as well as one that was created inside.

Where a task waits is its await chain: from its coroutine to what that awaits, and so on inwards.
Which task waits for it is told by what is called when it is done: the waiting task's own wake-up, or
a callback that holds the future which gather, wait, shield or a task group has it wait on.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextvars import Context
from types import FrameType
from typing import Any

from ._asyncio import AsyncioHook, name_of
from ._gil import has_gil
from ._hook import LoopHook
from ._meter import drive
from ._sessions import Session
from ._stacks import MAX_FRAMES, Call, Places, frames_now, take
from .wire._messages import MAX_TASKS, TaskInfo, TaskState

_TASKS_PER_BREATH = 500
_SUSPENDED = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))

Task = asyncio.Task[Any]


def tasks_of(session: Session, hooks: Sequence[LoopHook], places: Places) -> tuple[list[TaskInfo], bool]:
    """(its live tasks on these loops, whether there are more than MAX_TASKS). From any thread."""
    loops = [hook for hook in hooks if isinstance(hook, AsyncioHook)]
    bound = [task for hook in loops for task in _bound_to(session, hook)]
    tasks = sorted(bound, key=lambda task: natural(name_of(task)))
    described = _describe(tasks[:MAX_TASKS], loops, places)
    truncated = len(tasks) > MAX_TASKS
    for hook in hooks:
        if hook.kind == "trio":
            from ._trio_tasks import tasks_of_run

            described += tasks_of_run(session, hook, places, first_id=len(described) + 1)
    return described[:MAX_TASKS], truncated or len(described) > MAX_TASKS


def _bound_to(session: Session, hook: AsyncioHook) -> Iterator[Task]:
    binding = hook.ledger.binding
    for count, task in enumerate(asyncio.all_tasks(hook.loop), start=1):
        context = context_of(task)
        if context is not None and context.get(binding) is session:
            yield task
        if count % _TASKS_PER_BREATH == 0:
            time.sleep(1e-6)  # the loop's thread may have the GIL meanwhile


def context_of(task: Task) -> Context | None:
    """What the task runs in; None where it does not tell."""
    if sys.version_info >= (3, 12):
        return task.get_context()
    # It has no name there, and is the first context that the task holds: its callbacks' come after.
    return next((held for held in gc.get_referents(task) if type(held) is Context), None)


def natural(name: str) -> list[tuple[int, str]]:
    """The order of names in which Task-9 is before Task-10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _describe(tasks: list[Task], hooks: Sequence[AsyncioHook], places: Places) -> list[TaskInfo]:
    numbers = {task: number for number, task in enumerate(tasks, start=1)}
    waiting_on = {task: waiter for task in tasks if (waiter := getattr(task, "_fut_waiter", None)) is not None}
    waiting_for: dict[int, list[Task]] = {}
    for task, waiter in waiting_on.items():
        waiting_for.setdefault(id(waiter), []).append(task)
    running = {asyncio.current_task(hook.loop): hook for hook in hooks}
    described = []
    for task, number in numbers.items():
        state: TaskState = "waiting"
        if (hook := running.get(task)) is not None:
            state = "running"
            calls, _ = take(frames_now().get(hook.thread_id), hook.ends, in_c=hook.drives_in_c)
            calls.reverse()
            detail = None
        else:
            if (waiter := waiting_on.get(task)) is None or waiter.done():
                state = "ready"
            calls, detail = await_chain(task.get_coro()) if may_look_into(hooks) else ([], None)
        waiters = {numbers[each] for each in _waiters(task, waiting_for) if each in numbers and each is not task}
        described.append(
            TaskInfo(
                id=number,
                name=name_of(task),
                coroutine=getattr(task.get_coro(), "__qualname__", ""),
                state=state,
                awaits=[places.location(call) for call in calls],
                waiting_on=detail if state == "waiting" else None,
                awaited_by=sorted(waiters),
            )
        )
    return described


def may_look_into(hooks: Sequence[LoopHook]) -> bool:
    """Whether what is suspended stays so while it is looked at: without a GIL, on the loops' own thread only."""
    return has_gil() or all(hook.thread_id == threading.get_ident() for hook in hooks)


def await_chain(awaitable: Any) -> tuple[list[Call], str | None]:
    """(the suspended calls, outermost first; what the innermost waits on, where there is a word for it)."""
    calls: list[Call] = []
    frame: FrameType | None = None
    while awaitable is not None and len(calls) < MAX_FRAMES:
        for frame_of, awaits in _SUSPENDED:
            if hasattr(awaitable, frame_of):
                frame = getattr(awaitable, frame_of)
                if frame is None:  # it has ended meanwhile
                    return calls, None
                if (
                    frame.f_code is drive.__code__
                ):  # the meter's, where someone has put a coroutine around the metered one
                    awaitable = frame.f_locals.get("coro")
                    break
                calls.append(Call(frame.f_code, frame.f_lineno or frame.f_code.co_firstlineno))
                awaitable = getattr(awaitable, awaits)
                break
        else:
            if asyncio.isfuture(awaitable):
                return calls, _word_for(awaitable, frame)
            # What await makes of a future, an async generator's step or an `__await__` only wraps it.
            awaitable = next((held for held in gc.get_referents(awaitable) if _can_be_awaited(held)), None)
    return calls, None


def _can_be_awaited(held: Any) -> bool:
    return asyncio.isfuture(held) or any(hasattr(held, frame_of) for frame_of, _ in _SUSPENDED)


def _word_for(future: Any, frame: FrameType | None) -> str | None:
    if isinstance(future, asyncio.Task):
        return f"task {name_of(future)}"
    if isinstance(children := getattr(future, "_children", None), list):
        return f"gather of {len(children)}"
    if frame is not None and frame.f_code is asyncio.sleep.__code__:
        delay = frame.f_locals.get("delay")
        return f"sleep of {delay:.4g} s" if isinstance(delay, int | float) else None
    return None


def _waiters(task: Task, waiting_for: dict[int, list[Task]]) -> Iterator[Task]:
    """The tasks that go on when this one is done, through whatever futures are in between."""
    futures: list[asyncio.Future[Any]] = [task]
    for future in futures:
        yield from waiting_for.get(id(future), ())
        for callback, _ in getattr(future, "_callbacks", None) or ():
            for held in _held_by(callback):
                if isinstance(held, asyncio.Task):
                    yield held
                elif asyncio.isfuture(held):
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
        except ValueError:  # not bound yet, or no more
            continue


def _host_of(group: Any) -> Task | None:
    """The task inside whose `async with` a task group is: asyncio's, anyio's."""
    host = getattr(group, "_parent_task", None) or getattr(getattr(group, "cancel_scope", None), "_host_task", None)
    return host if isinstance(host, asyncio.Task) else None
