from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any

import pytest
from hooks import hook_on

from openrtc_introspect_core._loops.asyncio_hook import AsyncioHook
from openrtc_introspect_core._loops.running_calls import NO_FRAME, running_calls, walk_on, within
from openrtc_introspect_core._os.stacks import Call, CompiledCall

Loop = asyncio.AbstractEventLoop


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    if request.param == "uvloop":
        import uvloop

        loop: Loop = uvloop.new_event_loop()
    else:
        loop = asyncio.SelectorEventLoop()
    yield loop
    loop.close()


def run_it(loop: Loop, main: Coroutine[Any, Any, Any]) -> Any:
    """Run the loop by its own method: this function is no part of what runs on it."""
    return loop.run_until_complete(main)


def functions(hook: AsyncioHook, frame: FrameType) -> list[str]:
    calls = running_calls(hook, walk_on(hook, frame), hook.running_coroutine())
    return [call.function.rpartition(".")[2] for call in calls]


async def seen_in_callback(loop: Loop, hook: AsyncioHook) -> list[str]:
    """Return the functions of a callback that a function in C calls."""
    seen: asyncio.Future[list[str]] = loop.create_future()

    def look() -> None:
        seen.set_result(functions(hook, sys._getframe()))

    loop.call_soon(look)
    return await seen


def test_a_callback_s_calls_end_where_the_loop_begins(loop: Loop) -> None:
    """Whoever runs the loop is known from the moment at which it is attached in a task."""

    async def main() -> list[str]:
        hook = hook_on(loop)
        hook.attach()
        seen = await seen_in_callback(loop, hook)
        hook.detach()
        return seen

    assert run_it(loop, main()) == ["look"]


def test_a_task_s_calls_end_there(loop: Loop) -> None:
    """Also in a coroutine that a function drives by hand."""

    async def driven(hook: AsyncioHook) -> list[str]:
        return functions(hook, sys._getframe())

    def drives(hook: AsyncioHook) -> list[str]:
        with pytest.raises(StopIteration) as stop:
            driven(hook).send(None)
        found: list[str] = stop.value.value
        return found

    async def work(hook: AsyncioHook) -> list[str]:
        return drives(hook)

    async def main() -> list[str]:
        hook = hook_on(loop)
        hook.attach()
        seen = await asyncio.create_task(work(hook))
        hook.detach()
        return seen

    assert run_it(loop, main()) == ["driven", "drives", "work"]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.005)


def test_where_the_loop_begins_is_known_at_each_start(loop: Loop) -> None:
    """Of a hook that is attached before the loop runs, and of a loop that is run again."""
    hook = hook_on(loop)
    hook.attach()
    seen = [run_it(loop, seen_in_callback(loop, hook)) for _ in range(2)]
    hook.detach()
    assert seen == [["look"], ["look"]]


def test_a_beat_of_the_heartbeat_shows_who_runs_the_loop(loop: Loop) -> None:
    """A hook that is attached in a callback shows no call that may be further out before."""
    hook = hook_on(loop)

    async def main() -> list[list[str]]:
        loop.call_soon(hook.attach)
        before = await seen_in_callback(loop, hook)
        await until(lambda: hook.ends.known)
        return [before, await seen_in_callback(loop, hook)]

    seen = run_it(loop, main())
    hook.detach()
    assert seen == [[""] if hook.ends.in_c else ["look"], ["look"]]


def test_compiled_code_is_around_the_calls() -> None:
    """Unless its calls have frames, as Nuitka's."""
    python, compiled = Call("a.py", 3, "f"), CompiledCall("b.pyx", 1, "g")
    assert within([python], [compiled]) == (python, compiled)
    assert within([Call("b.pyx", 4, "g")], [compiled]) == (Call("b.pyx", 4, "g"),)


def test_one_call_stands_for_code_without_a_frame() -> None:
    """So that its time counts."""
    assert within([], []) == (NO_FRAME,)
