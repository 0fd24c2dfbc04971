"""Where tasks are created, noted while their number grows."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._loops.task_starts import GROWN_TASKS, NOTED_FOR_S, TaskStarts
from openrtc_introspect_testing._loops.backends import Backend, in_task

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def starts_of(introspector: Introspector) -> TaskStarts:
    return parts_of(introspector).loops[0].hook.task_starts


def tick(introspector: Introspector, now: float) -> bool:
    """A tick of the service at `now`. Returns whether creations are noted."""
    starts = starts_of(introspector)
    starts.tick(now, parts_of(introspector).shared.places)
    return starts.noting


def test_creations_are_noted_while_the_number_of_tasks_grows(virtually: Backend) -> None:
    """And for a minute afterwards. A number that stands still is no growth, however large."""

    async def main() -> list[bool]:
        noting = []
        async with Introspector(socket_path=False, clock=virtually.clock) as introspector:
            now = virtually.clock() + 1000.0
            with introspector.session("call", agent_name="a"):

                async def grow() -> None:
                    async with anyio.create_task_group() as group:
                        for moment, more in ((0.0, 0), (1.0, GROWN_TASKS), (2.0, 0), (40.0, 0), (101.0, 0)):
                            for _ in range(more):
                                group.start_soon(anyio.sleep, 1e6)
                            noting.append(tick(introspector, now + moment))
                        group.cancel_scope.cancel()

                await in_task(grow)
        return noting

    assert virtually(main()) == [False, True, True, True, False]
    assert NOTED_FOR_S < 99.0


def test_the_loop_s_method_is_ours_alone_while_nothing_is_noted(run: Run) -> None:
    """The one that notes is put above it, and taken away again."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        async with Introspector(socket_path=False) as introspector:
            ours = loop.create_task
            starts_of(introspector).ask(0.0, parts_of(introspector).shared.places)
            above = loop.create_task
            tick(introspector, NOTED_FOR_S + 1.0)
            again = loop.create_task
            starts_of(introspector).ask(0.0, parts_of(introspector).shared.places)
        return ours == again, ours != above, "create_task" in vars(loop)

    assert run(main()) == (True, True, False)


@pytest.mark.parametrize("how", ["create_task", "ensure_future", "gather", "TaskGroup"])
def test_the_line_is_the_user_s(run: Run, how: str) -> None:
    """Whatever of asyncio creates the task."""

    async def child() -> None:
        await asyncio.sleep(60)

    async def creates() -> Any:
        if how == "create_task":
            return asyncio.create_task(child())
        if how == "ensure_future":
            return asyncio.ensure_future(child())
        if how == "gather":
            return asyncio.gather(child())
        async with asyncio.TaskGroup() as group:
            task = group.create_task(child())
            task.cancel()
            return task

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            starts_of(introspector).ask(0.0, parts_of(introspector).shared.places)
            task = asyncio.create_task(creates())
            made = await task
            start = next(
                start for _, start in list(starts_of(introspector)._known.values()) if start.function.endswith("child")
            )
            made.cancel()
            return start

    assert run(main()).call.function.endswith("creates")


def test_a_library_s_task_is_not_the_line_that_runs_the_loop(run: Run) -> None:
    """A task that the library creates in a task of its own was created by no line of the user's."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            starts_of(introspector).ask(0.0, parts_of(introspector).shared.places)
            outer = asyncio.create_task(asyncio.wait_for(asyncio.gather(asyncio.sleep(60)), 60))
            await asyncio.sleep(0)
            outer.cancel()
            return [start for _, start in list(starts_of(introspector)._known.values())]

    lines = {start.function: start.call for start in run(main())}
    assert lines["sleep"].function.endswith("main")


def test_a_task_that_cannot_be_created_raises_as_without_us(run: Run) -> None:
    """No frame of ours is in the traceback."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            starts_of(introspector).ask(0.0, parts_of(introspector).shared.places)
            with pytest.raises(TypeError) as raised:
                asyncio.get_running_loop().create_task(1)  # type: ignore[arg-type]
            return [frame.name for frame in traceback.extract_tb(raised.tb)]

    names = run(main())
    assert names[0] == "main"
    assert "_noting_tasks" not in str(names)


def test_a_fault_of_ours_ends_the_notes_and_no_more(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task is created."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            starts = starts_of(introspector)
            starts.ask(0.0, parts_of(introspector).shared.places)
            monkeypatch.setattr(starts, "note", lambda *_: 1 / 0)
            await asyncio.create_task(asyncio.sleep(0))
            starts.ask(0.0, parts_of(introspector).shared.places)
            return starts.noting, introspector.snapshot().worker.notes

    noting, notes = run(main())
    assert noting is False
    assert [note for note in notes if note.startswith("where tasks are created is not seen any more")]
