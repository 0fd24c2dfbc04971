"""Which locks a suspended coroutine holds, and at which `with` it took them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextvars import ContextVar
from functools import partial
from time import perf_counter
from typing import Any

import anyio
import anyio.abc
import pytest
import trio

from openrtc_introspect_core._accounting.ledger import Ledger
from openrtc_introspect_core._accounting.meter import metered
from openrtc_introspect_core._waits.held_locks import held_locks
from openrtc_introspect_core._waits.locks import inner_lock

pytestmark = pytest.mark.gil

Make = Callable[[], Any]

THREAD_LOCKS = (threading.Lock, threading.RLock, threading.Condition, threading.Semaphore, threading.BoundedSemaphore)
ASYNCIO_LOCKS = (asyncio.Lock, asyncio.Semaphore, asyncio.BoundedSemaphore, asyncio.Condition)
ANYIO_LOCKS = (anyio.Lock, anyio.Semaphore, anyio.CapacityLimiter, anyio.Condition)
TRIO_LOCKS = (trio.Lock, trio.StrictFIFOLock, trio.Semaphore, trio.CapacityLimiter, trio.Condition)


def maker(kind: Callable[..., Any]) -> Make:
    """Return what makes a lock of this kind."""
    return partial(kind, 2) if "Semaphore" in kind.__name__ or "Limiter" in kind.__name__ else kind


def each_of(*kinds: Callable[..., Any]) -> pytest.MarkDecorator:
    """Run a test with a maker of each kind of lock."""
    return pytest.mark.parametrize("make", [maker(kind) for kind in kinds], ids=[kind.__name__ for kind in kinds])


class Pause:
    """What suspends a coroutine."""

    def __await__(self) -> Generator[None]:
        yield


async def pause() -> None:
    await Pause()


def suspended(coro: Any) -> Any:
    """Run a coroutine up to where it pauses."""
    coro.send(None)
    return coro


def held(coro: Any) -> list[Any]:
    found = [each.lock for each in held_locks(coro)]
    coro.close()
    return found


def line(function: Callable[..., Any], number: int) -> tuple[str, int, str]:
    """Return the place of a line of a function, counted from its `def` line, which is 0."""
    code = getattr(function, "__wrapped__", function).__code__
    return code.co_filename, code.co_firstlineno + number, code.co_qualname


async def in_with(lock: Any) -> None:
    with lock:
        await pause()


async def in_async_with(lock: Any) -> None:
    async with lock:
        await pause()


@each_of(*THREAD_LOCKS)
def test_a_coroutine_inside_of_with_holds_the_lock(make: Make) -> None:
    lock = make()
    assert held(suspended(in_with(lock))) == [inner_lock(lock)]


@each_of(*ASYNCIO_LOCKS)
def test_a_coroutine_inside_of_async_with_holds_the_lock(make: Make) -> None:
    lock = make()
    assert held(suspended(in_async_with(lock))) == [inner_lock(lock)]


async def held_in_a_task(make: Make) -> tuple[Any, list[Any]]:
    """Return a lock, and the locks that a task inside of its `async with` holds."""
    lock = make()

    async def hold(task_status: anyio.abc.TaskStatus[None]) -> None:
        async with lock:
            task_status.started()
            await anyio.sleep_forever()

    async def started(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        coros.append(hold(task_status))
        await coros[0]

    coros: list[Any] = []
    async with anyio.create_task_group() as group:
        await group.start(started)
        await anyio.wait_all_tasks_blocked()
        found = [each.lock for each in held_locks(coros[0])]
        group.cancel_scope.cancel()
    return lock, found


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@each_of(*ANYIO_LOCKS)
def test_anyios_locks_are_known_on_both_backends(make: Make, backend: str) -> None:
    lock, found = anyio.run(held_in_a_task, make, backend=backend)
    assert found == [inner_lock(lock)]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@each_of(*ANYIO_LOCKS)
def test_a_lock_of_anyios_that_is_older_than_the_loop_is_the_one_inside(make: Make, backend: str) -> None:
    adapter = make()
    lock, found = anyio.run(held_in_a_task, lambda: adapter, backend=backend)
    assert found == [inner_lock(lock)]
    assert found[0] is not adapter


@each_of(*TRIO_LOCKS)
def test_trios_locks_are_known(make: Make) -> None:
    lock, found = anyio.run(held_in_a_task, make, backend="trio")
    assert found == [inner_lock(lock)]


def test_a_condition_and_its_lock_are_one() -> None:
    lock = asyncio.Lock()
    assert inner_lock(asyncio.Condition(lock)) is lock


def test_a_coroutine_that_waits_for_the_lock_does_not_hold_it() -> None:
    async def main() -> None:
        lock = asyncio.Lock()
        await lock.acquire()
        waits = in_async_with(lock)
        waits.send(None)
        assert held(waits) == []

    asyncio.run(main())


def test_a_coroutine_that_waits_for_another_lock_holds_the_outer_one() -> None:
    async def both(outer: Any, inner: Any) -> None:
        async with outer, inner:
            raise AssertionError

    async def main() -> None:
        outer, inner = asyncio.Lock(), asyncio.Lock()
        await inner.acquire()
        waits = both(outer, inner)
        waits.send(None)
        assert held(waits) == [outer]

    asyncio.run(main())


def test_a_coroutine_that_waits_for_a_condition_has_released_its_lock() -> None:
    async def waits(condition: asyncio.Condition, outer: Any) -> None:
        async with outer, condition:
            await condition.wait()

    async def main() -> None:
        condition, outer = asyncio.Condition(), asyncio.Lock()
        coro = waits(condition, outer)
        coro.send(None)
        assert held(coro) == [outer]

    asyncio.run(main())


def test_after_the_body_it_holds_the_lock_no_more() -> None:
    async def after(lock: Any) -> None:
        with lock:
            pass
        await pause()

    assert held(suspended(after(threading.Lock()))) == []


def test_in_an_except_clause_outside_it_holds_the_lock_no_more() -> None:
    async def failed(lock: Any) -> None:
        try:
            with lock:
                raise ValueError
        except ValueError:
            await pause()

    assert held(suspended(failed(threading.Lock()))) == []


def test_in_an_except_clause_inside_it_holds_the_lock() -> None:
    lock = threading.Lock()

    async def failed() -> None:
        with lock:
            try:
                raise ValueError
            except ValueError:
                await pause()

    assert held(suspended(failed())) == [lock]


class Slow:
    """A context manager that pauses on its way in or out."""

    def __init__(self, *, enters: bool = False, exits: bool = False) -> None:
        self.enters, self.exits = enters, exits

    async def __aenter__(self) -> None:
        if self.enters:
            await pause()

    async def __aexit__(self, *raised: object) -> None:
        if self.exits:
            await pause()


@pytest.mark.parametrize("slow", [Slow(enters=True), Slow(exits=True)])
@pytest.mark.parametrize("fails", [False, True])
def test_a_lock_around_another_context_manager_is_held_while_that_enters_and_exits(slow: Slow, fails: bool) -> None:
    lock = threading.Lock()

    async def inside() -> None:
        with lock:
            for _ in range(2):
                async with slow:
                    if fails:
                        raise ValueError

    assert held(suspended(inside())) == [lock]


class Named:
    """A context manager whose methods are called otherwise."""

    async def enter(self) -> None:
        await pause()

    async def leave(self, *raised: object) -> None:
        await pause()

    __aenter__ = enter
    __aexit__ = leave


def test_an_exit_of_another_name_is_not_taken_for_the_lock_s() -> None:
    lock = threading.Lock()

    async def inside() -> None:
        with lock:
            async with Named():
                pass

    assert held(suspended(inside())) == [lock]


class LeavesSlowly(asyncio.Lock):
    async def __aexit__(self, *raised: object) -> None:
        self.release()
        await pause()


@pytest.mark.parametrize("fails", [False, True])
def test_a_lock_that_is_on_its_way_out_is_held_no_more(fails: bool) -> None:
    async def leaving(lock: Any) -> None:
        async with lock:
            if fails:
                raise ValueError

    assert held(suspended(leaving(LeavesSlowly()))) == []


def test_locks_of_the_coroutines_that_it_awaits_count() -> None:
    lock, outer = threading.Lock(), threading.Lock()

    async def outside() -> None:
        with outer:
            await in_with(lock)

    assert held(suspended(outside())) == [outer, lock]


def test_a_metered_coroutine_is_looked_through() -> None:
    lock = threading.Lock()
    ledger = Ledger(ContextVar("session"), perf_counter, 1.0, lambda overrun: None)
    inside = metered(in_with(lock), ledger, ledger.untagged)

    async def outside() -> None:
        await inside

    assert held(suspended(outside())) == [lock]


@contextlib.asynccontextmanager
async def taken(lock: Any) -> AsyncIterator[None]:
    async with lock:
        yield


@contextlib.contextmanager
def taken_in_with(lock: Any) -> Iterator[None]:
    with lock:
        yield


def test_the_generator_of_a_context_manager_holds_for_it() -> None:
    lock, thread_lock = asyncio.Lock(), threading.Lock()

    async def user() -> None:
        with taken_in_with(thread_lock):
            async with taken(lock):
                await pause()

    coro = suspended(user())
    assert [each.taken_at for each in held_locks(coro)] == [
        (*line(taken_in_with, 2), None),
        (*line(taken, 2), None),
    ]
    assert held(coro) == [thread_lock, lock]


def test_what_was_entered_on_an_exit_stack_is_held() -> None:
    lock, thread_lock, pushed = asyncio.Lock(), threading.Lock(), asyncio.Lock()

    async def user() -> None:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(lock)
            stack.enter_context(thread_lock)
            await pushed.acquire()
            stack.callback(pushed.release)
            await pause()

    assert held(suspended(user())) == [lock, thread_lock, pushed]


async def rows(lock: Any) -> AsyncIterator[int]:
    async with lock:
        yield 1
        await pause()


def test_the_generator_that_it_goes_through_holds_for_it() -> None:
    lock = asyncio.Lock()

    async def user() -> None:
        async for _ in rows(lock):
            await pause()

    assert held(suspended(user())) == [lock]


def test_the_generator_that_it_waits_for_holds_for_it_once() -> None:
    lock = asyncio.Lock()

    async def user() -> None:
        async for _ in rows(lock):
            pass

    assert held(suspended(user())) == [lock]


def test_a_generator_that_it_only_knows_holds_for_another() -> None:
    lock = asyncio.Lock()

    async def user() -> None:
        generator = rows(lock)
        async for _ in generator:
            break
        await pause()
        await generator.aclose()

    assert held(suspended(user())) == []


def test_an_async_generator_itself_can_be_asked() -> None:
    lock = asyncio.Lock()

    async def main() -> None:
        generator = rows(lock)
        await anext(generator)
        assert [each.lock for each in held_locks(generator)] == [lock]
        await generator.aclose()

    asyncio.run(main())


def test_the_place_is_the_line_of_the_with() -> None:
    async def nested(a: Any, b: Any, c: Any) -> None:
        with a:
            for _ in (1, 2):
                with b:
                    pass
                try:
                    async with c:
                        await pause()
                finally:
                    pass

    coro = suspended(nested(threading.Lock(), threading.Lock(), asyncio.Lock()))
    assert [each.taken_at for each in held_locks(coro)] == [(*line(nested, 1), None), (*line(nested, 6), None)]
    coro.close()


def test_a_variable_that_looks_like_an_exit_is_none() -> None:
    async def user(lock: Any) -> None:
        leave = lock.__exit__
        await pause()
        leave()

    assert held(suspended(user(threading.Lock()))) == []


def test_a_lock_of_a_derived_class_is_known() -> None:
    class Counted(asyncio.Lock):
        pass

    lock = Counted()
    assert held(suspended(in_async_with(lock))) == [lock]


def test_the_code_of_locks_is_not_run() -> None:
    class Proud(asyncio.Lock):
        def __getattribute__(self, name: str) -> Any:
            if not watched:
                return super().__getattribute__(name)
            raise AssertionError(name)

        def __eq__(self, other: object) -> bool:
            raise AssertionError

        __hash__ = None  # type: ignore[assignment]

    watched = False
    coro = suspended(in_async_with(lock := Proud()))
    watched = True
    (found,) = held_locks(coro)
    watched = False
    assert found.lock is lock
    coro.close()
