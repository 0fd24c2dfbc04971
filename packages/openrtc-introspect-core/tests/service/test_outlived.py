"""Sessions that have ended, and whose tasks go on."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_testing._loops.backends import Backend, in_task


def test_a_task_that_outlives_its_session_is_shown(virtually: Backend) -> None:
    """With its share of loop time, its name and its coroutine; and blocks of it are no session's."""

    async def main() -> Any:
        async with Introspector(socket_path=False, clock=virtually.clock) as introspector:

            async def shared_worker() -> None:
                while True:
                    await anyio.sleep(0.01)
                    virtually.block(0.01)

            async with anyio.create_task_group() as group:

                async def first() -> None:
                    with introspector.session("call-first", agent_name="desk", metadata={"tenant": "acme"}):
                        group.start_soon(shared_worker)
                        await anyio.sleep(1)

                await in_task(first)
                parts = parts_of(introspector)
                for _ in range(6):
                    await anyio.sleep(1)
                    parts.tick(virtually.clock())
                worker = introspector.snapshot().worker
                group.cancel_scope.cancel()
            await anyio.sleep(2)
            parts.tick(virtually.clock())
            parts.tick(virtually.clock() + 2)
            return worker, introspector.snapshot().worker.outlived

    worker, after = virtually(main())
    (outlived,) = worker.outlived
    assert (outlived.session_id, outlived.agent_name, outlived.tenant) == ("call-first", "desk", "acme")
    assert (outlived.tasks, outlived.coroutine.rpartition(".")[2]) == (1, "shared_worker")
    assert outlived.task_name
    assert outlived.cpu_pct == pytest.approx(50.0, abs=2.0)
    assert worker.loop_time.sessions_pct == pytest.approx(0.0, abs=1.0)
    assert worker.loop_time.untagged_pct == pytest.approx(50.0, abs=2.0)
    assert after == []


def test_a_block_of_such_a_task_is_no_session_s(virtually: Backend) -> None:
    """The detail says whose the task is, and that the session is over."""

    async def main() -> Any:
        async with Introspector(socket_path=False, stacks=False, clock=virtually.clock) as introspector:
            release = anyio.Event()

            async def shared_worker() -> None:
                await release.wait()
                virtually.block(0.2)

            async with anyio.create_task_group() as group:

                async def first() -> None:
                    with introspector.session("call-first", agent_name="desk"):
                        group.start_soon(shared_worker)
                        await anyio.sleep(1)

                await in_task(first)
                await anyio.sleep(14)
                release.set()
            return introspector.blocks()

    (block,) = virtually(main())
    assert (block.session_id, block.delayed or []) == (None, [])
    assert block.detail == "a task of session call-first lives on, which ended 14 s before"


def test_tasks_that_end_with_their_session_are_not_mentioned(virtually: Backend) -> None:
    """They may take a moment."""

    async def main() -> Any:
        making = Introspector(socket_path=False, clock=virtually.clock)
        async with making as introspector, anyio.create_task_group() as group:

            async def first() -> None:
                with introspector.session("call-first", agent_name="desk"):
                    group.start_soon(anyio.sleep, 1.5)
                    await anyio.sleep(1)

            await in_task(first)
            parts_of(introspector).tick(virtually.clock())
            return introspector.snapshot().worker.outlived

    assert virtually(main()) == []
