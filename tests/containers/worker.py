"""Four sessions. One blocks the loop, if BLOCK_S says for how long; one grows without end, if GROW is set."""

import asyncio
import os
import time

from openrtc_introspect_core import Introspector

MB = 1024 * 1024
hoard = []


async def call(introspector: Introspector, name: str) -> None:
    with introspector.session(name, agent_name="voice"):
        while True:
            await asyncio.sleep(0.05)
            if name == "call-2" and (seconds := os.environ.get("BLOCK_S")):
                time.sleep(float(seconds))
            if name == "call-1" and os.environ.get("SPIN"):
                end = time.perf_counter() + 0.1
                while time.perf_counter() < end:
                    pass
            if name == "call-3" and os.environ.get("GROW"):
                hoard.append(bytearray(os.urandom(1)) * MB)


async def main() -> None:
    async with Introspector(name="voice") as introspector:
        print("ready", flush=True)
        await asyncio.gather(*(call(introspector, f"call-{number}") for number in range(4)))


asyncio.run(main())
