"""Introspection attached to a plain asyncio program: the five lines, marked below.

    python examples/attach.py
    openrtc top                # in a second terminal

One event loop serves four callers. One of them asks for a report, and computing the report holds the loop: the caller
shows as slow, with its longest block. The example needs only `pip install openrtc-introspect-core`, and openrtc-top to
watch it.
"""

import argparse
import asyncio
import contextlib
import hashlib
import logging
import time

from openrtc_introspect_core import Introspector  # 1


async def serve(caller: str, *, ends_at: float, wants_report: bool) -> int:
    """Answer one caller ten times a second, and return the number of answers."""
    answers = 0
    while time.monotonic() < ends_at:
        await asyncio.sleep(0.1)
        answers += 1
        if wants_report and answers % 20 == 0:
            make_report(caller)
    return answers


def make_report(caller: str) -> str:
    """Compute for some tenths of a second without a pause."""
    return hashlib.pbkdf2_hmac("sha256", caller.encode(), b"report", 1_000_000).hex()


async def main(seconds: float) -> None:
    async with Introspector(name="attached") as introspector:  # 2

        async def call(caller: str, tenant: str, *, wants_report: bool = False) -> int:
            with introspector.session(caller, agent_name="desk", metadata={"tenant": tenant}):  # 3, 4
                return await serve(caller, ends_at=ends_at, wants_report=wants_report)  # 5

        ends_at = time.monotonic() + seconds
        answers = await asyncio.gather(
            call("call-1", "acme"),
            call("call-2", "acme", wants_report=True),
            call("call-3", "globex"),
            call("call-4", "globex"),
        )
        blocks = introspector.blocks()
    print(f"{sum(answers)} answers; the loop was blocked {len(blocks)} times")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=str(__doc__).partition(":")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it runs (60)")
    logging.basicConfig(format="%(message)s")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(parser.parse_args().seconds))
