"""The time in which it is answered what 50,000 tasks wait for, and the lag that this adds.

The client is another process. Lag is measured by a probe on the worker's loop, see _lag.py.
"""

from __future__ import annotations

import asyncio
from statistics import median
from typing import Any

from . import _loops
from ._case import Case, Result, Results, Row, value
from ._client import Client
from ._lag import lag_of
from ._sessions import opened
from ._subjects import make

SESSIONS = 10_000
TASKS = SESSIONS * 5
"""Each session has its entry task, one for its body, and three more."""
PAUSE_S = 6.0
"""Seconds between two requests: a connection rests after each answer."""


def cases(quick: bool) -> list[Case]:
    arguments = {"times": 2 if quick else 5}
    return [
        Case(loop, measure, {"loop": loop, **arguments}, needs=_loops.needs(loop, "exact"))
        for loop in ("asyncio", "uvloop")
    ]


def measure(loop: str, times: int) -> Result:
    return _loops.run(loop, _measure(times))


async def _measure(times: int) -> Result:
    subject = make("exact")
    await subject.start()
    lock = asyncio.Lock()
    await lock.acquire()

    async def body() -> None:
        waits: list[Any] = [asyncio.Queue[int]().get(), asyncio.sleep(3600.0), lock.acquire()]
        await asyncio.gather(*waits)

    async with opened(subject, {f"job-{number:05}": body for number in range(SESSIONS)}):
        await asyncio.sleep(2.0)
        client = await Client.start(
            "survey", protocol=subject.protocol, path=str(subject.socket), pause_s=PAUSE_S, times=times
        )
        calm = await lag_of(times * (PAUSE_S + 1.0))
        client.go()
        asked = await lag_of(times * (PAUSE_S + 1.0))
        answers = await client.result()
    await subject.close()
    return {
        "answer_ms": median(1000.0 * (answered - asked) for asked, answered, _ in answers),
        "tasks": min(tasks for _, _, tasks in answers),
        "lag": calm,
        "lag_asked": asked,
    }


def rows(results: Results) -> list[Row]:
    found = []
    for loop in ("asyncio", "uvloop"):
        found.append(
            Row(f"{loop}, {SESSIONS:,} sessions, answer, median", value(results, loop, "answer_ms"), "ms", must=1000.0)
        )
        found.append(
            Row(f"{loop}, tasks looked at of {TASKS:,}", value(results, loop, "tasks"), must=TASKS, at_least=True)
        )
        for key, what in (("p99_ms", "p99"), ("max_ms", "longest")):
            during, calm = value(results, loop, "lag_asked", key), value(results, loop, "lag", key)
            added = max(0.0, during - calm) if during is not None and calm is not None else None
            found.append(Row(f"{loop}, lag added meanwhile, {what}", added, "ms", must=3.0))
    return found
