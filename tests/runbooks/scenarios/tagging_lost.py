"""Another library sets a task factory of its own while sessions run; it does not call the one before it.

Calls that begin after that are not seen. Once it is fixed, the new factory calls the old one.
"""

from __future__ import annotations

import asyncio
from typing import Any

from _worker import FIXED, serve
from openrtc_introspect_core import Introspector
from openrtc_top._demo_worker import FRAME_S, work


def install_tracing() -> None:
    """What a tracing library does, with and without manners."""
    loop = asyncio.get_running_loop()
    before: Any = loop.get_task_factory()

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        return before(loop, coro, **options) if FIXED else asyncio.Task(coro, loop=loop, **options)

    loop.set_task_factory(factory)


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
