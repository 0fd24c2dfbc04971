from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
from seen_tasks import Look, cancel, forever, functions, seen_in, settle

from openrtc_introspect_core import ArgumentError, Introspector
from openrtc_introspect_core._loops.asyncio_names import context_of
from openrtc_introspect_core.wire import TaskInfo
from openrtc_introspect_core.wire._messages import MAX_TASKS

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.mark.gil
def test_a_task_that_awaits_another_is_shown(run: Run) -> None:
    """The waiting task names the other, and the other lists the waiting task's id."""

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
def test_a_task_that_waits_for_several_is_listed_by_each(run: Run, together: Callable[..., Any]) -> None:
    """The future between them is followed."""

    async def session(look: Look) -> Any:
        tasks = [asyncio.create_task(forever(), name=f"part-{number}") for number in range(2)]
        outer = asyncio.create_task(together(tasks), name="outer")
        await settle()
        seen = await look()
        await cancel(outer, *tasks)
        return [[seen[f"part-{number}"].awaited_by for number in range(2)], seen["outer"].id]

    waiters, outer = seen_in(run, session)
    assert waiters == [[outer], [outer]]


def test_a_task_that_waits_for_a_shielded_one_is_shown(run: Run) -> None:
    """The outer future of the shield is followed."""

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
    """The same holds for anyio's task groups."""

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
    """A deadlock is shown like any other graph of waiting tasks."""

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


def test_a_session_s_own_tasks_are_listed_only(run: Run) -> None:
    """Tasks of another session, or of none, are not listed."""

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
def test_tasks_are_listed_without_metering(run: Run, cpu: str) -> None:
    """A task's session is read from its context."""

    async def session(look: Look) -> Any:
        task = asyncio.create_task(forever(), name="child")
        await settle()
        seen = await look()
        await cancel(task)
        return sorted(seen), functions(seen["child"])

    assert seen_in(run, session, cpu=cpu) == (["child", "entry"], ["forever"])


@pytest.mark.gil
def test_a_task_that_holds_the_loop_is_running(run: Run) -> None:
    """Its stack reaches down to the line, although nothing else can run on the loop."""

    async def session(look: Look) -> Any:
        del look
        seen: list[TaskInfo] = []
        held, sampled = threading.Event(), threading.Event()

        def from_outside(introspector: Introspector) -> None:
            held.wait(30)
            seen.extend(introspector.tasks("job-2"))
            sampled.set()

        async def hold(introspector: Introspector) -> None:
            thread = threading.Thread(target=from_outside, args=(introspector,))
            thread.start()
            wait_here(held, sampled)
            thread.join()

        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-2", agent_name="test"):
                waiting = asyncio.create_task(forever(), name="waiting")
                await settle()
                await asyncio.create_task(hold(introspector), name="holding")
                await cancel(waiting)
        return {task.name: task for task in seen}

    def wait_here(held: threading.Event, sampled: threading.Event) -> None:
        held.set()
        assert sampled.wait(30)

    seen = seen_in(run, session)
    assert (seen["holding"].state, seen["waiting"].state) == ("running", "waiting")
    assert functions(seen["holding"])[:2] == ["hold", "wait_here"]


def test_a_task_that_only_needs_the_loop_is_ready(run: Run) -> None:
    """A task that has not begun is at the line of its `def`."""

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


def test_a_callback_may_be_anything(run: Run) -> None:
    """Partials, callable objects and a closure with an empty cell are passed over."""

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
    """The first tasks by name are listed; Task-9 is before Task-10."""

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
    """The error names the id."""

    async def main() -> None:
        async with Introspector(socket_path=False) as introspector:
            introspector.tasks("job-1")

    with pytest.raises(ArgumentError, match="'job-1'"):
        run(main())


def test_a_task_class_that_shows_no_context_has_none() -> None:
    """As Qt's, which has none of asyncio's classes for a base."""
    bare: Any = object()
    assert context_of(bare) is None
