"""Await chains of tasks whose synchronous code waits in a greenlet, as greenback lets it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import greenback
import pytest
from seen_tasks import Look, cancel, functions, seen_in, settle

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._loops.await_chain import suspended_in

pytestmark = pytest.mark.gil

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def synchronous(queue: asyncio.Queue[int]) -> None:
    greenback.await_(asynchronous(queue))


async def asynchronous(queue: asyncio.Queue[int]) -> None:
    await queue.get()


async def in_portal(queue: asyncio.Queue[int]) -> None:
    await greenback.ensure_portal()
    synchronous(queue)


async def awaits_in_portal(queue: asyncio.Queue[int]) -> None:
    await greenback.ensure_portal()
    await asynchronous(queue)


async def runs_synchronous(queue: asyncio.Queue[int]) -> None:
    await greenback.with_portal_run_sync(synchronous, queue)


async def runs_in_portal(queue: asyncio.Queue[int]) -> None:
    await greenback.with_portal_run(in_portal, queue)


@pytest.mark.parametrize(
    ("entry", "calls"),
    [
        (in_portal, ["in_portal", "synchronous", "await_", "asynchronous", "get"]),
        (awaits_in_portal, ["awaits_in_portal", "asynchronous", "get"]),
        (runs_synchronous, ["runs_synchronous", "synchronous", "await_", "asynchronous", "get"]),
        (runs_in_portal, ["runs_in_portal", "in_portal", "synchronous", "await_", "asynchronous", "get"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_frames_in_the_greenlet_are_in_the_chain(run: Run, entry: Callable[..., Any], calls: list[str]) -> None:
    """Between the coroutine that waits for the greenlet and what is awaited in it."""

    async def session(look: Look) -> Any:
        task = asyncio.create_task(entry(asyncio.Queue()), name="task")
        await settle()
        await settle()
        seen = (await look())["task"]
        await cancel(task)
        return seen

    seen = seen_in(run, session)
    assert [name for name in functions(seen) if name in calls] == calls
    assert (seen.state, seen.coroutine) == ("waiting", entry.__name__)


def test_what_it_waits_for_is_known(run: Run) -> None:
    """With the line in synchronous code, and not the library's function."""

    async def main() -> Any:
        queue: asyncio.Queue[int] = asyncio.Queue()

        def waits() -> None:
            greenback.await_(queue.get())

        async def call() -> None:
            await greenback.ensure_portal()
            waits()

        async with Introspector(socket_path=False) as introspector:
            with introspector.session("one", agent_name="test"):
                task = asyncio.create_task(call(), name="task")
                await settle()
                await settle()
                groups = (await asyncio.to_thread(introspector.waits)).groups
                await cancel(task)
        (group,) = [group for group in groups if any(waiter.task_name == "task" for waiter in group.waiters)]
        return group, waits.__code__.co_firstlineno + 1

    group, line = run(main())
    assert (group.kind, group.what) == ("queue", "asyncio.Queue, empty")
    assert (group.location.line, group.location.function.rpartition(".")[2]) == (line, "waits")


def test_another_coroutine_of_such_a_name_is_no_portal() -> None:
    """The file is looked at as well."""

    async def greenlet_spawn() -> None:
        await asyncio.sleep(0)

    greenlet_spawn.__code__ = greenlet_spawn.__code__.replace(co_qualname="greenlet_spawn")
    coro = greenlet_spawn()
    coro.send(None)
    assert [type(each).__name__ for each in suspended_in(coro)[0]] == ["coroutine", "coroutine", "generator"]
    coro.close()
