"""10,000 sessions with 50,000 tasks and 20 watchers at 1 Hz: what does it cost, and how large is a frame?

Each task wakes up once in ten seconds. The watchers are one process that reads and does not decode.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time

from . import _loops
from ._case import SEED, Case, Details, Result, Results, Row, value
from ._client import Client
from ._lag import lag_of
from ._sessions import Body, opened
from ._subjects import make
from ._table import figure

SESSIONS = 10_000
TASKS = 5
"""Of each session, the one inside its scope included."""
PERIOD_S = 10.0
WATCHERS = 20
SITUATIONS = (("bare", 0), ("exact", 0), ("exact", WATCHERS))


def cases(quick: bool) -> list[Case]:
    arguments = {"sessions": 500 if quick else SESSIONS, "seconds": 2.0 if quick else 10.0}
    return [
        Case(
            f"{loop} {subject} {watchers}",
            measure,
            {"loop": loop, "subject": subject, "watchers": watchers, **arguments},
            limit_s=180.0,
            needs=_loops.needs(loop, subject),
        )
        for loop in _loops.LOOPS
        for subject, watchers in SITUATIONS
    ]


def measure(loop: str, subject: str, watchers: int, sessions: int, seconds: float) -> Result:
    return _loops.run(loop, _measure(subject, watchers, sessions, seconds))


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


async def _measure(subject_name: str, watchers: int, sessions: int, seconds: float) -> Result:
    subject = make(subject_name)
    await subject.start()
    async with opened(subject, _bodies(sessions)):
        gc.collect()  # as it is after a while: else the first collection meets all of them as new
        await asyncio.sleep(2.0)
        client = None
        if watchers:
            client = await Client.start(
                "watch", protocol=subject.protocol, path=str(subject.socket), clients=watchers, seconds=seconds + 2.0
            )
            client.go()
            await asyncio.sleep(1.0)  # the first frames are all at once
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
        bare, alone, watched = (f"{loop} {subject} {watchers}" for subject, watchers in SITUATIONS)
        added, with_watchers = (_over(results, case, bare, "cpu_pct") for case in (alone, watched))
        found += [
            Row(f"{loop}, CPU added, nobody watches", added, "% of a core"),
            Row(f"{loop}, CPU added, {WATCHERS} watchers at 1 Hz", with_watchers, "% of a core"),
            Row(f"{loop}, lag without introspection, p99", value(results, bare, "lag", "p99_ms"), "ms"),
            Row(f"{loop}, lag, {WATCHERS} watchers, p99", value(results, watched, "lag", "p99_ms"), "ms"),
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
                name.replace(" 0", ", nobody watches").replace(f" {WATCHERS}", f", {WATCHERS} watchers"),
                f"{measured['tasks']:,}",
                figure(measured["cpu_pct"], "%"),
                figure(measured["lag"]["p50_ms"], "ms"),
                figure(measured["lag"]["p99_ms"], "ms"),
                figure(measured["lag"]["max_ms"], "ms"),
                figure(frames["bytes"] / 1e6, "MB") if frames else "-",
                figure(frames["per_s"], "/s") if frames else "-",
            ]
        )
    heading = [
        "", "tasks", "process CPU", "lag, p50", "p99", "longest", "a frame", "frames a watcher got",
    ]  # fmt: skip
    return [Details(f"{SESSIONS:,} sessions of {TASKS} tasks", heading, lines)]
