"""False findings of the diagnosis in a healthy worker, also on a busy machine.

A worker of voice calls runs, and one of its threads takes a snapshot five times a second, as `openrtc diagnose` does,
and asks now and then what the calls wait for. Each window of two seconds, with the blocks before it, is one
diagnosis. "Busy" means that a process for each core computes without a pause. Every finding is a false one, except
that the host throttles the worker: this may be true, and is counted apart.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ._case import SEED, Case, Details, Result, Results, Row, value
from ._work import spin

SESSIONS = 50
PERIOD_S = 0.020
BUSY_S = (20e-6, 100e-6)
NOW_AND_THEN_S = (2e-3, 20e-3)
"""Seconds that a call computes once in a few seconds: it parses a sentence or calls a tool."""
WINDOW_S = 2.0
FRAME_S = 0.2
FRAMES_FOR_WAITS = 3
"""Each third snapshot is followed by the question what the calls wait for."""
NEIGHBOURS = {"alone": 0, "busy": os.cpu_count() or 1}
_NEIGHBOUR = "while True: sum(range(100_000))"


def cases(quick: bool) -> list[Case]:
    times = 3 if quick else 50
    return [
        Case(where, measure, {"neighbours": number, "times": times, "seed": SEED}, limit_s=60.0 + times * WINDOW_S * 2)
        for where, number in NEIGHBOURS.items()
    ]


def measure(neighbours: int, times: int, seed: int) -> Result:
    with _neighbours(neighbours):
        return asyncio.run(_measure(times, random.Random(seed)))


async def _measure(times: int, chance: random.Random) -> Result:
    from openrtc_introspect_core import Finding, Introspector, Snapshot, diagnose
    from openrtc_introspect_core.wire import Waits

    loop = asyncio.get_running_loop()
    found: list[list[Finding]] = []
    descheduled: list[float] = []

    async with Introspector(name="healthy", socket_path=False) as introspector:
        calls = [asyncio.create_task(_call(introspector, number, chance)) for number in range(SESSIONS)]

        def diagnosed(frames: list[Snapshot], waits: list[Waits]) -> list[Finding]:
            return diagnose(frames, introspector.blocks(), waits)

        for _ in range(times):
            frames, waits = [introspector.snapshot()], [await asyncio.to_thread(introspector.waits)]
            until = loop.time() + WINDOW_S
            while loop.time() < until:
                await asyncio.sleep(FRAME_S)
                frames.append(await asyncio.to_thread(introspector.snapshot))
                if len(frames) % FRAMES_FOR_WAITS == 0:
                    waits.append(await asyncio.to_thread(introspector.waits))
            found.append(await asyncio.to_thread(diagnosed, frames, waits))
            since = frames[0].taken_at
            blocks = [block for block in introspector.blocks() if block.started_at >= since]
            held = sum(block.duration_ms for block in blocks if block.cause == "descheduled")
            descheduled.append(0.1 * held / (frames[-1].taken_at - since))
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    false = [[finding.title for finding in findings if finding.code != "host-throttled"] for findings in found]
    return {
        "times": times,
        "clean": sum(not findings for findings in found),
        "false": sum(bool(titles) for titles in false),
        "titles": [title for titles in false for title in titles],
        "descheduled_pct": sum(descheduled) / times,
    }


async def _call(introspector: object, number: int, chance: random.Random) -> None:
    with introspector.session(f"call-{number}", agent_name="desk", metadata={"tenant": "acme"}):  # type: ignore[attr-defined]
        async with asyncio.TaskGroup() as tasks:
            for _ in range(2):
                tasks.create_task(_frames(chance))
            tasks.create_task(_talk(chance))


async def _frames(chance: random.Random) -> None:
    await asyncio.sleep(chance.uniform(0.0, PERIOD_S))
    while True:
        spin(chance.uniform(*BUSY_S))
        await asyncio.sleep(PERIOD_S)


async def _talk(chance: random.Random) -> None:
    while True:
        await asyncio.sleep(chance.uniform(2.0, 8.0))
        spin(chance.uniform(*NOW_AND_THEN_S))


@contextmanager
def _neighbours(number: int) -> Iterator[None]:
    started = [subprocess.Popen([sys.executable, "-c", _NEIGHBOUR]) for _ in range(number)]
    try:
        yield
    finally:
        for neighbour in started:
            neighbour.kill()
            neighbour.wait()


def rows(results: Results) -> list[Row]:
    found = []
    for where in NEIGHBOURS:
        times, clean = value(results, where, "times"), value(results, where, "clean")
        found.append(Row(f"{where}, runs without a finding, of {times or 50}", clean, must=times, at_least=True))
        found.append(Row(f"{where}, false findings", value(results, where, "false"), must=0))
        found.append(Row(f"{where}, share of time descheduled", value(results, where, "descheduled_pct"), "%"))
    return found


def details(results: Results) -> list[Details]:
    lines = [[where, title] for where in NEIGHBOURS for title in value(results, where, "titles") or ()]
    return [Details("What was found in a healthy worker", ["where", "finding"], lines)] if lines else []
