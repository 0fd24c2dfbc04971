"""Four sessions. One computes, if SPIN is set; one grows without end, if GROW names a file that is not there so far."""

import asyncio
import os
import time

from openrtc_introspect_core import Introspector

MB = 1024 * 1024
hoard: list[bytearray] = []
growing = "GROW" in os.environ and not os.path.exists(os.environ["GROW"])
if growing:
    open(os.environ["GROW"], "w").close()


async def call(introspector: Introspector, name: str) -> None:
    with introspector.session(name, agent_name="voice"):
        while True:
            await asyncio.sleep(0.05)
            if name == "call-1" and os.environ.get("SPIN"):
                end = time.perf_counter() + 0.1
                while time.perf_counter() < end:
                    pass
            if name == "call-3" and growing:
                hoard.append(bytearray(b"x") * MB)


async def main() -> None:
    async with Introspector(name="voice") as introspector:
        print("ready", flush=True)
        await asyncio.gather(*(call(introspector, f"call-{number}") for number in range(4)))


asyncio.run(main())
