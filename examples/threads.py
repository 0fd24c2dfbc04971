"""A loop in each of several threads, under one introspector: each loop is attached from its own thread.

    python examples/threads.py
    openrtc top                # in a second terminal

Three threads serve two callers each. One caller asks for a report, and making the report holds the loop of its own
thread and no other. The example needs only `pip install openrtc-introspect-core`.
"""

import argparse
import asyncio
import contextlib
import logging
import threading
import time

from openrtc_introspect_core import Introspector


async def serve(caller: str, *, ends_at: float, wants_report: bool) -> None:
    """Answer one caller ten times a second."""
    answers = 0
    while time.monotonic() < ends_at:
        await asyncio.sleep(0.1)
        answers += 1
        if wants_report and answers % 20 == 0:
            make_report(caller)


def make_report(caller: str) -> None:
    """Make a blocking call that waits, and so hold the loop."""
    time.sleep(0.3)


async def worker(introspector: Introspector, number: int, ends_at: float) -> None:
    """Run one thread's loop. The loop is detached when it ends."""
    introspector.attach()

    async def call(caller: str, *, wants_report: bool = False) -> None:
        with introspector.session(caller, agent_name="desk", metadata={"tenant": f"thread {number}"}):
            await serve(caller, ends_at=ends_at, wants_report=wants_report)

    await asyncio.gather(call(f"call-{number}a"), call(f"call-{number}b", wants_report=number == 2))


async def main(seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    async with Introspector(name="threads") as introspector:
        threads = [
            threading.Thread(target=asyncio.run, args=(worker(introspector, number, ends_at),), name=f"desk-{number}")
            for number in (1, 2, 3)
        ]
        for thread in threads:
            thread.start()
        await asyncio.sleep(0.75 * seconds)
        loops = introspector.snapshot().worker.loops
        for thread in threads:
            await asyncio.to_thread(thread.join)
        blocks = introspector.blocks()
    for loop in loops:
        blocked = sum(block.loop == loop.name for block in blocks)
        print(f"{loop.name} in {loop.thread}: {loop.sessions} sessions, blocked {blocked} times")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).partition(":")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it runs (60)")
    logging.basicConfig(format="%(message)s")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(parser.parse_args().seconds))
