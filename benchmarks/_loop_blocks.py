"""Blocks on loops in several threads: what is caused, and what is reported of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from functools import partial
from typing import Any

from ._case import Result
from ._loop_threads import LOOPS, LoopThreads, Stages
from ._work import spin

GAP_S = (0.03, 0.12)
LENGTH_S = (0.06, 0.15)
Truth = tuple[float, float, str]
"""The beginning and the end of a block, and its session."""


def blocks(each: int, seed: int) -> Result:
    """Block each loop at random moments, so that several are blocked at the same time."""
    from openrtc_introspect_core import Introspector

    truths: list[list[Truth]] = [[] for _ in range(LOOPS)]

    async def main(introspector: Any, number: int, stages: Stages) -> None:
        chooser = random.Random(seed + number)
        orders: list[asyncio.Queue[Any]] = [asyncio.Queue() for _ in range(3)]
        done = asyncio.Event()

        async def guilty(session_id: str, own: asyncio.Queue[Any]) -> None:
            with introspector.session(session_id, agent_name="bench"):
                while (block := await own.get()) is not None:
                    began = time.time()
                    block()
                    truths[number].append((began, time.time(), session_id))

        async def innocent(session_id: str) -> None:
            with introspector.session(session_id, agent_name="bench"):
                while not done.is_set():
                    spin(0.0002)
                    await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(guilty(f"{number}-{index}", own)) for index, own in enumerate(orders)]
        others = asyncio.create_task(innocent(f"{number}-innocent"))
        for _ in range(2):
            await stages.reached()
        for _ in range(each):
            await asyncio.sleep(chooser.uniform(*GAP_S))
            block = partial(chooser.choice((time.sleep, spin)), chooser.uniform(*LENGTH_S))
            chooser.choice(orders).put_nowait(block)
        for own in orders:
            own.put_nowait(None)
        await asyncio.wait(tasks)
        done.set()
        await others
        await stages.reached()  # a block does not name its loop if no other one is attached

    introspector = Introspector(name="bench", socket_path=False)
    loops = LoopThreads(introspector, main, LOOPS)
    loops.stages.wait()
    numbers = loops.numbers()
    for _ in range(2):
        loops.stages.wait()
    loops.join()
    reports = introspector.blocks()
    introspector.close()
    return _score(truths, [(numbers[str(report.loop)], report) for report in reports])


def _score(truths: list[list[Truth]], reports: list[tuple[int, Any]]) -> Result:
    matched: dict[Truth, Any] = {}
    false: Counter[str] = Counter()
    innocents = 0
    for number, report in reports:
        length = report.duration_ms / 1000.0
        truth = max(truths[number], key=partial(_overlap, report))
        if _overlap(report, truth) > 0.5 * min(length, truth[1] - truth[0]):
            matched[truth] = report
        else:
            false[report.cause] += 1
        innocents += report.session_id not in (None, *(one[2] for one in truths[number] if _overlap(report, one) > 0.0))
    every = [truth for own in truths for truth in own]
    at_once = sum(
        any(one[0] < truth[0] < one[1] for other in truths for one in other if other is not own)
        for own in truths
        for truth in own
    )
    return {
        "blocks": len(every),
        "at_once": at_once,
        "found": len(matched),
        "unattributed": dict(Counter(report.cause for report in matched.values() if report.session_id is None)),
        "wrong": sum(report.session_id not in (None, truth[2]) for truth, report in matched.items()),
        "line": sum(report.location is not None for report in matched.values()),
        "false": dict(false),
        "innocents": innocents,
        "errors_ms": [report.duration_ms - 1000.0 * (end - began) for (began, end, _), report in matched.items()],
    }


def _overlap(report: Any, truth: Truth) -> float:
    began, end = report.started_at, report.started_at + report.duration_ms / 1000.0
    return float(min(end, truth[1]) - max(began, truth[0]))
