"""The demo's worker: sessions paced like voice calls, and two that are not.

    python -m openrtc_top._demo.worker SOCKET SESSIONS

A well-behaved session handles a frame of audio every 20 ms and waits the rest of the time. One of
the two others calls something synchronous now and then; the other computes a lot, in pieces short
enough to do no harm. The worker writes "ready" to stdout once it serves and both have begun, and ends when its stdin
does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sys
import time
from pathlib import Path

from openrtc_introspect_core import Introspector
from openrtc_top._demo.process import CULPRIT, READY

FRAME_S = 0.020
FRAME_WORK_S = 0.000_15
MENU_EVERY_S = 2.0
MENU_S = (0.12, 0.35)
BUSY_WORK_S = 0.011
BUSY_PAUSE_S = 0.029
AGENTS = ("restaurant", "dental", "support")
TENANTS = ("acme", "globex", "initech")


def work(seconds: float) -> None:
    """Keep the processor busy, as decoding a frame or scoring a sentence does."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        sum(range(50))


def lookup_menu(seconds: float) -> None:
    """Call a slow service synchronously, which should have been awaited."""
    time.sleep(seconds)


async def frames() -> None:
    """Handle frames at their pace, and skip those that are too late."""
    due = time.perf_counter()
    while True:
        work(FRAME_WORK_S)
        due = max(due + FRAME_S, time.perf_counter())
        await asyncio.sleep(due - time.perf_counter())


async def good_call(introspector: Introspector, session_id: str, agent: str, tenant: str, delay: float) -> None:
    """Run a call like most."""
    await asyncio.sleep(delay)
    with introspector.session(session_id, agent_name=agent, metadata={"tenant": tenant}):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(frames(), name="listen")
            tasks.create_task(frames(), name="speak")


async def blocking_call(introspector: Introspector, chance: random.Random) -> None:
    """Run a call that holds up all the others now and then."""
    with introspector.session(CULPRIT, agent_name="restaurant", metadata={"tenant": "acme"}):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(frames(), name="listen")
            while True:
                await asyncio.sleep(MENU_EVERY_S / 2)
                lookup_menu(chance.uniform(*MENU_S))
                await asyncio.sleep(MENU_EVERY_S / 2)


async def busy_call(introspector: Introspector) -> None:
    """Run a call that uses much of the loop without ever holding it for long."""
    with introspector.session("job-busy-but-polite", agent_name="support", metadata={"tenant": "globex"}):
        while True:
            work(BUSY_WORK_S)
            await asyncio.sleep(BUSY_PAUSE_S)


async def serve(socket: Path, sessions: int) -> None:
    """Run the sessions until stdin ends."""
    chance = random.Random(7)
    async with Introspector(name="demo", socket_path=socket) as introspector:
        loop = asyncio.get_running_loop()
        ended = loop.run_in_executor(None, sys.stdin.buffer.read)
        calls = [
            loop.create_task(blocking_call(introspector, chance)),
            loop.create_task(busy_call(introspector)),
        ]
        for number in range(sessions):
            agent, tenant = AGENTS[number % 3], TENANTS[number // 3 % 3]
            session_id = f"job-{chance.randrange(16**6):06x}-{number}"
            delay = chance.uniform(0, FRAME_S)  # calls do not run in step
            calls.append(loop.create_task(good_call(introspector, session_id, agent, tenant, delay)))
        await asyncio.sleep(0)  # the two have begun: whoever asks now finds them
        sys.stdout.buffer.write(READY)
        sys.stdout.buffer.flush()
        await ended
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


def main() -> None:
    """Serve, and remove the folder if the starter is gone and cannot do so."""
    socket = Path(sys.argv[1])
    logging.getLogger("openrtc.introspect").addHandler(logging.NullHandler())  # stderr is the starter's pipe
    try:
        asyncio.run(serve(socket, int(sys.argv[2])))
    finally:
        with contextlib.suppress(OSError):
            socket.parent.rmdir()


if __name__ == "__main__":
    main()
