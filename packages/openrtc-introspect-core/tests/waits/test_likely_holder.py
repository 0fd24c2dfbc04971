"""Who has probably taken a lock by `acquire`."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest

from openrtc_introspect_core._waits.likely_holder import taken_along

pytestmark = pytest.mark.gil


class Pause:
    def __await__(self) -> Generator[None]:
        yield


def suspended(coro: Any) -> Any:
    coro.send(None)
    return coro


class Store:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()

    async def save(self) -> None:
        await self.lock.acquire()
        try:
            await Pause()
        finally:
            self.lock.release()


async def holds(lock: asyncio.Lock) -> None:
    await lock.acquire()
    await Pause()
    lock.release()


async def has_held(lock: asyncio.Lock) -> None:
    await lock.acquire()
    lock.release()
    await Pause()


async def will_hold(lock: asyncio.Lock) -> None:
    await Pause()
    await lock.acquire()


async def outside(inner: Any) -> None:
    await inner


def found(lock: object, *coros: Any) -> Any:
    """Return the coroutine that has taken the lock, if it is one alone."""
    likely = [coro for coro in coros if taken_along(coro, lock) is not None]
    for coro in coros:
        coro.close()
    return likely[0] if len(likely) == 1 else None


def test_the_one_that_has_called_acquire_is_likely() -> None:
    lock = asyncio.Lock()
    holder = suspended(holds(lock))
    other = suspended(will_hold(lock))
    assert found(lock, other, holder) is holder


def test_the_line_is_that_of_acquire() -> None:
    lock = asyncio.Lock()
    holder = suspended(holds(lock))
    taken_at = taken_along(holder, lock)
    assert taken_at is not None
    assert (taken_at.line, taken_at.function) == (holds.__code__.co_firstlineno + 1, "holds")
    holder.close()


def test_a_lock_of_its_object_is_found_inside_of_try() -> None:
    store = Store()
    holder = suspended(outside(store.save()))
    assert found(store.lock, holder) is holder


def test_one_that_has_released_it_is_not() -> None:
    lock = asyncio.Lock()
    assert found(lock, suspended(has_held(lock))) is None


def test_one_that_waits_for_it_is_not() -> None:
    async def main() -> None:
        lock = asyncio.Lock()
        await lock.acquire()
        assert found(lock, suspended(holds(lock))) is None

    asyncio.run(main())


def test_one_that_has_taken_another_lock_is_not() -> None:
    assert found(asyncio.Lock(), suspended(holds(asyncio.Lock()))) is None


def test_two_may_both_have_taken_it() -> None:
    """Whoever asks then names nobody."""
    lock = asyncio.Lock()
    first = suspended(holds(lock))
    lock.release()
    second = suspended(holds(lock))
    assert taken_along(first, lock) is not None is not taken_along(second, lock)
    first.close()
    second.close()
