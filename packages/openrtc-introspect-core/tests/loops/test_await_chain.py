from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any

import pytest
from seen_tasks import Look, cancel, forever, functions, seen_in, settle

from openrtc_introspect_core._loops.await_chain import await_chain, suspended_in

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.mark.gil
def test_a_task_waits_at_the_line_its_chain_ends_at(run: Run) -> None:
    """The chain leads from the task's own coroutine through each await to the innermost."""

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
    assert seen.awaits[0].file.endswith("test_await_chain.py")
    assert seen.awaits[-1].file == "asyncio/queues.py"


@pytest.mark.gil
def test_a_coroutine_around_the_metered_one_is_seen_through(run: Run) -> None:
    """A task factory may wrap the metered coroutine, as Sentry's does: the meter between them is not shown."""

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
    """The delay of `asyncio.sleep` is shown."""

    async def session(look: Look) -> Any:
        task = asyncio.create_task(asyncio.sleep(30.5), name="sleep")
        await settle()
        seen = (await look())["sleep"]
        await cancel(task)
        return seen.waiting_on

    assert seen_in(run, session) == "sleep of 30.5 s"


def test_what_wraps_an_awaitable_is_seen_through() -> None:
    """A step of an async generator, a custom `__await__` and a coroutine's `__await__` are followed."""

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
    assert [call.function.rpartition(".")[2] for call in calls] == [
        "outer", "__await__", "inner", "items", "innermost", "__await__",
    ]  # fmt: skip


class Iterated:
    """An awaitable that is its own iterator. Nothing but what it holds shows what it waits for."""

    def __init__(self, *held: Any) -> None:
        *self.others, awaited = held
        self.iterator = awaited.__await__()

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return next(self.iterator)


class Holding(Iterated):
    """One that holds a task of its own as well, in front of what it awaits."""

    def __init__(self, task: Any, awaited: Any) -> None:
        self.task = task
        super().__init__(awaited)


@pytest.mark.gil
def test_what_a_task_says_itself_decides_what_it_waits_for(run: Run) -> None:
    """Not what is found first among the things that its awaitable holds."""

    async def session(look: Look) -> Any:
        event = asyncio.Event()
        helper = asyncio.create_task(forever(), name="helper")

        async def listen(awaited: Any) -> None:
            await awaited

        tasks = [
            asyncio.create_task(listen(Holding(helper, event.wait())), name="event"),
            asyncio.create_task(listen(Holding(asyncio.get_running_loop().create_future(), helper)), name="task"),
        ]
        await settle()
        seen = await look()
        await cancel(*tasks, helper)
        return [(functions(seen[name]), seen[name].waiting_on) for name in ("event", "task")]

    assert seen_in(run, session) == [(["listen", "wait"], None), (["listen"], "task helper")]


@pytest.mark.gil
@pytest.mark.filterwarnings("ignore:.*was never awaited")
def test_what_leads_nowhere_ends_the_chain(run: Run) -> None:
    """What the task says itself is known all the same."""

    async def session(look: Look) -> Any:
        helper = asyncio.create_task(forever(), name="helper")

        class Hidden:
            def __await__(self) -> Any:
                return self

            def __next__(self) -> Any:
                helper._asyncio_future_blocking = True
                return helper

        async def listen() -> None:
            await Hidden()

        task = asyncio.create_task(listen(), name="listen")
        await settle()
        seen = (await look())["listen"]
        await cancel(helper, task)
        return functions(seen), seen.waiting_on

    assert seen_in(run, session) == (["listen"], "task helper")


@pytest.mark.gil
def test_tasks_and_futures_in_python_are_followed(run: Run) -> None:
    """As those in C."""
    in_python: Any = asyncio.tasks._PyTask  # type: ignore[attr-defined]

    async def session(look: Look) -> Any:
        loop = asyncio.get_running_loop()

        async def waits() -> None:
            await asyncio.futures._PyFuture(loop=loop)  # type: ignore[attr-defined]

        async def listen(task: Any) -> None:
            await task

        inner = in_python(waits(), loop=loop, name="inner")
        outer = in_python(listen(inner), loop=loop, name="outer")
        await settle()
        seen = await look()
        await cancel(outer, inner)
        awaited_by = seen["inner"].awaited_by == [seen["outer"].id]
        return functions(seen["inner"]), functions(seen["outer"]), seen["outer"].waiting_on, awaited_by

    assert seen_in(run, session) == (["waits"], ["listen"], "task inner", True)


@pytest.mark.parametrize(("others", "chain"), [(0, ["outer", "inner"]), (1, ["outer"])])
def test_where_nothing_is_said_a_single_suspended_coroutine_is_what_is_awaited(others: int, chain: list[str]) -> None:
    """One of two would be a guess."""

    class Pause:
        def __await__(self) -> Generator[Any, Any, Any]:
            yield

    async def inner() -> None:
        await Pause()

    async def outer() -> None:
        await iterated

    held = [inner() for _ in range(others)]
    for each in held:
        each.send(None)
    iterated = Iterated(*held, inner())
    iterated.other = held[0] if held else None  # type: ignore[attr-defined]
    coro = outer()
    coro.send(None)
    found = [each.__qualname__.rpartition(".")[2] for each in suspended_in(coro)[0]]
    for each in (coro, *held):
        each.close()
    assert found[: len(chain)] == chain
    assert ("inner" in found) == ("inner" in chain)
