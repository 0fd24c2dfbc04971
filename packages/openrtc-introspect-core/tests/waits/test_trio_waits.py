"""What a task waits for in Trio's own functions."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from seen_waits import wait_seen

from openrtc_introspect_core import Introspector

pytestmark = pytest.mark.gil

Body = Callable[[], Awaitable[Any]]


async def waits_in(body: Body, kind: str) -> tuple[str, str]:
    async with Introspector(socket_path=False, black_box=False) as introspector, trio.open_nursery() as nursery:
        with introspector.session("job-1", agent_name="test"):
            nursery.start_soon(body, name="subject")
            found = await wait_seen(introspector, "subject", kind)
        nursery.cancel_scope.cancel()
    return found.kind, found.what


async def taken(lock: Any) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_hold, lock)
        await trio.testing.wait_all_tasks_blocked()
        await lock.acquire()


async def _hold(lock: Any) -> None:
    async with lock:
        await trio.sleep_forever()


async def in_condition() -> None:
    condition = trio.Condition()
    async with condition:
        await condition.wait()


async def channel(*, full: bool) -> None:
    send, receive = trio.open_memory_channel[int](0)
    async with send, receive:
        await (send.send(1) if full else receive.receive())


async def nursery() -> None:
    async with trio.open_nursery() as opened:
        opened.start_soon(trio.sleep_forever)


async def socket() -> None:
    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        await ours.recv(1)


async def process() -> None:
    await trio.run_process([sys.executable, "-c", "import time; time.sleep(60)"])


BODIES: dict[str, tuple[Body, str, str]] = {
    "lock": (lambda: taken(trio.Lock()), "lock", "trio.Lock"),
    "fair lock": (lambda: taken(trio.StrictFIFOLock()), "lock", "trio.StrictFIFOLock"),
    "semaphore": (lambda: trio.Semaphore(0).acquire(), "semaphore", "trio.Semaphore"),
    "limiter": (lambda: taken(trio.CapacityLimiter(1)), "semaphore", "trio.CapacityLimiter"),
    "condition": (in_condition, "condition", "trio.Condition"),
    "event": (lambda: trio.Event().wait(), "event", "trio.Event"),
    "parking lot": (lambda: trio.lowlevel.ParkingLot().park(), "event", "trio.ParkingLot"),
    "receive": (lambda: channel(full=False), "queue", "memory channel, empty"),
    "send": (lambda: channel(full=True), "queue", "memory channel, full"),
    "nursery": (nursery, "own-task", "nursery"),
    "sleep": (lambda: trio.sleep(1000), "timer", "sleep"),
    "deadline": (trio.sleep_forever, "timer", "sleep"),
    "socket": (socket, "socket", "data to read"),
}


@pytest.mark.parametrize(("body", "kind", "what"), BODIES.values(), ids=BODIES)
def test_what_a_task_waits_for(body: Body, kind: str, what: str) -> None:
    """The kind, and a description of the object."""
    assert trio.run(waits_in, body, kind) == (kind, what)


@pytest.mark.slow
def test_a_process() -> None:
    """Its task waits for its end."""

    async def main() -> str:
        async with Introspector(socket_path=False, black_box=False) as introspector, trio.open_nursery() as opened:
            opened.start_soon(process, name="subject")
            found = await wait_seen(introspector, "subject", "process")
            opened.cancel_scope.cancel()
        return found.kind

    assert trio.run(main) == "process"


def test_since_is_the_last_step_of_the_session() -> None:
    """Trio's tasks keep no time of their own; outside of sessions none is known."""

    async def main() -> tuple[bool, float | None]:
        async with Introspector(socket_path=False, black_box=False) as introspector, trio.open_nursery() as opened:
            opened.start_soon(trio.sleep_forever, name="nobody's")
            with introspector.session("job-1", agent_name="test") as session:
                opened.start_soon(trio.sleep_forever, name="subject")
                await trio.testing.wait_all_tasks_blocked(0.05)
            found = await wait_seen(introspector, "subject", "timer")
            same = found.since == session.last_step
            others = await wait_seen(introspector, "nobody's", "timer")
            opened.cancel_scope.cancel()
        return same, others.since

    assert trio.run(main) == (True, None)
