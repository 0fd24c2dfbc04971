"""Coroutines that Nuitka compiles: they have frames."""

import asyncio
import time


async def sleeps() -> None:
    await asyncio.sleep(0.02)
    time.sleep(0.2)
    await asyncio.sleep(0.02)


async def waits(helper: "asyncio.Task[None]", event: asyncio.Event) -> None:
    await event.wait()
