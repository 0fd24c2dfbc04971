"""How full the pools of threads are, and with whose calls."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import anyio.to_thread
import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._service.worker_source import WorkerSource
from openrtc_introspect_core._waits.executors import state_of
from openrtc_introspect_core.wire import ExecutorInfo, ThreadCallGroup, WaitsRequest
from openrtc_introspect_testing._loops.backends import Backend

Run = Callable[[Coroutine[Any, Any, Any]], Any]
DEADLINE_S = 30.0

go_on = threading.Event()
"""Set when calls are to end."""


def put(part: int = 0) -> None:
    """Waits until it is to end."""
    go_on.wait(DEADLINE_S)


@pytest.fixture(autouse=True)
def calls_end() -> Any:
    go_on.clear()
    yield
    go_on.set()


def pools(introspector: Introspector) -> list[ExecutorInfo]:
    builder = parts_of(introspector).builder
    assert builder is not None
    return WorkerSource(builder).waits(WaitsRequest(id=1)).executors


async def until(
    introspector: Introspector, is_so: Callable[[ExecutorInfo], bool], name: str = "default"
) -> ExecutorInfo:
    """Return the pool of this name once it is as it is to be, or as it is when time is over."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        found = [pool for pool in pools(introspector) if pool.name == name]
        if (found and is_so(found[0])) or time.monotonic() > deadline:
            return found[0]
        await anyio.sleep(0.01)


def of(pool: ExecutorInfo) -> dict[str | None, ThreadCallGroup]:
    """Return the groups of calls by session; each session calls one function."""
    return {group.session_id: group for group in pool.calls}


async def full(introspector: Introspector, executor: concurrent.futures.Executor | None, calls: int) -> list[Any]:
    """Make so many calls of a session, and return what waits for them."""
    loop = asyncio.get_running_loop()
    with introspector.session("call-upload", agent_name="desk", metadata={"tenant": "acme"}):
        return [loop.run_in_executor(executor, put, part) for part in range(calls)]


def test_a_full_executor_says_who_fills_it_and_who_waits(run: Run) -> None:
    """How many threads of how many, who waits since when, in which function."""

    async def main() -> tuple[ExecutorInfo, int]:
        async with Introspector(socket_path=False) as introspector:
            loop = asyncio.get_running_loop()
            executor = concurrent.futures.ThreadPoolExecutor(3)
            loop.set_default_executor(executor)
            waiting = await full(introspector, None, 8)
            with introspector.session("call-1", agent_name="desk"):
                waiting.append(loop.run_in_executor(None, socket.getaddrinfo, "127.0.0.1", 80))
            seen = await until(introspector, lambda pool: pool.busy == 3)
            go_on.set()
            await asyncio.gather(*waiting)
            return seen, executor._max_workers

    pool, most = run(main())
    assert (pool.kind, pool.max_threads, pool.busy) == ("executor", most, 3)
    assert pool.queued == 6
    upload, other = of(pool)["call-upload"], of(pool)["call-1"]
    assert (upload.running, upload.queued, upload.function, upload.tenant) == (3, 5, "put", "acme")
    assert upload.location is not None
    assert upload.location.function == "put"
    assert upload.longest_running_s is not None
    assert upload.longest_queued_s is not None
    assert (other.running, other.queued, other.function) == (0, 1, "getaddrinfo")
    assert other.longest_queued_s is not None
    assert other.longest_queued_s <= upload.longest_queued_s
    assert pool.longest_queued_s == upload.longest_queued_s


@pytest.mark.gil
def test_calls_without_a_session_are_counted_and_named(run: Run) -> None:
    """Whoever has submitted them, and as they were given."""

    async def main() -> ExecutorInfo:
        async with Introspector(socket_path=False) as introspector:
            executor = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="uploads")
            direct = [executor.submit(put) for _ in range(3)]
            waiting = asyncio.get_running_loop().run_in_executor(executor, put)
            seen = await until(introspector, lambda pool: pool.busy == 2, "uploads")
            go_on.set()
            await waiting
            for each in direct:
                each.result(DEADLINE_S)
            return seen

    pool = run(main())
    assert (pool.max_threads, pool.busy, pool.queued, pool.longest_queued_s) == (2, 2, 2, None)
    (group,) = pool.calls
    assert (group.session_id, group.function, group.running, group.queued) == (None, "put", 2, 2)
    assert group.location is not None
    assert group.location.function == "put"


@pytest.mark.gil
def test_a_call_that_was_cancelled_does_not_wait(run: Run) -> None:
    """Its executor has it in the queue until a thread comes to it."""

    async def main() -> ExecutorInfo:
        async with Introspector(socket_path=False) as introspector:
            asyncio.get_running_loop().set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
            waiting = await full(introspector, None, 4)
            await until(introspector, lambda pool: pool.busy == 1)
            for each in waiting[2:]:
                each.cancel()
            seen = await until(introspector, lambda pool: pool.queued == 1)
            go_on.set()
            await asyncio.gather(*waiting, return_exceptions=True)
            return seen

    assert run(main()).queued == 1


def test_calls_that_never_run_are_forgotten_with_their_executor(run: Run) -> None:
    """Nothing is kept of an executor that was shut down, nor of its calls."""

    async def main() -> tuple[int, list[ExecutorInfo]]:
        async with Introspector(socket_path=False) as introspector:
            executor = concurrent.futures.ThreadPoolExecutor(1)
            waiting = await full(introspector, executor, 5)
            executor.shutdown(wait=False, cancel_futures=True)
            go_on.set()
            await asyncio.gather(*waiting, return_exceptions=True)
            del waiting, executor
            calls = parts_of(introspector).shared.thread_calls
            deadline = time.monotonic() + DEADLINE_S
            while (calls.waiting() or calls.running() or pools(introspector)) and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
                gc.collect()
            return len(calls.waiting()), pools(introspector)

    assert run(main()) == (0, [])


def test_calls_by_anyio_are_shown_with_their_limiter(on_any_loop: Backend) -> None:
    """Threads borrowed of how many, who waits, in which function; on Trio it is Trio's."""

    async def main() -> ExecutorInfo:
        async with Introspector(socket_path=False) as introspector:
            limiter = anyio.CapacityLimiter(2)

            async def upload() -> None:
                await anyio.to_thread.run_sync(put, limiter=limiter)

            async with anyio.create_task_group() as group:
                with introspector.session("call-upload", agent_name="desk"):
                    for _ in range(5):
                        group.start_soon(upload)
                name = "trio" if on_any_loop.name == "trio" else "anyio"
                seen = await until(introspector, lambda pool: [call.running for call in pool.calls] == [2], name)
                go_on.set()
            return seen

    pool = on_any_loop(main())
    assert (pool.max_threads, pool.busy, pool.queued) == (2, 2, 3)
    (group,) = pool.calls
    assert (group.session_id, group.function, group.running, group.queued) == ("call-upload", "put", 2, 3)
    assert group.location is not None
    assert group.location.function == "put"
    assert (group.longest_queued_s is None) == (pool.kind == "trio")


def test_endpoints_without_a_session_fill_anyios_limiter(on_any_loop: Backend) -> None:
    """Their function is named, and those that wait are known from those that run."""

    async def main() -> ExecutorInfo:
        async with Introspector(socket_path=False) as introspector:
            anyio.to_thread.current_default_thread_limiter().total_tokens = 2
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(anyio.to_thread.run_sync, put)
                name = "trio" if on_any_loop.name == "trio" else "anyio"
                seen = await until(introspector, lambda pool: [call.running for call in pool.calls] == [2], name)
                go_on.set()
            return seen

    pool = on_any_loop(main())
    (group,) = pool.calls
    assert (pool.busy, pool.queued) == (2, 1)
    assert (group.session_id, group.function, group.running, group.queued) == (None, "put", 2, 1)


def test_a_pool_is_named_by_its_loop_if_there_are_several() -> None:
    """Each loop has an executor of its own."""
    seen: list[ExecutorInfo] = []

    async def other(introspector: Introspector) -> None:
        introspector.attach()
        await asyncio.to_thread(int)
        seen.extend(pools(introspector))
        introspector.detach()

    async def main() -> None:
        async with Introspector(socket_path=False) as introspector:
            await asyncio.to_thread(int)
            await asyncio.to_thread(asyncio.run, other(introspector))

    asyncio.run(main())
    assert sorted((pool.name, pool.loop) for pool in seen) == [("default", "asyncio-1"), ("default", "asyncio-2")]


def test_the_state_of_a_call_is_told_by_its_future() -> None:
    """Queued, running, over; another object has none."""
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        running, queued = executor.submit(put), executor.submit(put)
        deadline = time.monotonic() + DEADLINE_S
        while not running.running() and time.monotonic() < deadline:
            time.sleep(0.001)
        assert (state_of(running), state_of(queued)) == ("running", "queued")
        go_on.set()
        running.result(DEADLINE_S)
        assert state_of(running) is None
    assert state_of(object()) is None
