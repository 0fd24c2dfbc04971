"""What the scenarios share: a worker of well-behaved calls, and one thing that is wrong with it.

A scenario is a process of its own, started in this folder: `python SCENARIO.py`, or with `--fixed` the same
worker with the runbook's fix applied. It says "ready" once it serves, and ends when its stdin does, or after
two minutes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from openrtc_introspect_core import Introspector

LIFETIME_S = 120
FRAME_S = 0.020
FRAME_WORK_S = 0.000_15
FIXED = "--fixed" in sys.argv[1:]

CALLS = ("job-77ab02", "job-9f00e1", "job-1c33aa", "job-0b52d7", "job-e4410f", "job-5d9c38")
AGENTS = ("dental", "support")
TENANTS = ("acme", "globex", "initech")


def work(seconds: float) -> None:
    """Keep the processor busy, as decoding a frame does."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        sum(range(50))


async def frames() -> None:
    """Handle a frame of audio every 20 ms, and make up for none that came too late."""
    due = time.perf_counter()
    while True:
        work(FRAME_WORK_S)
        due = max(due + FRAME_S, time.perf_counter())
        await asyncio.sleep(due - time.perf_counter())


async def call(introspector: Introspector, session_id: str, agent: str, tenant: str) -> None:
    """A call like most."""
    with introspector.session(session_id, agent_name=agent, metadata={"tenant": tenant}):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(frames(), name="listen")
            tasks.create_task(frames(), name="speak")


Culprit = Callable[[Introspector], Awaitable[None]]


def serve(culprit: Culprit | None = None, *, name: str = "voice-a", **options: Any) -> None:
    """Run six calls and the culprit, if there is one, in one worker."""
    signal.alarm(LIFETIME_S)  # whatever happens
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    asyncio.run(_serve(culprit, name, options))


async def _serve(culprit: Culprit | None, name: str, options: dict[str, Any]) -> None:
    async with Introspector(name=name, **options) as introspector, asyncio.TaskGroup() as tasks:
        for number, session_id in enumerate(CALLS):
            tasks.create_task(call(introspector, session_id, AGENTS[number % 2], TENANTS[number % 3]))
        await asyncio.sleep(0.1)
        print("ready", flush=True)
        if culprit is not None:
            await culprit(introspector)
        await asyncio.Event().wait()


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)  # the loop may be blocked: that is what some are about
