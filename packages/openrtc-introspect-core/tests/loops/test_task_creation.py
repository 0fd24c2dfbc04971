"""How tasks are metered, and what code that asks for the loop's task factory finds meanwhile."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import sys
import traceback
import types
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
from hooks import hook_on

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._accounting.meter import is_metered
from openrtc_introspect_core._base.log import flush
from openrtc_introspect_core._base.replaced_method import Replaced
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core.wire import SessionRow

Run = Callable[[Coroutine[Any, Any, Any]], Any]

eager_only = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")


@pytest.fixture
def run_eagerly(request: pytest.FixtureRequest, run: Run) -> Run:
    """Run a coroutine on each kind of loop that takes an eager factory."""
    if sys.version_info[:2] == (3, 13) and "uvloop" in request.node.name:
        pytest.skip("uvloop 0.23 gives the factory an argument that CPython 3.13 does not know")
    return run


class OwnTask(asyncio.Task[Any]):
    """A host's own class of tasks."""


def custom(loop: Any, coro: Any, **kwargs: Any) -> Any:
    return OwnTask(coro, loop=loop, **kwargs)


def attached(loop: Any) -> Introspector:
    return Introspector(socket_path=False, clock=loop.clock)


async def blocks_for(loop: Any, seconds: float) -> None:
    loop.block(seconds)


# --- the factory, as others find it ------------------------------------------------------------------


def test_if_no_factory_was_set_none_is_found(run: Run) -> None:
    """The factory is None on each kind of loop."""

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
    """The factory is called with metered coroutines, and is still set afterwards."""

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
    """Sentry's factory is one: it makes the task itself if there was no factory."""

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
    """The constructor in its closure makes metered tasks of the same class, which need not start eagerly."""

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
    """The factory's constructor meters it, and `create_task` does not meter it again."""

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
    """anyio takes the constructor out of the factory, so that child tasks do not begin before their scope is set."""

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
    """They may end in either order; meanwhile each meters each task once."""

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
    """Python 3.11 takes generators, later ones refuse them; the error is asyncio's in any case."""

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
def test_a_coroutine_of_another_kind_keeps_its_name(run: Run) -> None:
    """Its type's name, and so the task's repr, is the same: leak checks of test suites read them."""

    async def main() -> Any:
        async with Introspector(socket_path=False):
            step: Any = numbers().asend(None)
            task = asyncio.create_task(step, name="T")
            names = type(task.get_coro()).__name__, "async_generator_asend without __name__" in repr(task)
            metered = is_metered(task.get_coro())
            return names, metered, await task

    assert run(main()) == (("async_generator_asend", True), True, 1)


def test_create_task_looks_like_the_loop_s_own(run: Run) -> None:
    """It has the same name, signature and docstring, and is a bound method."""

    def surface(method: Any) -> Any:
        return method.__name__, method.__qualname__, method.__doc__, inspect.signature(method), method.__self__

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        names = ("create_task", "run_forever", "run_in_executor")
        plain = [surface(getattr(loop, name)) for name in names]
        async with Introspector(socket_path=False):
            return plain, [surface(getattr(loop, name)) for name in names]

    plain, metered = run(main())
    assert metered == plain


def test_the_coroutine_may_be_given_by_name(run: Run) -> None:
    """The `create_task` of a loop allows that."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        async with Introspector(socket_path=False):
            task = loop.create_task(coro=asyncio.sleep(0, "done"))
            return is_metered(task.get_coro()), await task

    assert run(main()) == (True, "done")


def test_a_class_patched_meanwhile_is_heard(run_virtually: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracers and nest_asyncio patch the loop's class: ours calls the method that is there at the time."""
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


def wrapping(loop: Any, coro: Any, **kwargs: Any) -> Any:
    """Make a task of a coroutine around another one, as sentry-sdk does. It holds the loop for 0.3 s and 0.2 s."""

    async def around() -> Any:
        loop.block(0.3)
        try:
            return await coro
        finally:
            loop.block(0.2)

    return asyncio.Task(around(), loop=loop, **kwargs)


async def waits_and_works(loop: Any) -> str:
    await asyncio.sleep(1)
    loop.block(0.1)
    await asyncio.sleep(1)
    return "done"


def row_of(introspector: Introspector) -> SessionRow:
    (row,) = introspector.snapshot().sessions
    return row


def run_with(run: Run, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run `main`, which may set a task factory; what asyncio itself runs afterwards is not made by it."""

    async def then_without() -> Any:
        try:
            return await main()
        finally:
            asyncio.get_running_loop().set_task_factory(None)

    return run(then_without())


@pytest.mark.parametrize("before", [True, False], ids=["set before", "set meanwhile"])
def test_what_a_factory_s_wrapper_does_is_the_task_s_too(run_virtually: Run, before: bool) -> None:
    """Each step is charged as a whole, once, and the task counts as one."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        if before:
            loop.set_task_factory(wrapping)
        async with attached(loop) as introspector:
            if not before:
                loop.set_task_factory(wrapping)
            with introspector.session("s", agent_name="a"):
                task = asyncio.create_task(waits_and_works(loop))
                counted = row_of(introspector).tasks
                result = await task
                row = row_of(introspector)
        return counted, result, row.cpu_s, row.tasks

    assert run_with(run_virtually, main) == (2, "done", pytest.approx(0.6), 1)


def test_what_a_wrapper_of_the_class_s_create_task_does_is_the_task_s_too(
    run_virtually: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tracers wrap it, such as ddtrace."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        original = type(loop).create_task

        def patched(self: Any, coro: Any, **kwargs: Any) -> Any:
            async def around() -> Any:
                loop.block(0.5)
                return await coro

            return original(self, around(), **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(type(loop), "create_task", patched)
            async with attached(loop) as introspector:
                with introspector.session("s", agent_name="a"):
                    await asyncio.create_task(waits_and_works(loop))
                    return row_of(introspector).cpu_s

    assert run_with(run_virtually, main) == pytest.approx(0.6)


def test_two_introspectors_both_meter_around_a_wrapper(run_virtually: Run) -> None:
    """Each charges its own session with the whole of each step."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        loop.set_task_factory(wrapping)
        async with attached(loop) as first, attached(loop) as second:
            with first.session("one", agent_name="a"), second.session("two", agent_name="a"):
                await asyncio.create_task(waits_and_works(loop))
                return row_of(first).cpu_s, row_of(second).cpu_s

    assert run_with(run_virtually, main) == (pytest.approx(0.6), pytest.approx(0.6))


@pytest.mark.parametrize("begun", [True, False], ids=["once it has begun", "before it begins"])
def test_a_wrapped_task_is_cancelled_as_without_us(run: Run, begun: bool) -> None:
    """The wrapper and what it wraps get the cancellation, and both are freed."""

    async def attempt() -> Any:
        seen: list[str] = []

        async def inside() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                seen.append("inside")
                raise

        def factory(loop: Any, coro: Any, **kwargs: Any) -> Any:
            async def around() -> None:
                try:
                    await coro
                finally:
                    coro.close()
                    seen.append("around")

            return asyncio.Task(around(), loop=loop, **kwargs)

        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        coro = inside()
        task = asyncio.create_task(coro)
        loop.set_task_factory(None)
        if begun:
            await asyncio.sleep(0)
        else:
            coro.close()
        task.cancel()
        await asyncio.wait([task])
        freed = weakref.ref(task.get_coro())
        cancelled = task.cancelled()
        del task, coro
        gc.collect()
        return cancelled, seen, freed() is None

    async def main() -> Any:
        without = await attempt()
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("s", agent_name="a"):
                under = await attempt()
                return without, under, row_of(introspector).tasks

    without, under, tasks = run(main())
    assert without == under
    assert tasks == 1


@eager_only
def test_a_wrapped_task_that_has_begun_eagerly_is_metered_inside(run_virtually: Run) -> None:
    """Its wrapper's first step is a part of the creator's step."""

    def eagerly(loop: Any, coro: Any, **kwargs: Any) -> Any:
        async def around() -> Any:
            loop.block(0.3)
            return await coro

        return asyncio.Task(around(), loop=loop, eager_start=True, **kwargs)

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        loop.set_task_factory(eagerly)
        async with attached(loop) as introspector:
            with introspector.session("s", agent_name="a"):
                result = await asyncio.create_task(waits_and_works(loop))
                return result, row_of(introspector).cpu_s

    assert run_with(run_virtually, main) == ("done", pytest.approx(0.4))


class Named(asyncio.Future[Any]):
    """A future that `create_task` can name."""

    def set_name(self, name: str) -> None: ...


def test_a_factory_may_return_what_is_no_task(run_virtually: Run) -> None:
    """The coroutine is metered all the same, as far as it is driven."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()

        def no_task(loop: Any, coro: Any, **kwargs: Any) -> Any:
            future = Named(loop=loop)
            asyncio.Task(coro, loop=loop).add_done_callback(lambda task: future.set_result(task.result()))
            return future

        loop.set_task_factory(no_task)
        async with attached(loop) as introspector:
            with introspector.session("s", agent_name="a"):
                result = await loop.create_task(waits_and_works(loop))
                return result, row_of(introspector).cpu_s

    assert run_with(run_virtually, main) == ("done", pytest.approx(0.1))


@pytest.mark.parametrize("kind", [asyncio.Task, asyncio.tasks._PyTask], ids=["in C", "in Python"])  # type: ignore[attr-defined]
def test_tasks_of_either_class_of_asyncio_s_are_metered_around_a_wrapper(run_virtually: Run, kind: Any) -> None:
    """nest_asyncio puts the class in Python in place of the one in C."""

    def factory(loop: Any, coro: Any, **kwargs: Any) -> Any:
        async def around() -> Any:
            loop.block(0.5)
            return await coro

        return kind(around(), loop=loop, **kwargs)

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        async with attached(loop) as introspector:
            with introspector.session("s", agent_name="a"):
                await asyncio.create_task(waits_and_works(loop))
                return row_of(introspector).cpu_s

    assert run_with(run_virtually, main) == pytest.approx(0.6)


def test_a_wrapper_that_is_a_class_has_tracebacks_as_without_us(run: Run) -> None:
    """It calls what it wraps by its methods."""

    class Around(Coroutine[Any, Any, Any]):
        def __init__(self, coro: Any) -> None:
            self.coro = coro

        def send(self, value: Any) -> Any:
            return self.coro.send(value)

        def throw(self, *error: Any) -> Any:
            return self.coro.throw(*error)

        def close(self) -> None:
            self.coro.close()

        def __await__(self) -> Any:
            return self.coro.__await__()

    async def fails(cancelled: bool) -> None:
        if cancelled:
            await asyncio.sleep(60)
        await asyncio.sleep(0)
        raise ValueError("failed")

    async def functions_of(cancelled: bool) -> list[str]:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coro, **kwargs: asyncio.Task(Around(coro), loop=loop, **kwargs))
        task = asyncio.create_task(fails(cancelled))
        loop.set_task_factory(None)
        await asyncio.sleep(0)
        if cancelled:
            task.cancel()
        try:
            await task
        except BaseException as error:
            return [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        return []

    async def main() -> Any:
        without = [await functions_of(each) for each in (False, True)]
        async with Introspector(socket_path=False):
            return without, [await functions_of(each) for each in (False, True)]

    without, under = run(main())
    assert without == under


def test_debug_mode_s_source_of_a_task_has_no_frame_of_ours(run: Run) -> None:
    """The last line is where the host made the task, or asyncio's own."""

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
    """Made by `asyncio.Task` itself, it opens a session in its first step: its later steps are metered."""

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
    """The coroutine's own warning comes once."""

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


def test_an_existing_factory_is_called_with_what_it_was_given(run: Run) -> None:
    """The host's factory makes the task; name and context arrive."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        calls: list[dict[str, Any]] = []

        class Mine(asyncio.Task[Any]):
            pass

        def factory(loop: Any, coro: Any, **kwargs: Any) -> Any:
            calls.append(kwargs)
            return Mine(coro, loop=loop, **kwargs)

        loop.set_task_factory(factory)  # type: ignore[arg-type]
        context = contextvars.copy_context()
        async with Introspector(socket_path=False):
            task = asyncio.create_task(asyncio.sleep(0, "slept"), name="mine", context=context)
            result = await task
            return (
                type(task) is Mine,
                task.get_name(),
                result,
                [call.get("context") for call in calls],
                context,
            )

    made, name, result, contexts, context = run(main())
    assert (made, name, result) == (True, "mine", "slept")
    assert context in contexts


def test_a_task_is_of_the_class_that_the_loop_would_take(run_on_asyncio: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some programs replace asyncio's class of tasks, for instance by the one in Python, before or after we attach."""

    class Theirs(asyncio.Task[Any]):
        pass

    async def main() -> Any:
        async with Introspector(socket_path=False):
            monkeypatch.setattr(asyncio.tasks, "Task", Theirs)
            task = asyncio.create_task(asyncio.sleep(0, "slept"))
            return type(task), await task

    assert run_on_asyncio(main()) == (Theirs, "slept")


def test_a_create_task_on_top_is_left_alone_and_noted(run_virtually: Run, caplog: pytest.LogCaptureFixture) -> None:
    """It stays when we detach, ours passes tasks through then, and the snapshot says that ours was replaced."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        introspector = Introspector(socket_path=False, clock=loop.clock)
        async with introspector:
            ours = loop.create_task

            def on_top(coro: Any, **kwargs: Any) -> Any:
                return ours(coro, **kwargs)

            loop.create_task = on_top
            with introspector.session("job-1", agent_name="test") as session:

                async def work() -> None:
                    loop.block(0.02)

                await asyncio.create_task(work())
            parts_of(introspector).tick(loop.clock())
            parts_of(introspector).tick(loop.clock())
            notes = introspector.snapshot().worker.notes
        left = loop.create_task is on_top
        busy = session.busy
        result = await asyncio.create_task(asyncio.sleep(0, "still works"))
        return notes, left, result, busy

    notes, left, result, busy = run_virtually(main())
    assert [note for note in notes if "create_task was replaced" in note]
    assert flush(60.0)
    assert sum("create_task was replaced" in record.message for record in caplog.records) == 1
    assert (left, result) == (True, "still works")
    assert busy == pytest.approx(0.02)


def test_a_detach_while_create_task_is_checked_is_no_replacement(
    run_virtually: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service thread may ask in the middle of a detach: a method that was just restored is no replacement."""

    async def main() -> bool:
        loop: Any = asyncio.get_running_loop()
        hook = hook_on(loop, loop.clock, on_fault=lambda problem, _error: pytest.fail(problem))
        hook.attach()
        is_reached = Replaced.is_reached

        def detached_meanwhile(replaced: Replaced) -> bool:
            monkeypatch.undo()
            hook.detach()
            return is_reached(replaced)

        monkeypatch.setattr(Replaced, "is_reached", detached_meanwhile)
        return hook.loses_tasks()

    assert run_virtually(main()) is False


def test_debug_mode_shows_where_a_task_was_created_as_without_us(run_on_asyncio: Run) -> None:
    """The creation traceback of a task ends in its caller, without a frame of ours."""

    async def main() -> Any:
        asyncio.get_running_loop().set_debug(True)

        def names(task: Any) -> list[str]:
            assert isinstance(task._source_traceback, traceback.StackSummary)
            return [frame.name for frame in task._source_traceback]

        def create() -> asyncio.Task[Any]:
            return asyncio.create_task(asyncio.sleep(0))

        plain = create()
        async with Introspector(socket_path=False):
            metered = create()
            await asyncio.gather(plain, metered)
            return names(plain), names(metered)

    plain, metered = run_on_asyncio(main())
    assert plain[-2:] == metered[-2:] == ["create", "create_task"]
