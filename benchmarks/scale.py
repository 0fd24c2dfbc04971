"""The cost of 10,000 sessions with 50,000 tasks and 20 watchers at 1 Hz.

Each task wakes up once in ten seconds. One process holds all watches; it reads and does not decode.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from typing import Any

from openrtc_introspect_core._base.units import MIB

from . import _loops
from ._case import SEED, Case, Details, Result, Results, Row, value
from ._client import Client
from ._lag import lag_of
from ._sessions import Body, opened
from ._subjects import make
from ._table import figure

SESSIONS = 10_000
TASKS = 5
"""The number of tasks of a session, including the one that opens its scope."""
PERIOD_S = 10.0
WATCHERS = 20
SETTLING_S = 2.0
SPREAD_S = 0.9
"""The time within which watchers begin if they begin at different times."""
SITUATIONS: dict[str, dict[str, Any]] = {
    "bare": {"subject": "bare"},
    "alone": {"subject": "exact"},
    "whole": {"subject": "exact", "watchers": WATCHERS},
    "changes": {"subject": "exact", "watchers": WATCHERS, "deltas": True},
    "spread": {"subject": "exact", "watchers": WATCHERS, "deltas": True, "spread_s": SPREAD_S},
}
"""By name. Watchers read whole snapshots or, with `deltas`, changes; they begin at once or spread over a second."""
TITLES = {
    "alone": "no watchers",
    "whole": f"{WATCHERS} watchers at 1 Hz, whole snapshots",
    "changes": f"{WATCHERS} watchers at 1 Hz, changes",
    "spread": f"{WATCHERS} watchers at 1 Hz, changes, begun at different times",
}


def cases(quick: bool) -> list[Case]:
    arguments = {"sessions": 500 if quick else SESSIONS, "seconds": 2.0 if quick else 10.0}
    return [
        Case(
            f"{loop} {name}",
            measure,
            {"loop": loop, "subject": "", "watchers": 0, "deltas": False, "spread_s": 0.0, **situation, **arguments},
            limit_s=180.0,
            needs=_loops.needs(loop, situation["subject"]),
        )
        for loop in _loops.LOOPS
        for name, situation in SITUATIONS.items()
    ]


def measure(
    loop: str, subject: str, watchers: int, deltas: bool, spread_s: float, sessions: int, seconds: float
) -> Result:
    return _loops.run(loop, _measure(subject, watchers, deltas, spread_s, sessions, seconds))


def _bodies(sessions: int) -> dict[str, Body | None]:
    source = random.Random(SEED)

    async def tick() -> None:
        await asyncio.sleep(PERIOD_S * source.random())
        while True:
            await asyncio.sleep(PERIOD_S)

    async def body() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(TASKS - 2):
                group.create_task(tick())
            await tick()

    return {f"job-{number:06x}": body for number in range(sessions)}


async def _measure(
    subject_name: str, watchers: int, deltas: bool, spread_s: float, sessions: int, seconds: float
) -> Result:
    subject = make(subject_name)
    await subject.start()
    async with opened(subject, _bodies(sessions)):
        gc.collect()  # otherwise the first collection would find all objects in the young generation
        await asyncio.sleep(2.0)
        client = None
        if watchers:
            client = await Client.start(
                "watch",
                protocol=subject.protocol,
                path=str(subject.socket),
                clients=watchers,
                seconds=seconds + SETTLING_S + 1.0,
                deltas=deltas,
                spread_s=spread_s,
            )
            client.go()
            await asyncio.sleep(SETTLING_S + spread_s)  # the first frames have everything
        began, cpu = time.perf_counter(), time.process_time()
        lag = await lag_of(seconds)
        cpu_pct = 100.0 * (time.process_time() - cpu) / (time.perf_counter() - began)
        tasks = len(asyncio.all_tasks())
        frames = await client.result() if client is not None else None
    await subject.close()
    return {"lag": lag, "cpu_pct": cpu_pct, "tasks": tasks, "frames": frames}


def rows(results: Results) -> list[Row]:
    found = []
    for loop in _loops.LOOPS:
        bare = f"{loop} bare"
        found += [
            Row(f"{loop}, CPU added, {title}", _over(results, f"{loop} {name}", bare, "cpu_pct"), "% of a core")
            for name, title in TITLES.items()
        ]
        found += [
            Row(f"{loop}, lag without introspection, p99", value(results, bare, "lag", "p99_ms"), "ms"),
            Row(f"{loop}, lag, {TITLES['changes']}, p99", value(results, f"{loop} changes", "lag", "p99_ms"), "ms"),
        ]
    return found


def _over(results: Results, case: str, bare: str, key: str) -> float | None:
    measured, without = value(results, case, key), value(results, bare, key)
    return max(0.0, measured - without) if measured is not None and without is not None else None


def details(results: Results) -> list[Details]:
    lines = []
    for name, measured in results.items():
        frames = measured["frames"]
        lines.append(
            [
                name,
                f"{measured['tasks']:,}",
                figure(measured["cpu_pct"], "%"),
                figure(measured["lag"]["p50_ms"], "ms"),
                figure(measured["lag"]["p99_ms"], "ms"),
                figure(measured["lag"]["max_ms"], "ms"),
                figure(frames["bytes"] / MIB, "MB") if frames else "-",
                figure(frames["per_s"], "/s") if frames else "-",
            ]
        )
    heading = [
        "", "tasks", "process CPU", "lag, p50", "p99", "longest", "a frame", "frames a watcher got",
    ]  # fmt: skip
    return [Details(f"{SESSIONS:,} sessions of {TASKS} tasks", heading, lines)]
