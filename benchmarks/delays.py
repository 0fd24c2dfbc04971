"""The accuracy of delays: the sessions that each block delayed, and for how long."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from statistics import fmean

from . import _loops
from ._case import SEED, Case, Result, Results, Row, value
from ._figures import relative_error
from ._sessions import Body, opened
from ._subjects import Core
from ._work import now, spin

SESSIONS = 10
CADENCE_S = 0.020
THRESHOLD_S = 0.050
LOOPS = ("asyncio", "trio")
"""uvloop is missing: it does not show its queues."""


def cases(quick: bool) -> list[Case]:
    return [
        Case(loop, measure, {"loop": loop, "blocks": 10 if quick else 60, "seed": SEED}, needs=_loops.needs(loop))
        for loop in LOOPS
    ]


def measure(loop: str, blocks: int, seed: int) -> Result:
    return _loops.run(loop, _measure(blocks, seed))


async def _measure(count: int, seed: int) -> Result:
    """Run ten sessions with 20 ms timers beside an eleventh that blocks at times.

    The ten note how late their timers fire.
    """
    chooser = random.Random(seed)
    wakes: dict[str, list[tuple[float, float]]] = defaultdict(list)
    blocks: list[tuple[float, float]] = []
    over = _loops.event()

    def well_behaved(name: str) -> Body:
        async def body() -> None:
            await _loops.sleep(chooser.random() * CADENCE_S)
            while True:
                due = now() + CADENCE_S
                await _loops.sleep(CADENCE_S)
                wakes[name].append((due, now()))
                spin(0.0001)

        return body

    async def culprit() -> None:
        for number in range(count):
            await _loops.sleep(chooser.uniform(0.05, 0.1))
            start, seconds = now(), chooser.uniform(0.060, 0.200)
            spin(seconds) if number % 2 else time.sleep(seconds)
            blocks.append((start, now()))
        await _loops.sleep(0.1)
        over.set()

    subject = Core("exact")
    await subject.start()
    names = [f"session-{number:02}" for number in range(SESSIONS)]
    began = now()
    async with opened(subject, {**{name: well_behaved(name) for name in names}, "culprit": culprit}):
        await over.wait()
        rows = {row.session_id: row for row in subject.introspector.snapshot().sessions}
        reported = subject.introspector.blocks()
    await subject.close()
    pairs = [(rows[name].delayed_s, _late(wakes[name], blocks)) for name in names]
    by_block = [
        delayed.delayed_ms for block in reported for delayed in block.delayed or () if delayed.session_id in rows
    ]
    innocents = sum(delayed.session_id == "culprit" for block in reported for delayed in block.delayed or ())
    return {
        "seconds": now() - began,
        "blocks": len(blocks),
        "reported": len(reported),
        "mean_error_pct": fmean(relative_error(*pair) for pair in pairs),
        "worst_error_pct": max(relative_error(*pair) for pair in pairs),
        "bias_pct": fmean(100.0 * (one - true) / true for one, true in pairs),
        "delays": len(by_block),
        "culprit_delayed": innocents,
        "culprit_delayed_s": rows["culprit"].delayed_s,
        "pairs": pairs,
    }


def _late(wakes: list[tuple[float, float]], blocks: list[tuple[float, float]]) -> float:
    """Return the sum of the seconds by which a block made these wakes late."""
    long = [(start, end) for start, end in blocks if end - start > THRESHOLD_S]
    return sum(woke - due for due, woke in wakes if any(due < end and start < woke for start, end in long))


def rows(results: Results) -> list[Row]:
    return [
        Row(f"{loop}, {what}", value(results, loop, key), unit, must)
        for loop in LOOPS
        for what, key, unit, must in (
            ("seconds a session was delayed, mean error", "mean_error_pct", "%", None),
            ("seconds a session was delayed, worst error", "worst_error_pct", "%", None),
            ("reported minus true, mean", "bias_pct", "%", None),
            ("times a block was reported to delay its own session", "culprit_delayed", "", 0.0),
        )
    ]
