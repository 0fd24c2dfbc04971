from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from openrtc_introspect_core import Introspector, connect
from openrtc_introspect_core.wire import ThreadStack

Run = Callable[[Coroutine[Any, Any, Any]], Any]


async def ask(path: Any) -> list[ThreadStack]:
    async with connect(path) as client:
        return (await client.stacks()).threads


def functions(stack: ThreadStack) -> list[str]:
    return [place.function.rpartition(".")[2] for place in stack.frames]


@pytest.mark.gil
def test_a_blocked_loop_is_told_with_its_session_and_line(run: Run) -> None:
    """First of all threads, asked over the socket meanwhile."""

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
    """Its thread has a stack all the same."""

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
