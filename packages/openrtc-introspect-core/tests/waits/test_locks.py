"""What locks know of their owners, and how they are called."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio

from openrtc_introspect_core._waits.locks import (
    inner_lock,
    is_lock,
    is_thread_lock,
    name_of_lock,
    owner_of,
    owner_thread,
)

BOTH = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def current_task(backend: str) -> Any:
    return asyncio.current_task() if backend == "asyncio" else trio.lowlevel.current_task()


@BOTH
@pytest.mark.parametrize("make", [anyio.Lock, anyio.Condition, lambda: anyio.CapacityLimiter(1)], ids="LCl")
def test_anyios_locks_and_limiters_know_their_owner(make: Callable[[], Any], backend: str) -> None:
    async def main() -> None:
        lock = make()
        assert owner_of(lock) == []
        async with lock:
            assert owner_of(lock) == [current_task(backend)]
        assert owner_of(lock) == []

    anyio.run(main, backend=backend)


@BOTH
def test_a_lock_that_is_older_than_the_loop_knows_its_owner(backend: str) -> None:
    lock = anyio.Lock()

    async def main() -> None:
        async with lock:
            assert owner_of(lock) == [current_task(backend)]

    anyio.run(main, backend=backend)


@pytest.mark.parametrize(
    "make", [trio.Lock, trio.StrictFIFOLock, trio.Condition, lambda: trio.CapacityLimiter(1)], ids="LSCl"
)
def test_trios_locks_and_limiters_know_their_owner(make: Callable[[], Any]) -> None:
    async def main() -> None:
        lock = make()
        async with lock:
            assert owner_of(lock) == [trio.lowlevel.current_task()]
        assert owner_of(lock) == []

    trio.run(main)


def test_asyncios_locks_and_semaphores_do_not_know_their_owner() -> None:
    async def main() -> None:
        for lock in (asyncio.Lock(), asyncio.Semaphore(1)):
            async with lock:
                assert owner_of(lock) == []

    asyncio.run(main())


@pytest.mark.parametrize("make", [threading.RLock, threading._RLock, threading.Condition], ids="RPC")
def test_a_reentrant_lock_knows_its_thread(make: Callable[[], Any]) -> None:
    lock = make()
    assert owner_thread(lock) is None
    with lock:
        assert owner_thread(lock) == threading.get_ident()


def test_a_plain_lock_knows_no_thread() -> None:
    lock = threading.Lock()
    with lock:
        assert owner_thread(lock) is None


def test_locks_are_called_by_the_name_that_makes_them() -> None:
    names = {
        threading.Lock: "threading.Lock",
        threading.RLock: "threading.RLock",
        threading.BoundedSemaphore: "threading.Semaphore",
        asyncio.Lock: "asyncio.Lock",
        anyio.Lock: "anyio.Lock",
        trio.Lock: "trio.Lock",
    }
    assert {make: name_of_lock(make()) for make in names} == names


def test_only_the_locks_of_threading_hold_the_thread() -> None:
    assert is_thread_lock(threading.Lock())
    assert not is_thread_lock(asyncio.Lock())
    assert is_lock(asyncio.Lock())
    assert not is_lock(asyncio.Event())


def test_a_condition_takes_the_lock_inside() -> None:
    lock = threading.Lock()
    assert inner_lock(threading.Condition(lock)) is lock
