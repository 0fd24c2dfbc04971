"""How tasks come to be metered, and what whoever looks at the loop's task factory finds meanwhile."""

from __future__ import annotations

import asyncio
import inspect
import sys
import types
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._meter import is_metered

Run = Callable[[Coroutine[Any, Any, Any]], Any]

eager_only = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")


@pytest.fixture
def run_eagerly(request: pytest.FixtureRequest, run: Run) -> Run:
    """Runs a coroutine on each kind of loop that takes an eager factory."""
    if (3, 13, 0) <= sys.version_info < (3, 13, 3) and "uvloop" in request.node.name:
        pytest.skip("uvloop 0.23 gives the factory an argument that CPython 3.13.0 to 3.13.2 do not know")
    return run


class OwnTask(asyncio.Task[Any]):
    """What a host makes its tasks of."""


def custom(loop: Any, coro: Any, **kwargs: Any) -> Any:
    return OwnTask(coro, loop=loop, **kwargs)


def attached(loop: Any) -> Introspector:
    return Introspector(socket_path=False, clock=loop.clock)


async def blocks_for(loop: Any, seconds: float) -> None:
    loop.block(seconds)


# --- the factory, as others find it ------------------------------------------------------------------


def test_where_no_factory_was_set_none_is_found(run: Run) -> None:
    """On each kind of loop."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        async with Introspector(socket_path=False):
            task = asyncio.create_task(asyncio.sleep(0))
            found = loop.get_task_factory(), is_metered(task.get_coro())
            await task
        return found

    assert run(main()) == (None, True)


@pytest.mark.parametrize("before", [True, False], ids=["set before", "set meanwhile"])
def test_a_factory_is_found_as_it_was_set(run: Run, before: bool) -> None:
    """It is called with what is metered, and is still there afterwards."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        if before:
            loop.set_task_factory(custom)
        async with Introspector(socket_path=False):
            if not before:
                loop.set_task_factory(custom)
            found = loop.get_task_factory() is custom
            task = asyncio.create_task(asyncio.sleep(0))
            await task
            kind = type(task), is_metered(task.get_coro())
        return found, kind, loop.get_task_factory() is custom

    assert run(main()) == (True, (OwnTask, True), True)


def test_a_factory_that_chains_to_the_one_before_finds_none(run: Run) -> None:
    """As Sentry's does, which makes the task itself where there was none."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        async with Introspector(socket_path=False) as introspector:
            before = loop.get_task_factory()

            def chaining(loop: Any, coro: Any, **kwargs: Any) -> Any:
                async def wrapped() -> Any:
                    return await coro

                return before(loop, wrapped(), **kwargs) if before else asyncio.Task(wrapped(), loop=loop, **kwargs)

            loop.set_task_factory(chaining)
            with introspector.session("job-1", agent_name="test") as session:
                result = await asyncio.create_task(asyncio.sleep(0, "done"))
            return before, result, session.steps

    assert run(main()) == (None, "done", 4)


@eager_only
@pytest.mark.parametrize("before", [True, False], ids=["set before", "set meanwhile"])
@pytest.mark.parametrize("own", [True, False], ids=["an own class", "asyncio's"])
def test_an_eager_factory_is_recognised_by_its_code(run_eagerly: Run, before: bool, own: bool) -> None:
    """Its constructor, in the closure, makes metered tasks of the same class that need not start eagerly."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        theirs: Any = asyncio.create_eager_task_factory(OwnTask) if own else asyncio.eager_task_factory
        if before:
            loop.set_task_factory(theirs)
        async with Introspector(socket_path=False):
            if not before:
                loop.set_task_factory(theirs)
                await asyncio.create_task(asyncio.sleep(0))  # by then it is seen
            factory: Any = loop.get_task_factory()
            assert factory.__code__ is asyncio.eager_task_factory.__code__
            constructor = factory.__closure__[0].cell_contents
            task = constructor(asyncio.sleep(0, "done"), loop=loop, name="child")
            seen = type(task), task.get_name(), is_metered(task.get_coro()), task.done()
            result = await task
        return seen, result, loop.get_task_factory() is theirs

    assert run_eagerly(main()) == ((OwnTask if own else asyncio.Task, "child", True, False), "done", True)


@eager_only
def test_an_eager_task_is_metered_once(run_virtually: Run) -> None:
    """By the factory's constructor, and not by `create_task` as well."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        async with attached(loop) as introspector:
            with introspector.session("job-1", agent_name="test") as session:

                async def work() -> None:
                    child = asyncio.create_task(blocks_for(loop, 0.02))
                    loop.block(0.01)
                    await child

                await asyncio.create_task(work())
                coro: Any = asyncio.create_task(asyncio.sleep(1)).get_coro()
            return session.busy, is_metered(coro.coro)

    assert run_virtually(main()) == (pytest.approx(0.03), False)


@eager_only
def test_anyio_s_task_groups_work_on_an_eager_factory(run_eagerly: Run) -> None:
    """anyio takes the constructor out of the factory, so that its children do not begin before their scope is set."""

    async def child(results: list[int], number: int) -> None:
        await anyio.sleep(0)
        results.append(number)

    async def main() -> Any:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        results: list[int] = []
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test") as session:
                async with anyio.create_task_group() as group:
                    for number in range(3):
                        group.start_soon(child, results, number)
            return results, session.steps > 6

    assert run_eagerly(main()) == ([0, 1, 2], True)


@eager_only
@pytest.mark.parametrize("first_leaves_first", [True, False])
def test_two_introspectors_leave_an_eager_factory_as_it_was(run_eagerly: Run, first_leaves_first: bool) -> None:
    """Whichever goes first; meanwhile each meters each task once."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        first, second = Introspector(name="first", socket_path=False), Introspector(name="second", socket_path=False)
        first.attach()
        second.attach()
        with first.session("one", agent_name="test") as one, second.session("two", agent_name="test") as two:
            await asyncio.create_task(asyncio.sleep(0))
        steps = one.steps, two.steps
        for each in (first, second) if first_leaves_first else (second, first):
            each.close()
        return steps, loop.get_task_factory() is asyncio.eager_task_factory, set(vars(loop)) & {"create_task"}

    steps, given_back, left = run_eagerly(main())
    assert steps[0] == steps[1]
    assert (given_back, left) == (True, set())


# --- what a task is made of --------------------------------------------------------------------------


@types.coroutine
def generator_based() -> Any:
    yield
    return "it ran"


def plain_generator() -> Any:
    yield
    return "it ran"


@pytest.mark.parametrize(
    "make", [generator_based, plain_generator, lambda: 1], ids=["types.coroutine", "generator", "int"]
)
def test_what_asyncio_takes_and_refuses_is_the_same(run: Run, make: Callable[[], Any]) -> None:
    """Python 3.11 takes generators, later ones refuse them; the words are asyncio's in any case."""

    async def outcome() -> str:
        try:
            return str(await asyncio.create_task(make()))
        except TypeError as error:
            return str(error).partition(" at 0x")[0]

    async def main() -> Any:
        plain = await outcome()
        async with Introspector(socket_path=False):
            return plain, await outcome()

    plain, metered = run(main())
    assert metered == plain


async def numbers() -> Any:
    yield 1


@pytest.mark.skipif(sys.version_info < (3, 12), reason="create_task takes them since Python 3.12")
def test_a_coroutine_of_another_kind_looks_as_it_is(run: Run) -> None:
    """By its type's name, and so in the task's repr: leak checks of test suites ask for it."""

    async def main() -> Any:
        async with Introspector(socket_path=False):
            step: Any = numbers().asend(None)
            task = asyncio.create_task(step, name="T")
            looks = type(task.get_coro()).__name__, "async_generator_asend without __name__" in repr(task)
            metered = is_metered(task.get_coro())
            return looks, metered, await task

    assert run(main()) == (("async_generator_asend", True), True, 1)


def test_create_task_looks_like_the_loop_s_own(run: Run) -> None:
    """By name, signature and docstring, as a bound method."""

    def looks(method: Any) -> Any:
        return method.__name__, method.__qualname__, method.__doc__, inspect.signature(method), method.__self__

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        names = ("create_task", "run_forever", "run_in_executor")
        plain = [looks(getattr(loop, name)) for name in names]
        async with Introspector(socket_path=False):
            return plain, [looks(getattr(loop, name)) for name in names]

    plain, metered = run(main())
    assert metered == plain


def test_the_coroutine_may_be_given_by_name(run: Run) -> None:
    """As `create_task` of a loop allows."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        async with Introspector(socket_path=False):
            task = loop.create_task(coro=asyncio.sleep(0, "done"))
            return is_metered(task.get_coro()), await task

    assert run(main()) == (True, "done")


def test_a_class_patched_meanwhile_is_heard(run_virtually: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As tracers and nest_asyncio patch the loop's class: ours calls what is there then."""
    called = []

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        async with attached(loop):
            original = type(loop).create_task

            def patched(self: Any, coro: Any, **kwargs: Any) -> Any:
                called.append("patched")
                return original(self, coro, **kwargs)

            with monkeypatch.context() as patch:
                patch.setattr(type(loop), "create_task", patched)
                await asyncio.create_task(asyncio.sleep(0))

    run_virtually(main())
    assert called == ["patched"]


def test_debug_mode_s_source_of_a_task_has_no_frame_of_ours(run: Run) -> None:
    """Its last line is where the host made it, or asyncio's own."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        plain: Any = asyncio.create_task(asyncio.sleep(0))
        async with Introspector(socket_path=False):
            metered: Any = asyncio.create_task(asyncio.sleep(0))
        loop.set_debug(False)
        await asyncio.wait([plain, metered])
        return [[frame.name for frame in task._source_traceback] for task in (plain, metered)]

    plain, metered = run(main())
    assert metered == plain


@eager_only
def test_an_eager_task_that_the_loop_did_not_create_takes_nothing_from_the_step_around_it(run_virtually: Run) -> None:
    """Made by `asyncio.Task` itself, it opens a session in its first step: its own are metered from the next one on."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        sessions = []

        async def inner(introspector: Introspector) -> None:
            with introspector.session("inner", agent_name="test") as session:
                sessions.append(session)
                await asyncio.sleep(1)
                loop.block(0.03)

        async def outer(introspector: Introspector) -> Any:
            task = asyncio.Task(inner(introspector), loop=loop, eager_start=True)  # type: ignore[call-arg]
            loop.block(0.1)
            await task

        async with attached(loop) as introspector:
            with introspector.session("outer", agent_name="test") as session:
                await asyncio.create_task(outer(introspector))
            return session.busy, sessions[0].busy, [block.session_id for block in introspector.blocks()]

    assert run_virtually(main()) == (pytest.approx(0.1), pytest.approx(0.03), ["outer"])


def test_a_closed_loop_refuses_as_without_us(run_virtually: Run) -> None:
    """And the coroutine's own warning comes once."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        introspector = attached(loop)
        introspector.attach()
        return loop, introspector

    loop, introspector = run_virtually(main())
    coro = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="closed"):
        loop.create_task(coro)
    coro.close()
    introspector.close()
