"""What a task waits for in anyio's functions, on asyncio, uvloop and Trio."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute
from seen_waits import wait_seen

from openrtc_introspect_core import Introspector

pytestmark = pytest.mark.gil

Body = Callable[[], Awaitable[Any]]


async def waits_in(body: Body, kind: str) -> tuple[str, str]:
    """Return the kind and the object's class of what a task of a session waits for that runs `body`."""
    async with Introspector(socket_path=False, black_box=False) as introspector, anyio.create_task_group() as group:
        with introspector.session("job-1", agent_name="test"):
            group.start_soon(body, name="subject")
            found = await wait_seen(introspector, "subject", kind)
        group.cancel_scope.cancel()
    return found.kind, type(found.target).__name__.lstrip("_")


async def in_condition() -> None:
    condition = anyio.Condition()
    async with condition:
        await condition.wait()


async def full_limiter() -> None:
    limiter = anyio.CapacityLimiter(1)
    limiter.acquire_on_behalf_of_nowait("another")
    await limiter.acquire()


async def receive() -> None:
    _send, receive = anyio.create_memory_object_stream[int](0)
    async with _send, receive:
        await receive.receive()


async def send() -> None:
    send, _receive = anyio.create_memory_object_stream[int](0)
    async with send, _receive:
        await send.send(1)


async def grouped() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        group.start_soon(anyio.sleep_forever)


async def connection() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(SocketAttribute.local_port)
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.receive()


BODIES: dict[str, tuple[Body, str, str]] = {
    "sleep": (lambda: anyio.sleep(1000), "timer", "NoneType"),
    "event": (lambda: anyio.Event().wait(), "event", "Event"),
    "semaphore": (lambda: anyio.Semaphore(0).acquire(), "semaphore", "Semaphore"),
    "limiter": (full_limiter, "semaphore", "CapacityLimiter"),
    "condition": (in_condition, "condition", "Condition"),
    "receive": (receive, "queue", "MemoryObjectStreamState"),
    "send": (send, "queue", "MemoryObjectStreamState"),
    "task group": (grouped, "own-task", "NoneType"),
    "connection": (connection, "socket", "NoneType"),
}


@pytest.mark.parametrize(("body", "kind", "target"), BODIES.values(), ids=BODIES)
def test_what_a_task_waits_for(body: Body, kind: str, target: str, on_any_loop: Any) -> None:
    """The kind, and the class of the object."""
    assert on_any_loop(waits_in(body, kind)) == (kind, target)


def test_a_lock(on_any_loop: Any) -> None:
    """Another task has it."""

    async def main() -> str:
        lock = anyio.Lock()
        async with lock:
            return (await waits_in(lock.acquire, "lock"))[0]

    assert on_any_loop(main()) == "lock"


def test_calls_in_threads_and_those_that_wait_for_the_limiter(on_any_loop: Any) -> None:
    """`to_thread.run_sync` waits for its limiter first, then for the call."""

    async def main() -> list[str]:
        go_on, limiter = threading.Event(), anyio.CapacityLimiter(1)

        async def call() -> None:
            await anyio.to_thread.run_sync(go_on.wait, limiter=limiter)

        async with Introspector(socket_path=False, black_box=False) as introspector, anyio.create_task_group() as group:
            group.start_soon(call, name="first")
            first = await wait_seen(introspector, "first", "thread")
            group.start_soon(call, name="second")
            second = await wait_seen(introspector, "second", "executor")
            same = second.target is limiter or second.target is getattr(limiter, "_CapacityLimiter__original", None)
            go_on.set()
        return [first.kind, second.kind, str(same)]

    assert on_any_loop(main()) == ["thread", "executor", "True"]
