"""An agent that makes appointments for a dental practice and awaits its calendar."""

import asyncio
import random


async def find_slot() -> str:
    await asyncio.sleep(0.05)
    return f"Tuesday at {random.randint(8, 17)}:40"


async def entrypoint(session):
    while True:
        await asyncio.sleep(random.uniform(0.2, 0.4))
        await find_slot()
