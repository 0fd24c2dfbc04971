from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from openrtc_introspect_core import Introspector, connect
from openrtc_introspect_core._service.inspection import tasks_of
from openrtc_introspect_core.wire import TaskInfo, ThreadStack
from openrtc_introspect_core.wire._messages import MAX_TASKS

Run = Callable[[Coroutine[Any, Any, Any]], Any]


async def ask(path: Any) -> list[ThreadStack]:
    async with connect(path) as client:
        return (await client.stacks()).threads


def functions(stack: ThreadStack) -> list[str]:
    return [place.function.rpartition(".")[2] for place in stack.frames]


@pytest.mark.gil
def test_a_blocked_loop_is_shown_with_its_session_and_line(run: Run) -> None:
    """Asked over the socket meanwhile, its thread is listed first."""

    async def main() -> Any:
        held, answered = threading.Event(), threading.Event()
        seen: list[ThreadStack] = []

        def from_outside(path: Any) -> None:
            held.wait(30)
            seen.extend(asyncio.run(ask(path)))
            answered.set()

        def block() -> None:
            held.set()
            assert answered.wait(30)

        async with Introspector() as introspector:
            thread = threading.Thread(target=from_outside, args=(introspector.socket_path,), name="outside")
            thread.start()
            with introspector.session("job-1", agent_name="test"):

                async def turn() -> None:
                    block()

                await asyncio.create_task(turn(), name="turn")
            thread.join()
        return seen

    loop, *others = run(main())
    assert (loop.loop, loop.session_id, loop.task_name) == (True, "job-1", "turn")
    assert "block" in functions(loop)
    assert "outside" in [stack.name for stack in others]
    assert not any(stack.loop or stack.session_id or stack.task_name for stack in others)


@pytest.mark.gil
def test_a_waiting_loop_runs_no_session(run: Run) -> None:
    """Its thread still has a stack."""

    def look_until_it_waits(path: Any) -> ThreadStack:
        deadline = time.monotonic() + 30
        while True:  # the step that has started this thread may go on for a moment
            loop = asyncio.run(ask(path))[0]
            if loop.session_id is None or time.monotonic() > deadline:
                return loop

    async def main() -> Any:
        async with Introspector() as introspector:
            with introspector.session("job-1", agent_name="test"):
                return await asyncio.to_thread(look_until_it_waits, introspector.socket_path)

    loop = run(main())
    assert (loop.loop, loop.session_id, loop.task_name) == (True, None, None)
    assert loop.frames


class LoopOfTasks:
    """The hook of a loop, as far as its tasks are listed: (name, names of the tasks that wait for it)."""

    def __init__(self, *tasks: tuple[str, list[str]]) -> None:
        self._tasks = tasks

    def tasks(self, session: object, places: object, *, first_id: int) -> list[TaskInfo]:
        ids = {name: number for number, (name, _) in enumerate(self._tasks, start=first_id)}
        return [
            TaskInfo(id=ids[name], name=name, awaited_by=[ids[waiter] for waiter in waiters])
            for name, waiters in self._tasks
        ]


def listed(*hooks: LoopOfTasks) -> tuple[list[tuple[int, str, list[int]]], bool]:
    tasks, truncated = tasks_of(cast(Any, None), cast(Any, hooks), cast(Any, None))
    return [(task.id, task.name, task.awaited_by) for task in tasks], truncated


def test_tasks_of_several_loops_are_listed_by_name() -> None:
    """Their numbers follow the order."""
    hooks = LoopOfTasks(("Task-1", []), ("Task-10", ["Task-1"])), LoopOfTasks(("Task-2", []), ("Task-3", ["Task-2"]))
    expected = [(1, "Task-1", []), (2, "Task-2", []), (3, "Task-3", [2]), (4, "Task-10", [1])]
    assert listed(*hooks) == (expected, False)


def test_no_task_is_awaited_by_one_that_is_not_listed() -> None:
    """The task that waits for the others is beyond the limit."""
    names = [f"part-{number}" for number in range(MAX_TASKS)]
    tasks, truncated = listed(LoopOfTasks(*((name, ["waiter"]) for name in names), ("waiter", [])))
    assert tasks == [(number, name, []) for number, name in enumerate(names, start=1)]
    assert truncated
