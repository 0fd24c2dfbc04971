"""The detection of random blocks of 21 kinds.

A block has a session, a line, a cause and a length; a detector may also blame an innocent session.
The other detectors get the same blocks, in the same order and of the same lengths.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping
from typing import Any

from . import _loops
from ._block_detectors import CLAIMS, Ours, detector, subject_for
from ._block_plan import ALL, PLACES, SEVERAL, WAITING, Planned, plan
from ._block_scene import Scene, Truth
from ._block_score import errors, score
from ._case import SEED, Case, Details, Result, Results, Row, value
from ._table import figure

GROUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ours": (("exact",), ()),
    "peers": (("openrtc", "livekit-agents"), ("openrtc", "livekit")),
    "checkers": (("asyncio debug", "pyleak"), ("pyleak",)),
}
"""The detectors that run together, and the modules they need. Company does not change their figures: none of them sees
another's reports."""


def cases(quick: bool) -> list[Case]:
    return [
        Case(
            f"{loop} {group}",
            measure,
            {"names": names, "loop": loop, "each": 2 if quick else 10, "seed": SEED},
            limit_s=150.0,
            needs=(*_loops.needs(loop), *modules),
        )
        for loop in _loops.EVERY
        for group, (names, modules) in GROUPS.items()
        if group == "ours" or loop in _loops.LOOPS  # the other detectors are asyncio's only
    ]


def measure(names: list[str], loop: str, each: int, seed: int) -> Result:
    return _loops.run(loop, _measure(names, plan(each, seed), seed))


async def _measure(names: list[str], blocks: list[Planned], seed: int) -> Result:
    subject = subject_for(names)
    scene = Scene(subject, seed)
    await subject.start()
    detectors = {name: detector(name, subject) for name in names}
    for one in detectors.values():
        await one.start()
    await scene.open()
    gaps = random.Random(seed + 2)
    truths: list[Truth] = []
    for block in blocks:
        truths.append(await scene.cause(block))
        await _loops.sleep(gaps.uniform(0.04, 0.07))
        for one in detectors.values():
            if isinstance(one, Ours):
                one.poll()
    await scene.close()
    for one in detectors.values():
        await one.stop()
    await _loops.sleep(0.1)
    reports = {name: one.reports() for name, one in detectors.items()}
    with contextlib.suppress(RuntimeError):
        await subject.close()
    return {name: score(truths, found, CLAIMS[name]) for name, found in reports.items()}


def rows(results: Results) -> list[Row]:
    found = []
    for loop in _loops.EVERY:
        if loop in _loops.OTHERS and f"{loop} ours" not in results:
            continue
        ours = value(results, f"{loop} ours", "exact")
        peer = value(results, f"{loop} peers", "openrtc")
        for what, name, must in (
            ("found", "found", 100.0), ("session", "right session", 100.0), ("line", "right line", 99.0),
            ("cause", "right cause", 95.0),
        ):  # fmt: skip
            claimed = _percent(peer, what) if what in ("found", "session") else "not reported" if peer else None
            found.append(Row(f"{loop}, {name}", _percent(ours, what), "%", must, claimed, at_least=True))
        for path, name, unit, maximum in (
            (("innocents",), "innocent sessions blamed", "", 0.0),
            (("false",), "false reports", "", 0.0),
            (("descheduled",), "further reports of cause descheduled", "", None),
            (("twice",), "reported twice", "", 0.0),
            (("error_ms", "worst"), "duration, worst error", "ms", 2.0),
            (("error_ms", "p95"), "duration, 95th percentile of the error", "ms", None),
            (("error_ms", "median"), "duration, median error", "ms", None),
        ):
            of_peer = None if path == ("descheduled",) else _at(peer, *path)
            found.append(Row(f"{loop}, {name}", _at(ours, *path), unit, maximum, of_peer))
    return found


def _at(scored: Mapping[str, Any] | None, *path: str) -> Any:
    return value({"one": dict(scored)}, "one", *path) if scored is not None else None


def _percent(scored: Mapping[str, Any] | None, what: str) -> float | None:
    """Return percent of all blocks that must be found.

    For lines, the base is the blocks that have a line.
    """
    if scored is None:
        return None
    of = scored["counts"]["line asked"] if what == "line" else scored["blocks"]
    return 100.0 * float(scored["counts"][what]) / of if of else None


def details(results: Results) -> list[Details]:
    heading = ("blocks", "found", "session", "line", "cause", "duration error, median", "worst")
    found = []
    for key, title, entries in (
        ("by_kind", "Blocks by kind", ALL),
        ("by_place", "Blocks by place", (*PLACES, SEVERAL, WAITING)),
    ):
        lines = []
        for loop in _loops.EVERY:
            scored = value(results, f"{loop} ours", "exact")
            if scored is not None:
                lines += [[f"{loop}, {name}", *_cells(scored[key].get(name))] for name in entries]
        found.append(Details(title, (f"loop, {key.removeprefix('by_')}", *heading), lines))
    return [*found, _all_detectors(results)]


def _cells(entry: Mapping[str, Any] | None) -> list[str]:
    if entry is None:
        return ["–"] * 7
    counts, wrong = entry["counts"], errors(entry["errors_ms"])
    line = f"{counts['line']} of {counts['line asked']}" if counts["line asked"] else "–"
    length = [figure(wrong["median"], "ms"), figure(wrong["worst"], "ms")] if wrong else ["–", "–"]
    right = [str(counts[what]) for what in ("found", "session", "cause")]
    return [str(entry["blocks"]), *right[:2], line, right[2], *length]


def _all_detectors(results: Results) -> Details:
    heading = (
        "loop, detector", "blocks", "found", "right session", "innocents blamed", "right line", "right cause",
        "false reports",
        "duration error, median", "worst",
    )  # fmt: skip
    lines = []
    for loop in _loops.EVERY:
        for group, (names, _) in GROUPS.items():
            for name in names:
                scored = value(results, f"{loop} {group}", name)
                if scored is None:
                    continue
                right = {what: figure(_percent(scored, what), "%") for what in CLAIMS[name]}
                lines.append(
                    [
                        f"{loop}, {'ours' if name == 'exact' else name}",
                        str(scored["blocks"]),
                        figure(_percent(scored, "found"), "%"),
                        right.get("session", "–"),
                        str(scored["innocents"]) if "session" in CLAIMS[name] else "–",
                        right.get("line", "–"),
                        right.get("cause", "–"),
                        str(scored["false"]),
                        figure(_at(scored, "error_ms", "median"), "ms"),
                        figure(_at(scored, "error_ms", "worst"), "ms"),
                    ]
                )
    return Details("The same blocks under each detector; –: it does not claim to report this", heading, lines)
