"""Metered tasks behave as unmetered ones.

Each scenario runs both ways, and the outcomes are equal.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import inspect
import io
import sys
import traceback
import types
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, cast

import pytest

from openrtc_introspect_core import Introspector, current_session
from openrtc_introspect_core._accounting.fields import COMPILED
from openrtc_introspect_core._accounting.ledger import Ledger
from openrtc_introspect_core._accounting.meter import Metered
from openrtc_introspect_core._accounting.step_sampling import StepSampling
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._sessions.session import Session
from openrtc_introspect_testing._loops.fake_clock import FakeClock

Run = Callable[[Coroutine[Any, Any, Any]], Any]
Scenario = Callable[[], Coroutine[Any, Any, Any]]
SCENARIOS: list[Scenario] = []
colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


def scenario(function: Scenario) -> Scenario:
    SCENARIOS.append(function)
    return function


class Failure(Exception):
    pass


def frames(error: BaseException | None) -> list[tuple[str, str]]:
    """Return the traceback as (last part of the file, function), outermost first."""
    assert error is not None
    return [(frame.filename.rpartition("/")[2], frame.name) for frame in traceback.extract_tb(error.__traceback__)]


async def fail_deep(levels: int = 3) -> None:
    if levels:
        await fail_deep(levels - 1)
    await asyncio.sleep(0)
    raise Failure("deep")


@scenario
async def results_of_many_steps() -> Any:
    async def add(n: int) -> int:
        for _ in range(n):
            await asyncio.sleep(0)
        return n

    return await asyncio.gather(*(asyncio.create_task(add(n)) for n in range(5)))


@scenario
async def tuple_and_exception_results() -> Any:
    async def give(value: Any) -> Any:
        return value

    error = Failure("returned")
    task = asyncio.create_task(give(error))
    return await asyncio.create_task(give((1, 2))), await task is error, await asyncio.create_task(give(None))


@scenario
async def traceback_of_a_failure() -> Any:
    task = asyncio.create_task(fail_deep())
    try:
        await task
    except Failure as error:
        return frames(error), frames(task.exception()), str(error.__context__)
    return None


@scenario
async def failure_in_the_first_step() -> Any:
    async def fail() -> None:
        raise Failure("at once")

    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    return frames(task.exception())


@scenario
async def exception_context_and_cause() -> Any:
    async def fail() -> None:
        try:
            await fail_deep(0)
        except Failure as error:
            raise KeyError("second") from error

    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    error = task.exception()
    assert error is not None
    return repr(error.__cause__), repr(error.__context__), frames(error.__cause__), frames(error)


@scenario
async def no_exception_is_being_handled_when_one_is_thrown_in() -> Any:
    seen: list[Any] = []

    async def victim() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            seen.append(sys.exc_info()[0])
            try:
                raise Failure("in finally")
            except Failure as error:
                seen.append(repr(error.__context__))

    task = asyncio.create_task(victim())
    await asyncio.sleep(0)
    task.cancel("stop")
    await asyncio.wait([task])
    return seen, task.cancelled()


@scenario
async def cancelled_before_the_first_step() -> Any:
    ran: list[int] = []

    async def never() -> None:
        ran.append(1)

    task = asyncio.create_task(never())
    task.cancel()
    await asyncio.wait([task])
    return ran, task.cancelled(), task.cancelling()


@scenario
async def cancellation_swallowed_and_counted() -> Any:
    counts: list[Any] = []

    async def stubborn() -> str:
        task = asyncio.current_task()
        assert task is not None
        for _ in range(2):
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError as error:
                counts.append((task.cancelling(), error.args))
                counts.append(task.uncancel())
        return "went on"

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    task.cancel("one")
    await asyncio.sleep(0)
    task.cancel("two")
    return await task, counts, task.cancelled()


@scenario
async def cancelled_while_awaiting_a_shield() -> Any:
    done: list[str] = []

    async def inner() -> str:
        await asyncio.sleep(0.01)
        done.append("inner")
        return "kept"

    shielded = asyncio.create_task(inner())

    async def outer() -> None:
        await asyncio.shield(shielded)

    task = asyncio.create_task(outer())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled(), await shielded, done


@scenario
async def task_group_with_one_failure() -> Any:
    log: list[str] = []

    async def sibling() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            log.append("sibling cancelled")
            raise

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(sibling())
            group.create_task(fail_deep())
    except* Failure as errors:
        log.append(repr(errors.exceptions))
        log.append(repr(frames(errors.exceptions[0])))
    task = asyncio.current_task()
    assert task is not None
    return log, task.cancelling()


async def task_groups_that_are_cancelled() -> Any:
    """Before they are entered, by their body, by a task of theirs, and from outside."""
    log: list[Any] = []

    async def sibling(name: str) -> None:
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0)
            log.append(name)

    async def run(group: Any, *members: Coroutine[Any, Any, None]) -> None:
        async with group:
            tasks = [group.create_task(each) for each in members]
            await asyncio.sleep(10)
        log.append([task.cancelled() for task in tasks])

    async def cancel(group: Any) -> None:
        await asyncio.sleep(0)
        group.cancel()

    early: Any = asyncio.TaskGroup()
    early.cancel()
    await run(early)
    inside: Any = asyncio.TaskGroup()
    await run(inside, sibling("inside"), cancel(inside))
    outside: Any = asyncio.TaskGroup()
    await asyncio.gather(run(outside, sibling("outside")), cancel(outside))
    async with asyncio.TaskGroup() as group:
        group.create_task(sibling("body"))
        await asyncio.sleep(0)
        group.cancel()  # type: ignore[attr-defined]
        await asyncio.sleep(10)
    task = asyncio.current_task()
    assert task is not None
    return log, task.cancelling()


if sys.version_info >= (3, 15):
    scenario(task_groups_that_are_cancelled)


@scenario
async def timeouts_expire_and_do_not() -> Any:
    log: list[Any] = []
    try:
        async with asyncio.timeout(0.005):
            await asyncio.sleep(10)
    except TimeoutError as error:
        log.append((type(error).__name__, type(error.__cause__).__name__))
    async with asyncio.timeout(5) as deadline:
        await asyncio.sleep(0)
    log.append(deadline.expired())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.sleep(10), 0.005)
    task = asyncio.current_task()
    assert task is not None
    return log, task.cancelling()


@scenario
async def async_generators_close_when_told() -> Any:
    log: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            for n in range(10):
                yield n
                await asyncio.sleep(0)
        finally:
            log.append("closed")

    async def use() -> None:
        iterator = numbers()
        async for n in iterator:
            log.append(str(n))
            if n == 2:
                break
        await iterator.aclose()  # type: ignore[attr-defined]

    await asyncio.create_task(use())
    return log


@scenario
async def context_variables_stay_a_task_s_own() -> Any:
    async def child() -> str:
        before = colour.get()
        colour.set("red")
        await asyncio.sleep(0)
        return f"{before} {colour.get()}"

    colour.set("blue")
    result = await asyncio.create_task(child())
    context = contextvars.copy_context()
    context.run(colour.set, "green")
    other = await asyncio.create_task(child(), context=context)
    return result, other, colour.get(), context[colour]


@scenario
async def awaiting_a_custom_awaitable() -> Any:
    class Twice:
        def __await__(self) -> Iterator[Any]:
            yield from asyncio.sleep(0).__await__()
            return "twice"

    async def use() -> Any:
        return await Twice()

    return await asyncio.create_task(use())


@scenario
async def yielding_garbage_is_the_task_s_error() -> Any:
    @types.coroutine
    def garbage() -> Any:
        yield "not a future"

    async def use() -> None:
        await garbage()

    task = asyncio.create_task(use())
    await asyncio.wait([task])
    return repr(type(task.exception())), "Task got bad yield: 'not a future'" in str(task.exception())


@scenario
async def stop_iteration_becomes_a_runtime_error() -> Any:
    async def stop() -> None:
        raise StopIteration("mine")

    task = asyncio.create_task(stop())
    await asyncio.wait([task])
    error = task.exception()
    assert error is not None
    return repr(error), repr(error.__cause__)


@scenario
async def names_coroutines_and_stacks_are_seen_through() -> Any:
    async def lookup() -> None:
        await asyncio.sleep(10)

    given = lookup()
    task = asyncio.create_task(given, name="look")
    unstarted = inspect.getcoroutinestate(task.get_coro())  # type: ignore[arg-type]
    await asyncio.sleep(0)
    coro: Any = task.get_coro()
    text = io.StringIO()
    task.print_stack(file=text)
    seen = (
        unstarted,
        inspect.getcoroutinestate(coro),
        task.get_name(),
        coro.__qualname__,
        coro.cr_code.co_name,
        coro.cr_await is not None,
        inspect.iscoroutine(coro),
        asyncio.iscoroutine(coro),
        isinstance(coro, types.CoroutineType),
        coro == given,
        given == coro,
        {given: "found"}.get(coro),
        [frame.f_code.co_name for frame in task.get_stack()],
        "lookup() running at" in repr(task),
        "in lookup" in text.getvalue(),
        "openrtc" in text.getvalue() or "openrtc" in repr(task).replace("test_meter", "").rpartition("/")[2],
    )
    task.cancel()
    await asyncio.wait([task])
    return seen


@scenario
async def done_callbacks_and_results_arrive_in_order() -> Any:
    log: list[str] = []

    async def work() -> int:
        await asyncio.sleep(0)
        log.append("work")
        return 7

    task = asyncio.create_task(work())
    task.add_done_callback(lambda done: log.append(f"first {done.result()}"))
    task.add_done_callback(lambda done: log.append(f"second {done.result()}"))
    await task
    await asyncio.sleep(0)
    return log


@scenario
async def base_exceptions_of_one_s_own_pass() -> Any:
    class Stop(BaseException):
        pass

    async def stop() -> None:
        await asyncio.sleep(0)
        raise Stop("now")

    task = asyncio.create_task(stop())
    await asyncio.wait([task])
    try:
        await task
    except Stop as error:
        return repr(error), frames(error)
    return None


@scenario
async def a_future_awaited_is_let_go_when_the_step_begins() -> Any:
    import weakref

    class Big:
        pass

    refs: list[Any] = []

    async def use() -> bool:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        refs.append(weakref.ref(future))
        asyncio.get_running_loop().call_soon(future.set_result, Big())
        await future
        del future
        gc.collect()
        return refs[0]() is None

    return await asyncio.create_task(use())


async def metered(function: Scenario) -> Any:
    async with Introspector(socket_path=False) as introspector:
        with introspector.session("job-1", agent_name="test"):
            return await function()


@pytest.mark.parametrize("function", SCENARIOS, ids=lambda function: function.__name__)
def test_metered_equals_unmetered(function: Scenario, run: Run) -> None:
    """The outcome, with all that the scenario observes, is the same."""

    async def in_a_task(inner: Awaitable[Any]) -> Any:
        return await inner

    async def metered_in_a_task() -> Any:
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test"):
                return await asyncio.create_task(in_a_task(function()))

    plain = run(function())
    assert run(metered(function)) == plain
    assert run(metered_in_a_task()) == run(in_a_task(function()))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
@pytest.mark.parametrize("function", SCENARIOS, ids=lambda function: function.__name__)
def test_eager_metered_equals_eager_unmetered(function: Scenario, run_on_asyncio: Run) -> None:
    """The same holds for asyncio's eager task factory, whose constructor meters then.

    The test is for asyncio alone: uvloop 0.23 gives factories an argument that this one refuses, metered or not.
    """
    run = run_on_asyncio

    async def eager(inner: Callable[[], Awaitable[Any]]) -> Any:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        return await inner()

    async def observe() -> Any:
        if function in (cancelled_before_the_first_step, names_coroutines_and_stacks_are_seen_through):
            return None  # an eager task has no moment before its first step
        return await function()

    assert run(eager(lambda: metered(observe))) == run(eager(observe))


@pytest.mark.skipif(COMPILED is None, reason="a generator that throws an exception refers to it meanwhile")
def test_nothing_of_ours_refers_to_an_exception_that_is_thrown(run: Run) -> None:
    """The collector finds what refers to it, as it does without metering. Any tuple would be ours."""

    async def work() -> list[type]:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError as error:
            return [type(each) for each in gc.get_referrers(error)]
        raise AssertionError

    async def cancelled() -> list[type]:
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        return await task

    async def main() -> list[type]:
        return await metered(cancelled)

    assert tuple not in run(main())


def test_a_coroutine_never_started_warns_as_ever() -> None:
    """Python warns that it was never awaited."""

    async def never() -> None:
        pass

    ledger = Ledger(contextvars.ContextVar("binding"), lambda: 0.0, 1.0, lambda *_: None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Metered(never(), ledger, ledger.untagged)
        gc.collect()
    assert any("never awaited" in str(warning.message) for warning in caught)


def test_nothing_is_kept_of_steps_however_they_end() -> None:
    """No reference stays to the session, the ledger, awaited or thrown objects."""
    binding: contextvars.ContextVar[Any] = contextvars.ContextVar("binding")
    ledger = Ledger(binding, FakeClock(), 60.0)
    session = Session("job-1", "a", {}, 0.0)
    account = ledger.account_of(session)
    awaited, error = object(), Failure("thrown")

    @types.coroutine
    def pause() -> Iterator[object]:
        yield awaited

    async def work(then: str) -> object:
        await pause()
        if then == "step inside":
            Metered(work("ends"), ledger, ledger.untagged).send(None)
        if then == "raises":
            raise error
        await pause()
        return awaited

    def once() -> None:
        for then in ("ends", "step inside", "raises", "is thrown into", "is closed", "is dropped", "never begins"):
            metered = Metered(work(then), ledger, account)
            if then == "never begins":
                metered.close()
                continue
            metered.send(None)
            with contextlib.suppress(Failure, StopIteration):
                if then == "is thrown into":
                    metered.throw(error)
                elif then == "is closed":
                    metered.close()
                elif then != "is dropped":
                    while True:
                        metered.send(None)
        error.__traceback__ = error.__context__ = None

    def counts() -> list[int]:
        gc.collect()
        return [sys.getrefcount(each) for each in (session, account, ledger, ledger.untagged, awaited, error)]

    token = binding.set(session)
    try:
        once()
        before = counts()
        for _ in range(100):
            once()
        assert counts() == before
    finally:
        binding.reset(token)
    assert (account.tasks, ledger.untagged.tasks) == (0, 0)


def test_a_coroutine_that_holds_what_drives_it_is_collected() -> None:
    """A task that only its own coroutine's frame holds is collected, too."""
    ledger = Ledger(contextvars.ContextVar("binding"), FakeClock(), 60.0)
    ended = []

    @types.coroutine
    def pause() -> Iterator[None]:
        yield

    async def work() -> None:
        mine = held[0]
        try:
            await pause()
        finally:
            ended.append(mine is not None)

    held = [Metered(work(), ledger, ledger.untagged)]
    seen = weakref.ref(held[0])
    held[0].send(None)
    held.clear()
    gc.collect()
    assert seen() is None
    assert ended == [True]
    assert ledger.untagged.tasks == 0


def test_one_that_has_ended_says_so_as_a_coroutine_does() -> None:
    """A metered coroutine cannot be awaited twice either."""
    ledger = Ledger(contextvars.ContextVar("binding"), FakeClock(), 60.0)

    async def work() -> int:
        return 4

    metered = Metered(work(), ledger, ledger.untagged)
    with pytest.raises(StopIteration) as stopped:
        metered.send(None)
    assert stopped.value.value == 4
    with pytest.raises((RuntimeError, StopIteration)):
        metered.send(None)
    assert ledger.untagged.tasks == 0


def test_a_step_inside_another_is_charged_and_counted_once() -> None:
    """An eager task's first step is such a step. The outer step goes on after it."""
    clock = FakeClock()
    binding: contextvars.ContextVar[Any] = contextvars.ContextVar("binding")
    ledger = Ledger(binding, clock, 60.0)
    inner_session, outer_session = (Session(name, "a", {}, 0.0) for name in ("inner", "outer"))

    @types.coroutine
    def pause() -> Iterator[None]:
        yield

    async def inner() -> None:
        clock.advance(4.0)
        await pause()

    async def outer() -> None:
        clock.advance(1.0)
        contextvars.Context().run(lambda: (binding.set(inner_session), metered_inner.send(None)))
        clock.advance(2.0)
        await pause()

    metered_inner = Metered(inner(), ledger, ledger.untagged)
    metered_outer = Metered(outer(), ledger, ledger.untagged)
    contextvars.Context().run(lambda: (binding.set(outer_session), metered_outer.send(None)))
    inner_account, outer_account = ledger.account_of(inner_session), ledger.account_of(outer_session)
    assert (inner_account.busy, inner_account.steps) == (4.0, 1)
    assert (outer_account.busy, outer_account.steps) == (3.0, 1)
    metered_inner.close()
    metered_outer.close()


def test_a_fault_at_the_end_of_an_untimed_first_step_is_not_the_host_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step of the task was timed before. Metering is switched off, and the task goes on."""
    ledger = Ledger(contextvars.ContextVar("binding"), FakeClock(), 60.0)
    faults: list[str] = []
    ledger.on_fault = lambda problem, error: faults.append(str(error))

    def fail(sampling: StepSampling, now: float) -> None:
        raise ValueError("ours")

    @types.coroutine
    def pause() -> Iterator[str]:
        yield "the host's"

    async def work() -> None:
        ledger.switch_unsampled(ledger.untagged, ledger.gc, None)
        await pause()

    monkeypatch.setattr(StepSampling, "end_parts", fail)
    ledger.set_sampling_period(3)
    ledger.steps_until_sample = 2
    metered = Metered(work(), ledger, ledger.untagged)
    assert metered.send(None) == "the host's"
    assert faults == ["ours"]
    with pytest.raises(StopIteration):
        metered.send(None)


def test_every_step_is_charged_to_the_session_bound_at_its_start(run_virtually: Run) -> None:
    """On virtual time, the charge of a child task's steps is exact."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()

        async def child() -> None:
            for _ in range(4):
                loop.block(0.01)
                await asyncio.sleep(1)

        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            with introspector.session("job-1", agent_name="test") as session:
                task = asyncio.create_task(child())
            await task
            return session.busy, session.steps

    busy, steps = run_virtually(main())
    assert busy == pytest.approx(0.04)
    assert steps >= 5


def test_a_task_that_binds_its_session_late_is_charged_to_it(run_virtually: Run) -> None:
    """An entrypoint learns its session late. Its time before is untagged."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(socket_path=False, clock=loop.clock) as introspector:

            async def entrypoint() -> float:
                loop.block(0.01)
                await asyncio.sleep(1)
                loop.block(0.02)
                with introspector.session("job-1", agent_name="test") as session:
                    loop.block(0.03)
                    await asyncio.sleep(1)
                    loop.block(0.04)
                loop.block(0.05)
                return session.busy

            busy = await asyncio.create_task(entrypoint())
            return busy, parts_of(introspector).loops[0].ledger.untagged.busy

    busy, untagged = run_virtually(main())
    assert busy == pytest.approx(0.07)
    assert untagged == pytest.approx(0.08)


def test_create_task_with_a_context_belongs_to_that_context_s_session(run_virtually: Run) -> None:
    """The argument `context` decides, not the caller."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(socket_path=False, clock=loop.clock) as introspector:

            async def work() -> str:
                loop.block(0.02)
                await asyncio.sleep(0)
                session = current_session()
                return session.session_id if session else "-"

            with introspector.session("a", agent_name="test") as a:
                context = contextvars.copy_context()
                with introspector.session("b", agent_name="test") as b:
                    own = await asyncio.create_task(work())
                    other = await asyncio.create_task(work(), context=context)
                return own, other, a.busy, b.busy

    own, other, a, b = run_virtually(main())
    assert (own, other) == ("b", "a")
    assert a == pytest.approx(0.02)
    assert b == pytest.approx(0.02)


def test_tasks_are_counted_however_they_end(run_virtually: Run) -> None:
    """Returned, failed or cancelled at any time: no task stays in the count."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test") as session:

                async def fail() -> None:
                    raise Failure

                tasks = [
                    asyncio.create_task(asyncio.sleep(0)),
                    asyncio.create_task(fail()),
                    asyncio.create_task(asyncio.sleep(10)),
                    asyncio.create_task(asyncio.sleep(10)),
                ]
                tasks[3].cancel()
                during = session.tasks
                await asyncio.sleep(0)
                tasks[2].cancel()
                await asyncio.wait(tasks)
                [task.exception() for task in tasks if not task.cancelled()]
                return during, session.tasks

    assert run_virtually(main()) == (5, 1)


def test_a_task_whose_coroutine_was_closed_is_counted_no_more(run_virtually: Run) -> None:
    """It cannot step again, whoever keeps it."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test") as session:
                task = asyncio.create_task(asyncio.sleep(10))
                await asyncio.sleep(0)
                waiting = session.tasks
                cast(Any, task.get_coro()).close()
                closed = session.tasks
                task.cancel()
                await asyncio.wait([task])
                return waiting, closed, session.tasks

    assert run_virtually(main()) == (2, 1, 1)
