from __future__ import annotations

import asyncio
import selectors
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._introspector import parts_of

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_the_iteration_in_which_the_loop_stops_counts() -> None:
    """A callback that holds the loop right before it stops is a block like any other, and no idle time."""
    from openrtc_introspect_testing._loops.fake_loop import FakeLoop

    loop = FakeLoop()
    introspector = Introspector(socket_path=False, clock=loop.clock)
    try:
        introspector.attach(loop)
        loop.call_soon(loop.block, 0.2)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.block(5)
        loop.call_soon(loop.stop)
        loop.run_forever()
        idle = parts_of(introspector).loops[0].hook.iterations.idle(loop.clock())
    finally:
        introspector.close()
        loop.close()
    assert [(block.session_id, round(block.duration_ms)) for block in introspector.blocks()] == [(None, 200)]
    assert idle == pytest.approx(5)


def test_a_wait_that_ends_far_too_late_is_a_block_and_no_idle_time(run_virtually: Run) -> None:
    """Another thread kept the GIL, or the system the processor: the loop was due to go on, and could not."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        select = loop._selector.select

        def late_once(timeout: float | None = None) -> Any:
            ready = select(timeout)
            if timeout is not None and timeout > 0.5:
                loop.block(0.3)
            return ready

        loop._selector.select = late_once
        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            hook = parts_of(introspector).loops[0].hook
            assert hook is not None
            before = hook.iterations.idle(loop.clock())
            with introspector.session("innocent", agent_name="test"):
                await asyncio.sleep(1)
                idle = hook.iterations.idle(loop.clock())
            assert before is not None
            assert idle is not None
            return introspector.blocks(), idle - before

    blocks, idle = run_virtually(main())
    assert [(block.session_id, round(block.duration_ms)) for block in blocks] == [(None, 300)]
    assert idle == pytest.approx(1.0)


SELECTORS = [
    each
    for name in ("EpollSelector", "PollSelector", "SelectSelector", "KqueueSelector")
    if (each := getattr(selectors, name, None)) is not None
]


class Derived(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """A selector whose `select` is not the one of its base."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(timeout)
        return ready


@pytest.mark.parametrize("kind", [*SELECTORS, Derived])
def test_each_kind_of_selector_waits_and_finds_what_it_would(kind: type[selectors.BaseSelector]) -> None:
    """Waits are idle time, a socket is read, registered and forgotten, and all is as before in the end."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        before = dict(vars(loop._selector))
        near, far = socket.socketpair()
        near.setblocking(False)
        async with Introspector(socket_path=False) as introspector:
            iterations = parts_of(introspector).loops[0].hook.iterations
            idle = -(iterations.idle(time.perf_counter()) or 0.0)
            loop.call_later(0.02, far.send, b"late")
            received = await loop.sock_recv(near, 10)
            loop.add_writer(near, lambda: loop.remove_writer(near))
            await asyncio.sleep(0.02)
            idle += iterations.idle(time.perf_counter()) or 0.0
        near.close()
        far.close()
        return received, idle, dict(vars(loop._selector)) == before

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(kind())) as runner:
        received, idle, restored = runner.run(main())
    assert received == b"late"
    assert idle > 0.03
    assert restored


@pytest.mark.slow
def test_a_session_whose_socket_became_ready_during_a_block_is_delayed() -> None:
    """On the loop's own selector, what the next wait finds has waited for an unknown part of the block."""

    async def waits(introspector: Introspector, near: socket.socket) -> None:
        with introspector.session("waits", agent_name="a"):
            await asyncio.get_running_loop().sock_recv(near, 10)

    async def blocks(introspector: Introspector, far: socket.socket) -> None:
        with introspector.session("blocks", agent_name="a"):
            far.send(b"ready")
            time.sleep(0.2)
            await asyncio.sleep(0)

    async def main() -> Any:
        near, far = socket.socketpair()
        near.setblocking(False)
        async with Introspector(socket_path=False) as introspector:
            waiting = asyncio.create_task(waits(introspector, near))
            await asyncio.sleep(0.02)
            await asyncio.create_task(blocks(introspector, far))
            await waiting
            near.close()
            far.close()
            return introspector.blocks()

    (block,) = asyncio.run(main())
    assert block.session_id == "blocks"
    assert [(each.session_id, each.exact) for each in block.delayed] == [("waits", False)]
