from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import ArgumentError, Introspector
from openrtc_introspect_core._tasks import await_chain
from openrtc_introspect_core.wire import TaskInfo
from openrtc_introspect_core.wire._messages import MAX_TASKS

Run = Callable[[Coroutine[Any, Any, Any]], Any]
Look = Callable[[], Coroutine[Any, Any, dict[str, TaskInfo]]]


def seen_in(run: Run, session: Callable[[Look], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    """What `session` returns, run as a task named "entry" in the scope of job-1. It is given how to look."""

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
    return [place.function.rpartition(".")[2] for place in task.awaits]


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.gil
def test_a_task_waits_at_the_line_its_chain_ends_at(run: Run) -> None:
    """From the task's own coroutine through each await to the innermost."""

    async def session(look: Look) -> Any:
        queue: asyncio.Queue[int] = asyncio.Queue()

        async def next_turn() -> int:
            return await queue.get()

        async def listen() -> None:
            await next_turn()

        task = asyncio.create_task(listen(), name="listen")
        await settle()
        seen = (await look())["listen"]
        await cancel(task)
        return seen, listen.__code__.co_firstlineno

    seen, first_line = seen_in(run, session)
    assert functions(seen) == ["listen", "next_turn", "get"]
    assert (seen.state, seen.coroutine.rpartition(".")[2]) == ("waiting", "listen")
    assert seen.awaits[0].line == first_line + 1
    assert seen.awaits[0].file.endswith("test_tasks.py")
    assert seen.awaits[-1].file == "asyncio/queues.py"


@pytest.mark.gil
def test_a_coroutine_around_the_metered_one_is_seen_through(run: Run) -> None:
    """A task factory may put one there, as Sentry's does: the meter in between is not shown."""

    async def session(look: Look) -> Any:
        async def listen() -> None:
            await forever()

        def wrapping(loop: Any, coro: Any, **options: Any) -> Any:
            async def wrapper() -> Any:
                return await coro

            return asyncio.Task(wrapper(), loop=loop, **options)

        asyncio.get_running_loop().set_task_factory(wrapping)
        task = asyncio.create_task(listen(), name="listen")
        await settle()
        seen = (await look())["listen"]
        asyncio.get_running_loop().set_task_factory(None)
        await cancel(task)
        return seen

    assert functions(seen_in(run, session)) == ["wrapper", "listen", "forever"]


@pytest.mark.gil
def test_a_sleep_says_for_how_long(run: Run) -> None:
    """asyncio.sleep is where most tasks wait."""

    async def session(look: Look) -> Any:
        task = asyncio.create_task(asyncio.sleep(30.5), name="sleep")
        await settle()
        seen = (await look())["sleep"]
        await cancel(task)
        return seen.waiting_on

    assert seen_in(run, session) == "sleep of 30.5 s"


@pytest.mark.gil
def test_a_task_that_awaits_another_is_told(run: Run) -> None:
    """By name in the one, by id in the other."""

    async def session(look: Look) -> Any:
        inner = asyncio.create_task(forever(), name="inner")

        async def wait_for_it() -> None:
            await inner

        outer = asyncio.create_task(wait_for_it(), name="outer")
        await settle()
        seen = await look()
        await cancel(inner, outer)
        return seen["outer"].waiting_on, seen["inner"].awaited_by == [seen["outer"].id]

    assert seen_in(run, session) == ("task inner", True)


async def _gather(tasks: list[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks)


async def _wait(tasks: list[asyncio.Task[Any]]) -> None:
    await asyncio.wait(tasks)


async def _wait_for(tasks: list[asyncio.Task[Any]]) -> None:
    await asyncio.wait_for(asyncio.gather(*tasks), timeout=60)


@pytest.mark.parametrize("together", [_gather, _wait, _wait_for])
def test_who_waits_for_several_is_told_of_each(run: Run, together: Callable[..., Any]) -> None:
    """The future in between is seen through."""

    async def session(look: Look) -> Any:
        tasks = [asyncio.create_task(forever(), name=f"part-{number}") for number in range(2)]
        outer = asyncio.create_task(together(tasks), name="outer")
        await settle()
        seen = await look()
        await cancel(outer, *tasks)
        return [[seen[f"part-{number}"].awaited_by for number in range(2)], seen["outer"].id]

    waiters, outer = seen_in(run, session)
    assert waiters == [[outer], [outer]]


def test_who_waits_for_a_shielded_task_is_told(run: Run) -> None:
    """The outer future of a shield is seen through."""

    async def session(look: Look) -> Any:
        inner = asyncio.create_task(forever(), name="inner")

        async def shielded() -> None:
            await asyncio.shield(inner)

        outer = asyncio.create_task(shielded(), name="outer")
        await settle()
        seen = await look()
        await cancel(outer, inner)
        return seen["inner"].awaited_by == [seen["outer"].id]

    assert seen_in(run, session)


async def _asyncios_group(started: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(forever(), name="member")
        started.set()


async def _anyios_group(started: asyncio.Event) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(forever, name="member")
        started.set()


@pytest.mark.parametrize("host", [_asyncios_group, _anyios_group])
def test_members_of_a_task_group_are_awaited_by_its_host(run: Run, host: Callable[..., Any]) -> None:
    """Also anyio's."""

    async def session(look: Look) -> Any:
        started = asyncio.Event()
        task = asyncio.create_task(host(started), name="host")
        await started.wait()
        await settle()
        seen = await look()
        await cancel(task)
        return seen["member"].awaited_by == [seen["host"].id]

    assert seen_in(run, session)


def test_tasks_that_wait_for_each_other_are_a_cycle(run: Run) -> None:
    """A deadlock is a graph like any other."""

    async def session(look: Look) -> Any:
        tasks: dict[str, asyncio.Task[Any]] = {}

        async def wait_for(name: str) -> None:
            await asyncio.shield(tasks[name])  # so that a cancellation does not go round for ever

        tasks["a"] = asyncio.create_task(wait_for("b"), name="a")
        tasks["b"] = asyncio.create_task(wait_for("a"), name="b")
        await settle()
        seen = await look()
        await cancel(*tasks.values())
        graph = {"a": [seen["b"].id], "b": [seen["a"].id]}
        found = {name: seen[name].awaited_by for name in ("a", "b")}
        return found, graph

    found, graph = seen_in(run, session)
    assert found == graph


def test_a_session_is_told_of_its_own_tasks_only(run: Run) -> None:
    """Not of another session's, nor of tasks without one."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            untagged = asyncio.create_task(forever(), name="untagged")
            with introspector.session("job-1", agent_name="test"):
                mine = asyncio.create_task(forever(), name="mine")
            with introspector.session("job-2", agent_name="test"):
                theirs = asyncio.create_task(forever(), name="theirs")
                with introspector.session("job-1", agent_name="test"):
                    mine_too = asyncio.create_task(forever(), name="mine too")
                    await settle()
                    names = {task.name for task in await asyncio.to_thread(introspector.tasks, "job-1")}
                    outer = {task.name for task in await asyncio.to_thread(introspector.tasks, "job-2")}
            await cancel(untagged, mine, mine_too, theirs)
            return names, outer

    names, outer = run(main())
    assert names > {"mine too"}  # and the task that is inside the scope
    assert not names & {"mine", "theirs", "untagged"}
    assert outer == {"theirs"}


@pytest.mark.gil
@pytest.mark.parametrize("cpu", ["sampled", "off"])
def test_tasks_are_told_without_metering(run: Run, cpu: str) -> None:
    """Whose a task is, its context says."""

    async def session(look: Look) -> Any:
        task = asyncio.create_task(forever(), name="child")
        await settle()
        seen = await look()
        await cancel(task)
        return sorted(seen), functions(seen["child"])

    assert seen_in(run, session, cpu=cpu) == (["child", "entry"], ["forever"])


@pytest.mark.gil
def test_a_task_that_holds_the_loop_is_running(run: Run) -> None:
    """With the stack down to the line, although nothing can run on the loop."""

    async def session(look: Look) -> Any:
        del look
        seen: list[TaskInfo] = []
        held, looked = threading.Event(), threading.Event()

        def from_outside(introspector: Introspector) -> None:
            held.wait(30)
            seen.extend(introspector.tasks("job-2"))
            looked.set()

        async def hold(introspector: Introspector) -> None:
            thread = threading.Thread(target=from_outside, args=(introspector,))
            thread.start()
            wait_here(held, looked)
            thread.join()

        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-2", agent_name="test"):
                waiting = asyncio.create_task(forever(), name="waiting")
                await settle()
                await asyncio.create_task(hold(introspector), name="holding")
                await cancel(waiting)
        return {task.name: task for task in seen}

    def wait_here(held: threading.Event, looked: threading.Event) -> None:
        held.set()
        assert looked.wait(30)

    seen = seen_in(run, session)
    assert (seen["holding"].state, seen["waiting"].state) == ("running", "waiting")
    assert functions(seen["holding"])[:2] == ["hold", "wait_here"]


def test_a_task_that_only_needs_the_loop_is_ready(run: Run) -> None:
    """One that has not begun has no line yet."""

    async def session(look: Look) -> Any:
        del look
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-2", agent_name="test"):
                task = asyncio.create_task(forever(), name="new")
                seen = {task.name: task for task in introspector.tasks("job-2")}["new"]
                await cancel(task)
        return seen.state, len(seen.awaits)

    state, places = seen_in(run, session)
    assert (state, places) == ("ready", 1)  # the line of its def


def test_what_wraps_an_awaitable_is_seen_through() -> None:
    """An async generator's step, an `__await__` of one's own, a coroutine's."""

    class Mine:
        def __await__(self) -> Generator[Any, Any, Any]:
            return (yield from inner().__await__())

    async def inner() -> None:
        async for _ in items():
            pass

    async def items() -> AsyncIterator[int]:
        await innermost()
        yield 1

    class Pause:
        def __await__(self) -> Generator[Any, Any, Any]:
            yield

    async def innermost() -> None:
        await Pause()

    async def outer() -> None:
        await Mine()

    coro = outer()
    coro.send(None)
    calls, _ = await_chain(coro)
    coro.close()
    assert [call.code.co_name for call in calls] == [
        "outer", "__await__", "inner", "items", "innermost", "__await__",
    ]  # fmt: skip


def test_a_callback_may_be_anything(run: Run) -> None:
    """A partial, an object, a closure with an empty cell."""

    async def session(look: Look) -> Any:
        class Called:
            def __call__(self, *_: Any) -> None:
                pass

        def closure() -> Callable[..., None]:
            def callback(*_: Any) -> None:
                print(later)  # pragma: no cover

            if not callback:
                later = 1
            return callback

        task = asyncio.create_task(forever(), name="watched")
        for callback in (functools.partial(Called(), 1), Called()):
            task.add_done_callback(callback)
        stale = closure()
        task.add_done_callback(stale)
        await settle()
        seen = (await look())["watched"]
        task.remove_done_callback(stale)
        await cancel(task)
        return seen.awaited_by

    assert seen_in(run, session) == []


def test_a_session_of_very_many_tasks_is_cut(run: Run) -> None:
    """The first ones by name, and Task-9 is before Task-10."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test"):
                tasks = [asyncio.create_task(forever(), name=f"part-{n}") for n in range(MAX_TASKS + 10)]
                await settle()
                seen = await asyncio.to_thread(introspector.tasks, "job-1")
                await cancel(*tasks)
        return [task.name for task in seen if task.name.startswith("part")]

    names = run(main())
    assert names[:11] == [f"part-{n}" for n in range(11)]
    assert len(names) <= MAX_TASKS


def test_tasks_of_no_live_session_are_an_error(run: Run) -> None:
    """It names the id."""

    async def main() -> None:
        async with Introspector(socket_path=False) as introspector:
            introspector.tasks("job-1")

    with pytest.raises(ArgumentError, match="'job-1'"):
        run(main())
