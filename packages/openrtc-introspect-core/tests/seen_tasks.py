"""The tasks of a session, as a test sees them from another thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from openrtc_introspect_core import Introspector
from openrtc_introspect_core.wire import TaskInfo

Run = Callable[[Coroutine[Any, Any, Any]], Any]
Look = Callable[[], Coroutine[Any, Any, dict[str, TaskInfo]]]


def seen_in(run: Run, session: Callable[[Look], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    """Run `session` as a task named "entry" in the scope of job-1, and return its result.

    It is given a function that returns the session's tasks by name.
    """

    async def main() -> Any:
        async with Introspector(socket_path=False, **options) as introspector:

            async def look() -> dict[str, TaskInfo]:
                return {task.name: task for task in await asyncio.to_thread(introspector.tasks, "job-1")}

            async def entry() -> Any:
                with introspector.session("job-1", agent_name="test"):
                    return await session(look)

            return await asyncio.create_task(entry(), name="entry")

    return run(main())


def functions(task: TaskInfo) -> list[str]:
    """Return the unqualified names of the functions in the task's await chain."""
    return [place.function.rpartition(".")[2] for place in task.awaits]


async def settle() -> None:
    """Let every ready task step, a few times."""
    for _ in range(3):
        await asyncio.sleep(0)


async def forever() -> None:
    """Wait until cancelled."""
    await asyncio.get_running_loop().create_future()


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel the tasks, and wait for their ends."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
