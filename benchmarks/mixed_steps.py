"""The line of blocks in steps of Python code and C code that keeps the GIL, mixed.

Each step has three parts of random kinds and lengths, in functions of known lines: Python code, C code, and one more of
these or a call that waits, in random order. The right line is the one at which the step spent most of its time, or one
that took at most 5 ms less: Python code gives the GIL away once in 5 ms, and no thread can look in between. Healthy
sessions run beside it.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from statistics import median
from typing import Any

from . import _mixed_work
from ._case import SEED, Case, Details, Result, Results, Row, value
from ._mixed_work import LINES, PARTS, Part, now
from ._runner import build_before
from ._table import figure

LENGTHS_S = (0.02, 0.2)
"""Of one part."""
INNOCENTS = 5
AS_LONG_S = 0.005
"""A part that took so much less than the longest one is as long."""
SUBJECTS = ("meter in C", "meter in Python", "before")


def cases(quick: bool) -> list[Case]:
    found = [
        Case(
            name,
            measure,
            {"steps": 20 if quick else 200, "seed": SEED},
            limit_s=240.0,
            meter_in_python=name == "meter in Python",
            before=name == "before",
        )
        for name in SUBJECTS
    ]
    return [case for case in found if not case.before or build_before() is not None]


def measure(steps: int, seed: int) -> Result:
    """Return the truth of each step, and what was reported of it."""
    _mixed_work.calibrate()
    return asyncio.run(_measure(random.Random(seed), steps))


async def _measure(choice: random.Random, steps: int) -> Result:
    from openrtc_introspect_core import Introspector

    truths: dict[str, list[tuple[str, float]]] = {}
    lengths: dict[str, float] = {}
    async with Introspector(name="mixed", socket_path=False) as introspector:
        innocents = [asyncio.create_task(_healthy(introspector, number)) for number in range(INNOCENTS)]
        for number in range(steps):
            name = f"step-{number}"
            with introspector.session(name, agent_name="mixed"):
                step = asyncio.create_task(_step(_draw(choice), choice.uniform(0.05, 0.1)))
                truths[name], lengths[name] = await step
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        for each in innocents:
            each.cancel()
        blocks = introspector.blocks()
    return _score(truths, lengths, blocks)


def _draw(choice: random.Random) -> list[tuple[Part, float]]:
    kinds = ["Python", "C with the GIL", choice.choice(("Python", "Python", "a call that waits", "C with the GIL"))]
    choice.shuffle(kinds)
    parts: list[Part] = []
    for kind in kinds:
        parts.append(choice.choice([part for part in PARTS[kind] if part not in parts]))
    return [(part, choice.uniform(*LENGTHS_S)) for part in parts]


async def _step(parts: list[tuple[Part, float]], pause: float) -> tuple[list[tuple[str, float]], float]:
    """Run the parts in one step. Return (name, seconds) of each, and the seconds of all."""
    await asyncio.sleep(pause)
    began = now()
    spent = []
    for part, seconds in parts:
        since = now()
        part(seconds)
        spent.append((part.__name__, now() - since))
    took = now() - began
    await asyncio.sleep(0)
    return spent, took


async def _healthy(introspector: Any, number: int) -> None:
    with introspector.session(f"healthy-{number}", agent_name="healthy"):
        while True:
            await asyncio.sleep(0.02)


def _score(truths: dict[str, list[tuple[str, float]]], lengths: dict[str, float], blocks: list[Any]) -> Result:
    lines = {part.__name__: line for part, line in LINES.items()}
    kinds = {part.__name__: kind for kind, parts in PARTS.items() for part in parts}
    steps = []
    reported = {block.session_id: block for block in blocks if block.session_id in truths}
    for name, spent in truths.items():
        if lengths[name] < 0.05:
            continue
        block = reported.get(name)
        longest, most = max(spent, key=lambda each: each[1])
        as_long = [part for part, seconds in spent if seconds >= most - AS_LONG_S]
        place = block.location if block is not None else None
        said = str(place)
        if place is not None and os.path.basename(place.file) == "_mixed_work.py":
            said = next((part for part, line in lines.items() if place.line == line), said)
        steps.append(
            {
                "parts": spent,
                "kind": kinds[longest],
                "said": said,
                "right": said in as_long,
                "longest": said == longest,
                "cause": block.cause if block is not None else None,
                "error_ms": abs(block.duration_ms - 1000.0 * lengths[name]) if block is not None else None,
            }
        )
    others = [block for block in blocks if block.session_id not in truths]
    return {
        "steps": steps,
        "innocents": sum(block.session_id is not None for block in others),
        "unattributed": Counter(str(block.cause) for block in others if block.session_id is None),
        "twice": sum(block.session_id in truths for block in blocks) - len(reported),
    }


def rows(results: Results) -> list[Row]:
    found = []
    for subject in SUBJECTS:
        steps = value(results, subject, "steps")
        if steps is None:
            continue
        wrong = [step["error_ms"] for step in steps if step["error_ms"] is not None]
        ours = subject != "before"
        must = {"found": 100.0, "error": 2.0, "innocents": 0.0} if ours else {}
        if subject == "meter in C":  # without it, nobody can look while C code keeps the GIL
            must["line"] = 98.0
        found += [
            Row(f"{subject}, right line", _share(steps, "right"), "%", must.get("line"), at_least=True),
            Row(f"{subject}, line of the longest part", _share(steps, "longest"), "%"),
            Row(f"{subject}, found", 100.0 * len(wrong) / len(steps), "%", must.get("found"), at_least=True),
            Row(f"{subject}, duration, worst error", max(wrong, default=None), "ms", must.get("error")),
            Row(f"{subject}, duration, median error", median(wrong) if wrong else None, "ms"),
            Row(
                f"{subject}, innocent sessions blamed", value(results, subject, "innocents"), "", must.get("innocents")
            ),
            Row(f"{subject}, reported twice", value(results, subject, "twice"), "", must.get("innocents")),
        ]
    return found


def _share(steps: list[dict[str, Any]], what: str) -> float:
    right: int = sum(step[what] for step in steps)
    return 100.0 * right / len(steps)


def details(results: Results) -> list[Details]:
    heading = ("subject, longest part", "steps", "right line", "causes")
    lines, misses = [], []
    for subject in SUBJECTS:
        steps = value(results, subject, "steps") or []
        for kind in PARTS:
            of_kind = [step for step in steps if step["kind"] == kind]
            if of_kind:
                causes = Counter(str(step["cause"]) for step in of_kind).most_common()
                shown = ", ".join(f"{number} {cause}" for cause, number in causes)
                right = sum(step["right"] for step in of_kind)
                lines.append((f"{subject}, {kind}", str(len(of_kind)), str(right), shown))
        for step in steps:
            if not step["right"] and subject != "before":
                parts = ", ".join(f"{part} {figure(1000 * seconds, 'ms')}" for part, seconds in step["parts"])
                misses.append((subject, parts, step["said"], str(step["cause"])))
    return [
        Details("Mixed steps by their longest part", heading, lines),
        Details("Mixed steps with a wrong line", ("subject", "parts", "line of", "cause"), misses),
    ]
