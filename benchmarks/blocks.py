"""Random blocks of 21 kinds: found, with the right session, line, cause and length, and no innocent blamed?

The others that claim to find blocks look at the same ones, in the same order and of the same lengths.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
from collections.abc import Mapping
from typing import Any

from . import _blockers, _loops
from ._block_detectors import CLAIMS, Ours, detector, subject_for
from ._block_plan import ALL, KINDS, PLACES, SEVERAL, WAITING, Planned, plan
from ._block_scene import Scene, Truth
from ._block_score import errors, score
from ._case import SEED, Case, Details, Result, Results, Row, value
from ._helpers import slow_server
from ._table import figure

GROUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ours": (("exact",), ()),
    "peers": (("openrtc", "livekit-agents"), ("openrtc", "livekit")),
    "checkers": (("asyncio debug", "pyleak"), ("pyleak",)),
}
"""Who look together, and the modules they need. The others' figures are no worse for company: none of them
hears of another's reports."""


def cases(quick: bool) -> list[Case]:
    return [
        Case(
            f"{loop} {group}",
            measure,
            {"names": names, "loop": loop, "each": 2 if quick else 10, "seed": SEED},
            limit_s=150.0,
            needs=(*_loops.needs(loop), *modules),
        )
        for loop in _loops.WITH_TRIO
        for group, (names, modules) in GROUPS.items()
        if group == "ours" or loop != "trio"  # the others are asyncio's
    ]


def measure(names: list[str], loop: str, each: int, seed: int) -> Result:
    with slow_server() as server, tempfile.TemporaryFile() as file:
        _blockers.prepare(server, file)
        return _loops.run(loop, _measure(names, plan(each, seed), seed))


async def _measure(names: list[str], blocks: list[Planned], seed: int) -> Result:
    subject = subject_for(names)
    scene = Scene(subject, seed)
    await scene.calibrate()
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
    said = {name: one.said() for name, one in detectors.items()}
    with contextlib.suppress(RuntimeError):
        await subject.close()
    return {name: score(_as_claimed(truths, subject), reports, CLAIMS[name]) for name, reports in said.items()}


def _as_claimed(truths: list[Truth], subject: Any) -> list[Truth]:
    """On uvloop nobody can know whose callback ran: there "no session" is the right answer. Trio has no callbacks:
    it runs what others call so in tasks of no session, with the causes of a task's blocks."""
    trio = _loops.on_trio()
    if trio or type(asyncio.get_running_loop()).__module__.startswith("uvloop"):
        for truth in truths:
            if truth.place == "session's callback":
                truth.session_id = None
            if trio and "callback" in truth.causes:
                truth.causes[truth.causes.index("callback")] = KINDS[truth.kind][1]
    return truths


def rows(results: Results) -> list[Row]:
    found = []
    for loop in _loops.WITH_TRIO:
        ours = value(results, f"{loop} ours", "exact")
        peer = value(results, f"{loop} peers", "openrtc")
        for what, name, must in (
            ("found", "found", 100.0), ("session", "right session", 100.0), ("line", "right line", 99.0),
            ("cause", "right cause", 95.0),
        ):  # fmt: skip
            claimed = _percent(peer, what) if what in ("found", "session") else "none told" if peer else None
            found.append(Row(f"{loop}, {name}", _percent(ours, what), "%", must, claimed, at_least=True))
        for path, name, unit, maximum in (
            (("innocents",), "innocent sessions blamed", "", 0.0),
            (("false",), "reported though nothing held so long", "", 0.0),
            (("descheduled",), "of nobody's, the system not having let it run", "", None),
            (("twice",), "reported twice", "", 0.0),
            (("error_ms", "worst"), "duration, worst error", "ms", 2.0),
            (("error_ms", "p95"), "duration, error of 95 in 100", "ms", None),
            (("error_ms", "median"), "duration, median error", "ms", None),
        ):
            told = None if name.startswith("of nobody's") else _at(peer, *path)
            found.append(Row(f"{loop}, {name}", _at(ours, *path), unit, maximum, told))
    return found


def _at(scored: Mapping[str, Any] | None, *path: str) -> Any:
    return value({"one": dict(scored)}, "one", *path) if scored is not None else None


def _percent(scored: Mapping[str, Any] | None, what: str) -> float | None:
    """Of all blocks that are to be found; of the lines, of those where one line blocks."""
    if scored is None:
        return None
    of = scored["counts"]["line asked"] if what == "line" else scored["blocks"]
    return 100.0 * float(scored["counts"][what]) / of if of else None


def details(results: Results) -> list[Details]:
    heading = ("blocks", "found", "session", "line", "cause", "duration error, median", "worst")
    found = []
    for key, title, entries in (
        ("by_kind", "Blocks by kind", ALL),
        ("by_place", "Blocks by where they happen", (*PLACES, SEVERAL, WAITING)),
    ):
        lines = []
        for loop in _loops.WITH_TRIO:
            scored = value(results, f"{loop} ours", "exact")
            if scored is not None:
                lines += [[f"{loop}, {name}", *_cells(scored[key].get(name))] for name in entries]
        found.append(Details(title, ("loop, which", *heading), lines))
    return [*found, _others(results)]


def _cells(entry: Mapping[str, Any] | None) -> list[str]:
    if entry is None:
        return ["–"] * 7
    counts, wrong = entry["counts"], errors(entry["errors_ms"])
    line = f"{counts['line']} of {counts['line asked']}" if counts["line asked"] else "–"
    length = [figure(wrong["median"], "ms"), figure(wrong["worst"], "ms")] if wrong else ["–", "–"]
    told = [str(counts[what]) for what in ("found", "session", "cause")]
    return [str(entry["blocks"]), *told[:2], line, told[2], *length]


def _others(results: Results) -> Details:
    heading = (
        "loop, who", "blocks", "found", "right session", "innocents blamed", "right line", "right cause", "false",
        "duration error, median", "worst",
    )  # fmt: skip
    lines = []
    for loop in _loops.WITH_TRIO:
        for group, (names, _) in GROUPS.items():
            for name in names:
                scored = value(results, f"{loop} {group}", name)
                if scored is None:
                    continue
                told = {what: figure(_percent(scored, what), "%") for what in CLAIMS[name]}
                lines.append(
                    [
                        f"{loop}, {'ours' if name == 'exact' else name}",
                        str(scored["blocks"]),
                        figure(_percent(scored, "found"), "%"),
                        told.get("session", "–"),
                        str(scored["innocents"]) if "session" in CLAIMS[name] else "–",
                        told.get("line", "–"),
                        told.get("cause", "–"),
                        str(scored["false"]),
                        figure(_at(scored, "error_ms", "median"), "ms"),
                        figure(_at(scored, "error_ms", "worst"), "ms"),
                    ]
                )
    return Details("The same blocks, each on the part it claims; –: it does not tell", heading, lines)
