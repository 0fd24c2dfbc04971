"""Fifty sessions × fifty steps a second of 50 µs each: how much CPU does introspection add?

Without, ours and the peer's take turns in one process. A step's work ends by the clock: a fixed
amount of it takes, on a machine that others use too, a fifth more CPU one second than the next,
which is more than all that is to be measured.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from importlib.util import find_spec
from statistics import median, quantiles

from . import _loops
from ._case import SEED, Case, Result, Results, Row
from ._sessions import Body, opened
from ._subjects import make
from ._work import now, spin

SESSIONS = 50
PERIOD_S = 0.020
BUSY_S = 50e-6


def cases(quick: bool) -> list[Case]:
    rounds, seconds = (2, 0.5) if quick else (10, 1.0)
    subjects = ["bare", "exact", *(["peer"] if find_spec("openrtc") is not None else [])]
    return [
        Case(
            loop,
            measure,
            {"subjects": subjects, "loop": loop, "rounds": rounds, "seconds": seconds, "seed": SEED},
            limit_s=120.0,
            needs=_loops.needs(loop),
        )
        for loop in _loops.LOOPS
    ]


def measure(subjects: list[str], loop: str, rounds: int, seconds: float, seed: int) -> Result:
    """CPU of the process in percent of a core, round by round, without and with."""
    return _loops.run(loop, _measure(subjects, rounds, seconds, seed))


async def _measure(subjects: list[str], rounds: int, seconds: float, seed: int) -> Result:
    spread = random.Random(seed)
    for name in subjects:
        await _round(name, spread, 0.2)  # imports what it needs
    gc.freeze()  # what the peer has imported is not the others' to collect
    used: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(rounds):
        for name in subjects[:: 1 if number % 2 else -1]:
            gc.collect()
            used[name].append(await asyncio.create_task(_round(name, spread, seconds)))
    result: Result = {"bare_pct": median(used["bare"]), "rounds_pct": used}
    for name in subjects[1:]:
        added = [measured - bare for measured, bare in zip(used[name], used["bare"], strict=True)]
        low, _, high = quantiles(added, n=4)
        result[name] = {
            "added_pct": median(added),
            "added_quartiles_pct": [low, high],
            "added_least_pct": min(used[name]) - min(used["bare"]),
        }
    return result


async def _round(name: str, spread: random.Random, seconds: float) -> float:
    subject = make(name)
    await subject.start()
    bodies = {f"session-{number:02}": _body(spread.random()) for number in range(SESSIONS)}
    async with opened(subject, bodies):
        await asyncio.sleep(0.15)
        began, cpu = now(), time.process_time()
        await asyncio.sleep(seconds)
        used = 100.0 * (time.process_time() - cpu) / (now() - began)
    await subject.close()
    return used


def _body(phase: float) -> Body:
    async def body() -> None:
        # By the clock, so that every round has the same number of steps.
        due = now() + phase * PERIOD_S
        while True:
            await asyncio.sleep(max(0.0, due - now()))
            spin(BUSY_S)
            due += PERIOD_S

    return body


def rows(results: Results) -> list[Row]:
    found = []
    for loop in _loops.LOOPS:
        measured = results.get(loop, {})
        for key, what, must in (
            ("added_pct", "added CPU, of a core (median of pairs)", 0.5),
            ("added_least_pct", "the same, least with over least without", None),
        ):
            ours, peer = (measured[name][key] if name in measured else None for name in ("exact", "peer"))
            found.append(Row(f"{loop}, {what}", ours, "%", must, peer))
    return found
