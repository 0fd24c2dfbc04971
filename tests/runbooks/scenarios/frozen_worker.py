"""One session calls C code that keeps the GIL for a minute, in one worker, and in another one that is killed for it.

With the fix, the call is made of pieces, and nobody is killed.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from _worker import FIXED, LIFETIME_S, serve
from agents import restaurant
from openrtc_introspect_core import BoxError, Introspector
from openrtc_introspect_core.black_box import find_boxes, read_box

DIES = "--dies" in sys.argv[1:]


async def culprit(introspector: Introspector) -> None:
    with introspector.session("job-c1d550", agent_name="restaurant", metadata={"tenant": "acme"}):
        await asyncio.sleep(1.5)  # a record of the worker is written
        await restaurant.parses_the_menu(fixed=FIXED)


async def frozen_alone() -> None:
    async with Introspector(name="voice-b") as introspector:
        await culprit(introspector)


def kill_a_frozen_one() -> None:
    """Start another worker, and kill it once it is known to be frozen."""
    with subprocess.Popen([sys.executable, __file__, "--dies"]) as other:
        deadline = time.monotonic() + LIFETIME_S / 4
        while not is_held("voice-b") and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.5)
        other.kill()


def is_held(name: str) -> bool:
    """Return whether the black box of this worker has the stack that holds its loop."""
    for box in find_boxes():
        try:
            if box.name == name and any(loop.state == "held" and loop.stack for loop in read_box(box.path).loops):
                return True
        except BoxError:
            continue
    return False


if __name__ == "__main__":
    if DIES:
        asyncio.run(frozen_alone())
    else:
        if not FIXED:
            kill_a_frozen_one()
        serve(culprit)
