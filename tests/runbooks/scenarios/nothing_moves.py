"""One session's slow calls have all threads of the default executor; three others need one now and then."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from _worker import FIXED, serve
from agents import restaurant
from openrtc_introspect_core import Introspector


async def culprit(introspector: Introspector) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(4))  # the same number on every machine

    async def looks_up(session_id: str) -> None:
        with introspector.session(session_id, agent_name="dental", metadata={"tenant": "globex"}):
            await restaurant.looks_up_names()

    async with asyncio.TaskGroup() as tasks:
        for session_id in ("job-2f6b10", "job-8d0c4e", "job-b7719a"):
            tasks.create_task(looks_up(session_id))
        with (
            introspector.session("job-c1d550", agent_name="restaurant", metadata={"tenant": "acme"}),
            ThreadPoolExecutor(4, thread_name_prefix="uploads") as pool,
        ):
            await restaurant.uploads_the_recording(pool, fixed=FIXED)


if __name__ == "__main__":
    serve(culprit)
