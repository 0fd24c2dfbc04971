"""The accounting of loop time: the sum of the parts, and the error of each."""

from __future__ import annotations

import gc
import time
from collections import defaultdict
from functools import partial
from statistics import fmean
from typing import Any

from . import _loops
from ._case import Case, Result, Results, Row, value
from ._sessions import Body, opened
from ._subjects import Core
from ._work import Held, keep_working, now, spin, work

PARTS = ("sessions", "untagged", "gc", "callbacks and loop", "idle")
FIELDS = dict(zip(PARTS, ("sessions_pct", "untagged_pct", "gc_pct", "other_pct", "idle_pct"), strict=True))


def cases(quick: bool) -> list[Case]:
    return [
        Case(loop, measure, {"loop": loop, "seconds": 3.0 if quick else 8.0}, needs=_loops.needs(loop))
        for loop in _loops.WITH_TRIO
    ]


def measure(loop: str, seconds: float) -> Result:
    return _loops.run(loop, _measure(seconds))


async def _measure(seconds: float) -> Result:
    """Run sessions, tasks of no session, callbacks and collections, evenly spread.

    Each takes some percent of the loop.
    """
    gc.collect()
    gc.freeze()
    subject = Core("exact")
    await subject.start()
    sessions, untagged = [Held() for _ in range(6)], [Held() for _ in range(2)]
    true: dict[str, float] = defaultdict(float)
    stopped = False

    def callback() -> None:
        began = now()
        spin(0.001)
        true["callbacks and loop"] += now() - began
        if not stopped:
            _loops.call_soon(callback, later_s=0.015)

    collecting = 0.0

    def collected(phase: str, _info: dict[str, Any]) -> None:
        nonlocal collecting
        if phase == "start":
            collecting = now()
        else:
            true["gc"] += now() - collecting

    async def litter(held: Held) -> None:
        await keep_working(held, _litter, 0.05)

    bodies: dict[str, Body | None] = {
        f"session-{number}": partial(keep_working, held, work(kind, 0.0008), 0.02)
        for number, (held, kind) in enumerate(zip(sessions, ("python", "native", "sleep") * 2, strict=True))
    }
    gc.callbacks.append(collected)
    others = [_loops.spawn(litter(untagged[0])), _loops.spawn(_spinning(untagged[1]))]
    callback()
    reported: dict[str, list[float]] = {part: [] for part in PARTS}
    totals = []
    async with opened(subject, bodies):
        await _loops.sleep(2.2)  # a reported share covers up to the last two seconds
        before = _truth(sessions, untagged, true)
        began = now()
        while now() - began < seconds:
            await _loops.sleep(0.5)
            parts = subject.introspector.snapshot().worker.loop_time
            known = {part: share for part, field in FIELDS.items() if (share := getattr(parts, field)) is not None}
            for part, share in known.items():
                reported[part].append(share)
            totals.append(sum(known.values()))
        wall = now() - began
        after = _truth(sessions, untagged, true)
        stopped = True
        for task in others:
            task.cancel()
            await task.wait()
    gc.callbacks.remove(collected)
    await subject.close()
    shares = {part: 100.0 * (after[part] - before[part]) / wall for part in PARTS if part != "idle"}
    means = {part: fmean(values) if values else None for part, values in reported.items()}
    return {
        "reported": means,
        "true": shares,
        "sum_error_pct": max(abs(total - 100.0) for total in totals),
        "errors": {part: mean - shares[part] for part, mean in means.items() if mean is not None and part in shares},
    }


def _truth(sessions: list[Held], untagged: list[Held], true: dict[str, float]) -> dict[str, float]:
    # The collections run in the littering task and are not part of its own time. Trio runs callbacks in tasks.
    callbacks = true["callbacks and loop"]
    in_tasks = callbacks if _loops.on_trio() else 0.0
    return {
        "sessions": sum(held.seconds for held in sessions),
        "untagged": sum(held.seconds for held in untagged) - true["gc"] + in_tasks,
        "gc": true["gc"],
        "callbacks and loop": callbacks - in_tasks,
    }


async def _spinning(held: Held) -> None:
    await keep_working(held, lambda: spin(0.0005), 0.02)


def _litter() -> None:
    for _ in range(3000):
        one: list[Any] = []
        one.append(one)
    gc.collect()
    time.sleep(0)


def rows(results: Results) -> list[Row]:
    found = [
        Row(f"{loop}, sum of the parts against wall time, worst error", value(results, loop, "sum_error_pct"), "%", 2.0)
        for loop in ("asyncio", "trio")  # on uvloop not all parts are known
    ]
    for loop in _loops.WITH_TRIO:
        found += [
            Row(f"{loop}, {part}, reported minus true", value(results, loop, "errors", part), "%") for part in PARTS[:3]
        ]
        for part in PARTS[3:]:
            reported = value(results, loop, "reported", part)
            true = (value(results, loop, "true") or {}).get(part)
            what = f"{loop}, {part}, reported" + (f" (callbacks measured {true:.3g} %)" if true is not None else "")
            found.append(Row(what, reported, "%"))
    return found
