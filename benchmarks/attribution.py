"""How right is one session's share of the loop, kind of work by kind of work?

One session works, nine wait. The truth is what the session measures of itself (_work.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from . import _loops
from ._case import Case, Details, Result, Results, Row, value
from ._figures import relative_error
from ._sessions import idle, opened
from ._subjects import make
from ._table import figure
from ._work import Held, keep_working, now, work

SUBJECTS = ("exact", "sampled", "peer")
SETTLE_S = 0.2
Workload = tuple[str, str, float, float]
"""Name, kind, busy seconds, period."""
WORKLOADS: tuple[Workload, ...] = (
    ("0.3 ms Python per 5 ms", "python", 0.0003, 0.005),
    ("3 ms Python per 20 ms", "python", 0.003, 0.020),
    ("15 ms Python per 100 ms", "python", 0.015, 0.100),
    ("3 ms GIL-holding C per 20 ms", "native", 0.003, 0.020),
    ("15 ms time.sleep per 100 ms", "sleep", 0.015, 0.100),
    # So short that what happens around the work in a step shows: judged apart from the others.
    ("0.05 ms Python per 1 ms", "python", 0.00005, 0.001),
)


def cases(quick: bool) -> list[Case]:
    seconds = 0.6 if quick else 1.6
    return [
        Case(
            f"{loop} {subject}",
            measure,
            {"subject": subject, "loop": loop, "seconds": seconds},
            needs=_loops.needs(loop, subject),
        )
        for loop in _loops.WITH_TRIO
        for subject in SUBJECTS
        if _loops.exists(loop, subject)
    ]


def measure(subject: str, loop: str, seconds: float) -> Result:
    return {
        name: _loops.run(loop, _one(subject, kind, busy, period, seconds)) for name, kind, busy, period in WORKLOADS
    }


async def _one(subject_name: str, kind: str, busy: float, period: float, seconds: float) -> Result:
    subject = make(subject_name)
    task = work(kind, busy)
    held = Held()
    await subject.start()
    began = now()
    sessions = {"worker": lambda: keep_working(held, task, period), **idle(9)}
    async with opened(subject, sessions):
        # The peer tells shares since its start; ours are taken from when everything is warm.
        if subject.held():
            await _loops.sleep(SETTLE_S)
            began = now()
        told_before, true_before = subject.held().get("worker", 0.0), held.seconds
        shown = []
        until = began + seconds
        while now() < until:
            await _loops.sleep(0.25)
            shown.append(subject.shares()["worker"])
        # No session runs at this moment: the truth and the books are both at rest.
        told_after, true_after = subject.held().get("worker"), held.seconds
        wall = now() - began
        share = subject.shares()["worker"]
    await subject.close()
    told = 100.0 * (told_after - told_before) / wall if told_after is not None else share
    true = 100.0 * (true_after - true_before) / wall
    return {
        "true_pct": true,
        "told_pct": told,
        "shown_pct": fmean(shown[len(shown) // 2 :]),
        "error_pct": relative_error(told, true),
        "steps": held.steps,
    }


def rows(results: Results) -> list[Row]:
    found = []
    for loop in _loops.WITH_TRIO:
        for what, workloads in (
            ("worst relative error of a share", WORKLOADS[:-1]),
            (f"relative error, {WORKLOADS[-1][0]}", WORKLOADS[-1:]),
        ):
            worst = {subject: _worst(results, loop, subject, workloads) for subject in SUBJECTS}
            must = 2.0 if len(workloads) > 1 else None
            found.append(Row(f"{loop}, {what}, exact", worst["exact"], "%", must, worst["peer"]))
            found.append(Row(f"{loop}, {what}, sampled", worst["sampled"], "%", None, worst["peer"]))
    return found


def _worst(results: Results, loop: str, subject: str, workloads: Sequence[Workload]) -> float | None:
    measured = results.get(f"{loop} {subject}")
    return max(measured[name]["error_pct"] for name, *_ in workloads) if measured else None


def details(results: Results) -> list[Details]:
    heading = ("loop, work", "exact: truth", "told", "sampled: truth", "told", "peer: truth", "told")
    lines = []
    for loop in _loops.WITH_TRIO:
        for name, *_ in WORKLOADS:
            line = [f"{loop}, {name}"]
            for subject in SUBJECTS:
                measured = value(results, f"{loop} {subject}", name)
                line += [figure(measured[key], "%") if measured else "–" for key in ("true_pct", "told_pct")]
            lines.append(line)
    return [Details("Shares of loop time, each run against its own truth", heading, lines)]
