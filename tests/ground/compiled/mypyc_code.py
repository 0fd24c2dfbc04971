"""Coroutines that mypyc compiles."""

import asyncio
import time

import python_code  # type: ignore[import-not-found]


async def computes() -> None:
    await asyncio.sleep(0.02)
    end = time.perf_counter() + 0.2
    n = 0
    while time.perf_counter() < end:
        n = n + 1
    python_code.innocent(n)
    await asyncio.sleep(0.02)


async def sleeps() -> None:
    await asyncio.sleep(0.02)
    time.sleep(0.2)
    await asyncio.sleep(0.02)


async def calls_python() -> None:
    await asyncio.sleep(0.02)
    python_code.blocks()


async def waits(helper: "asyncio.Task[None]", event: asyncio.Event) -> None:
    await event.wait()


class Session:
    def __init__(self, helper: "asyncio.Task[None]", event: asyncio.Event) -> None:
        self.helper = helper
        self.event = event

    async def waits(self) -> None:
        await waits(self.helper, self.event)
