"""Serve a worker of well-behaved calls and one culprit, for all scenarios.

A scenario is a process of its own that is started in this folder: `python SCENARIO.py`, or `python SCENARIO.py --fixed`
for the same worker with the runbook's fix. It prints "ready" when it serves, and ends with its stdin, or after two
minutes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from openrtc_introspect_core import Introspector
from openrtc_top._demo.worker import TENANTS, good_call

LIFETIME_S = 120
FIXED = "--fixed" in sys.argv[1:]

CALLS = ("job-77ab02", "job-9f00e1", "job-1c33aa", "job-0b52d7", "job-e4410f", "job-5d9c38")
AGENTS = ("dental", "support")


Culprit = Callable[[Introspector], Awaitable[None]]


def serve(culprit: Culprit | None = None, *, name: str = "voice-a", **options: Any) -> None:
    """Run six calls, and the culprit if there is one, in one worker."""
    signal.alarm(LIFETIME_S)  # in any case
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    asyncio.run(_serve(culprit, name, options))


async def _serve(culprit: Culprit | None, name: str, options: dict[str, Any]) -> None:
    async with Introspector(name=name, **options) as introspector, asyncio.TaskGroup() as tasks:
        for number, session_id in enumerate(CALLS):
            call = good_call(introspector, session_id, AGENTS[number % 2], TENANTS[number % 3], delay=0.0)
            tasks.create_task(call)
        await asyncio.sleep(0.1)
        print("ready", flush=True)
        if culprit is not None:
            await culprit(introspector)
        await asyncio.Event().wait()


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)  # the loop may be blocked, in some scenarios deliberately
