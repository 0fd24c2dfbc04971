"""Another library replaces the loop's `create_task` while sessions run, and does not call the previous one.

Calls that begin afterwards are not seen. With the fix, the new `create_task` calls the previous one.
"""

from __future__ import annotations

import asyncio
from typing import Any

from _worker import FIXED, serve
from openrtc_introspect_core import Introspector
from openrtc_top._demo.worker import FRAME_S, work


def install_tracing() -> None:
    """Replace `create_task` as a tracing library does; with the fix, call the previous one."""
    loop: Any = asyncio.get_running_loop()
    before = loop.create_task

    def create_task(coro: Any, **options: Any) -> Any:
        return before(coro, **options) if FIXED else asyncio.Task(coro, loop=loop, **options)

    loop.create_task = create_task


async def talk() -> None:
    while True:
        work(0.001)
        await asyncio.sleep(FRAME_S)


async def late_call(introspector: Introspector, session_id: str) -> None:
    with introspector.session(session_id, agent_name="restaurant", metadata={"tenant": "acme"}):
        await asyncio.gather(*(asyncio.create_task(talk()) for _ in range(2)))


async def culprit(introspector: Introspector) -> None:
    install_tracing()
    await asyncio.gather(*(late_call(introspector, f"job-c1d55{number}") for number in range(3)))


if __name__ == "__main__":
    serve(culprit)
