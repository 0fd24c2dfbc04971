"""One session waits for an answer that nobody gives."""

from __future__ import annotations

import asyncio

from _worker import FIXED, serve
from agents import restaurant
from openrtc_introspect_core import Introspector


async def culprit(introspector: Introspector) -> None:
    async def call() -> None:
        with introspector.session("job-c1d550", agent_name="restaurant", metadata={"tenant": "acme"}):
            await restaurant.waits_for_the_kitchen(fixed=FIXED)

    await asyncio.create_task(call())  # a task that introspection sees from its first step on


if __name__ == "__main__":
    serve(culprit)
