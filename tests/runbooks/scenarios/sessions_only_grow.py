"""Sessions whose callers hang up after a moment, and that wait on."""

from __future__ import annotations

import asyncio
import itertools

from _worker import FIXED, serve
from agents import restaurant
from openrtc_introspect_core import Introspector

EVERY_S = 0.5


async def culprit(introspector: Introspector) -> None:
    async def call(session_id: str) -> None:
        with introspector.session(session_id, agent_name="restaurant", metadata={"tenant": "acme"}):
            await restaurant.waits_for_a_dead_caller(fixed=FIXED)

    async with asyncio.TaskGroup() as tasks:
        for number in itertools.count():
            tasks.create_task(call(f"job-c1d550-{number}"))
            await asyncio.sleep(EVERY_S)


if __name__ == "__main__":
    serve(culprit)
