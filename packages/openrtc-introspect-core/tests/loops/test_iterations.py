from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_testing._loops.backends import Backend

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_idle_and_busy_time_add_up(virtually: Backend) -> None:
    """Waiting and working are distinguished to the clock's precision."""

    async def main() -> Any:
        async with Introspector(socket_path=False, clock=virtually.clock) as introspector:
            hook = parts_of(introspector).loops[0].hook
            assert hook is not None
            idle = hook.iterations.idle(virtually.clock())
            began = virtually.clock()
            for _ in range(10):
                virtually.block(0.01)
                await anyio.sleep(0.04)
            after = hook.iterations.idle(virtually.clock())
            assert idle is not None
            assert after is not None
            return after - idle, virtually.clock() - began

    idle, wall = virtually(main())
    assert idle == pytest.approx(0.4)
    assert wall == pytest.approx(0.5)


def test_a_long_iteration_of_callbacks_is_a_block_of_no_session(run_virtually: Run) -> None:
    """A block outside of every task is unattributed."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        async with Introspector(socket_path=False, clock=loop.clock) as introspector:
            with introspector.session("innocent", agent_name="test"):
                await asyncio.create_task(asyncio.sleep(0))
                loop.call_soon(loop.block, 0.2)
                await asyncio.sleep(0.01)
            return introspector.blocks()

    blocks = run_virtually(main())
    assert [(block.session_id, round(block.duration_ms)) for block in blocks] == [(None, 200)]
