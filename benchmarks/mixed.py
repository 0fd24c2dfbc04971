"""The order and the shares of fifty sessions of random kinds and rates."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from . import _loops
from ._case import SEED, Case, Result, Results, Row, value
from ._figures import relative_error, spearman
from ._sessions import opened
from ._subjects import make
from ._work import KINDS, Held, keep_working, now, work

SUBJECTS = ("exact", "sampled", "peer")
SESSIONS = 50
LOAD = 0.6
"""The share of the loop that they need together."""


def cases(quick: bool) -> list[Case]:
    seconds = 1.5 if quick else 5.0
    return [
        Case(
            f"{loop} {subject}",
            measure,
            {"subject": subject, "loop": loop, "seconds": seconds, "seed": SEED},
            needs=_loops.needs(loop, subject),
        )
        for loop in _loops.LOOPS
        for subject in SUBJECTS
    ]


def plan(seed: int) -> list[tuple[str, float, float]]:
    """Return (kind, busy seconds, period) of each session; a few are large."""
    chooser = random.Random(seed)
    wants = [10 ** chooser.uniform(-1.5, 0.5) for _ in range(SESSIONS)]
    chosen = []
    for want in wants:
        share = LOAD * want / sum(wants)
        # A rate of at least four steps a second, so that each share shows within the run.
        busy = min(10 ** chooser.uniform(-4.3, -2.2), share / 4)
        chosen.append((chooser.choice(KINDS), busy, busy / share))
    return chosen


def measure(subject: str, loop: str, seconds: float, seed: int) -> Result:
    return _loops.run(loop, _measure(subject, seconds, seed))


async def _measure(subject_name: str, seconds: float, seed: int) -> Result:
    subject = make(subject_name)
    truth: dict[str, Held] = {}
    bodies: dict[str, Callable[[], Any] | None] = {}
    for number, (kind, busy, period) in enumerate(plan(seed)):
        name = f"session-{number:02}"
        truth[name] = Held()
        bodies[name] = _body(truth[name], kind, busy, period, random.Random(seed + number))
    await subject.start()
    began = now()
    async with opened(subject, bodies):
        # The peer reports shares since its start; ours are measured from the time when everything is warm.
        if subject.held():
            await asyncio.sleep(0.2)
            began = now()
        reported_before = subject.held()
        true_before = {name: one.seconds for name, one in truth.items()}
        await asyncio.sleep(seconds)
        wall = now() - began
        reported_after = subject.held()
        true = {name: 100.0 * (one.seconds - true_before[name]) / wall for name, one in truth.items()}
        reported = (
            {name: 100.0 * (reported_after[name] - reported_before[name]) / wall for name in truth}
            if reported_after
            else subject.shares()
        )
    await subject.close()
    pairs = [(reported.get(name, 0.0), true[name]) for name in truth]
    return {
        "rank_correlation": spearman([one for one, _ in pairs], [other for _, other in pairs]),
        "worst_error_pct": max(relative_error(*pair) for pair in pairs),
        "busy_pct": sum(true.values()),
        "pairs": pairs,
    }


def _body(held: Held, kind: str, busy: float, period: float, spread: random.Random) -> Callable[[], Any]:
    task = work(kind, busy)
    return lambda: keep_working(held, task, period, spread)


def rows(results: Results) -> list[Row]:
    found = []
    for loop in _loops.LOOPS:
        for cpu in ("exact", "sampled"):
            case, peer = f"{loop} {cpu}", f"{loop} peer"
            exact = cpu == "exact"
            found.append(
                Row(
                    f"{loop}, rank correlation with the truth, {cpu}",
                    value(results, case, "rank_correlation"),
                    must=0.99 if exact else None,
                    peer=value(results, peer, "rank_correlation"),
                    at_least=True,
                )
            )
            found.append(
                Row(
                    f"{loop}, worst relative error, {cpu}",
                    value(results, case, "worst_error_pct"),
                    "%",
                    peer=value(results, peer, "worst_error_pct"),
                )
            )
    return found
