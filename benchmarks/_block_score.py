"""Compare the reports of a detector with the blocks that were caused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import Any

from ._block_detectors import Report
from ._block_plan import THRESHOLD_S
from ._block_scene import Truth
from ._case import Result
from ._figures import quantile

OVER_S = THRESHOLD_S + 0.005
"""Seconds. Blocks longer than this must be found."""
UNDER_S = THRESHOLD_S - 0.001
"""Seconds. Blocks shorter than this must not be reported; between the two bounds either is right."""
COUNTS = ("found", "session", "line", "line asked", "cause")


def score(truths: Sequence[Truth], reports: Sequence[Report], claims: Sequence[str]) -> Result:
    """Return counts by kind and place, duration errors, and all mismatches."""
    matched: dict[int, list[Report]] = {index: [] for index in range(len(truths))}
    false = descheduled = innocents = 0
    wrong: list[dict[str, Any]] = []
    for report in reports:
        index, truth = max(enumerate(truths), key=lambda pair: _overlap(pair[1], report))
        same = _overlap(truth, report) > 0.5 * min(truth.length, report.length)
        if same and truth.length > UNDER_S:
            matched[index].append(report)
        else:
            if report.cause == "descheduled":
                descheduled += 1
            else:
                false += 1
            near = f"{1000 * truth.length:.1f} ms of {truth.expected.kind}, {truth.place}" if same else "nothing caused"
            wrong.append({"what": "false", "near": near, "report": report.as_json()})
        guilty = {one.expected.session_id for one in truths if _overlap(one, report) > 0}
        if "session" in claims and report.session_id is not None and report.session_id not in guilty:
            innocents += 1
            wrong.append({"what": "innocent", "truth": truth.as_json() if same else None, "report": report.as_json()})
    by_kind: dict[str, Any] = {}
    by_place: dict[str, Any] = {}
    every: list[float] = []
    for index, truth in enumerate(truths):
        if truth.length < OVER_S:
            continue
        best = max(matched[index], key=partial(_overlap, truth), default=None)
        right = _correct_parts(truth, best, claims)
        wrong += [
            {"what": what, "truth": truth.as_json(), "report": best.as_json() if best else None}
            for what in ("found", *claims)
            if not right[what] and not (what == "line" and not truth.expected.locations) and (best or what == "found")
        ]
        for table, key in ((by_kind, truth.expected.kind), (by_place, truth.place)):
            entry = table.setdefault(key, {"blocks": 0, "errors_ms": [], "counts": Counter()})
            entry["blocks"] += 1
            entry["counts"].update({what: int(right[what]) for what in COUNTS})
            if best is not None:
                entry["errors_ms"].append(1000.0 * (best.length - truth.length))
        if best is not None:
            every.append(1000.0 * (best.length - truth.length))
    return {
        "caused": len(truths),
        "blocks": sum(entry["blocks"] for entry in by_kind.values()),
        "reports": len(reports),
        "twice": sum(len(each) - 1 for each in matched.values() if len(each) > 1),
        "false": false,
        "descheduled": descheduled,
        "innocents": innocents,
        "counts": {what: sum(entry["counts"][what] for entry in by_kind.values()) for what in COUNTS},
        "error_ms": errors(every),
        "by_kind": by_kind,
        "by_place": by_place,
        "wrong": wrong,
    }


def _overlap(truth: Truth, report: Report) -> float:
    return min(truth.end, report.end) - max(truth.start, report.start)


def _correct_parts(truth: Truth, report: Report | None, claims: Sequence[str]) -> dict[str, bool]:
    asked = bool(truth.expected.locations)
    if report is None:
        return {what: what == "line asked" and asked for what in COUNTS}
    wrong = truth.expected.mismatches(report.as_block(), within_ms=None)
    return {
        "found": True,
        "session": "session" not in wrong,
        "line": asked and "location" not in wrong,
        "line asked": asked,
        "cause": "cause" not in wrong,
    }


def errors(values: Sequence[float]) -> dict[str, float] | None:
    """Summarize reported minus true durations, in ms; None if there are none."""
    if not values:
        return None
    sizes = [abs(value) for value in values]
    return {
        "median": median(sizes),
        "p95": quantile(sizes, 0.95),
        "worst": max(sizes),
        "min": min(values),
        "max": max(values),
    }
