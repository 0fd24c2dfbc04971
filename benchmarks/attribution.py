"""The accuracy of one session's share of the loop, for each kind of work.

One session works and nine wait. The truth is measured by the session itself: from the moment at which a task is resumed
until it yields (_work.py), and in the short steps at the beginning and at the end of the work (_short_steps.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from . import _loops, _runner
from ._case import Case, Details, Result, Results, Row, value
from ._figures import relative_error
from ._sessions import Body, idle, opened
from ._short_steps import Turns
from ._subjects import make
from ._table import figure
from ._work import Held, keep_working, now, work

SUBJECTS = ("exact", "sampled", "peer")
BEFORE = "before"
SETTLE_S = 0.2
Workload = tuple[str, str, float, float]
"""Name, kind, busy seconds, period."""
WORKLOADS: tuple[Workload, ...] = (
    ("0.3 ms Python per 5 ms", "python", 0.0003, 0.005),
    ("3 ms Python per 20 ms", "python", 0.003, 0.020),
    ("15 ms Python per 100 ms", "python", 0.015, 0.100),
    ("3 ms GIL-holding C per 20 ms", "native", 0.003, 0.020),
    ("15 ms time.sleep per 100 ms", "sleep", 0.015, 0.100),
)
SHORT: Workload = ("0.05 ms Python per 1 ms", "python", 0.00005, 0.001)
"""So short that what is charged beside the work shows. It is rated apart from the others."""


def cases(quick: bool) -> list[Case]:
    seconds = 0.6 if quick else 1.6
    found = [
        Case(
            f"{loop} {subject}",
            measure,
            {"subject": "exact" if subject == BEFORE else subject, "loop": loop, "seconds": seconds},
            needs=_loops.needs(loop, subject),
            before=subject == BEFORE,
        )
        for loop in _loops.EVERY
        for subject in (*SUBJECTS, BEFORE)
        if _loops.exists(loop, subject)
    ]
    return [case for case in found if not case.before or _runner.build_before() is not None]


def measure(subject: str, loop: str, seconds: float) -> Result:
    return {workload[0]: _loops.run(loop, _one(subject, workload, seconds)) for workload in (*WORKLOADS, SHORT)}


async def _one(subject_name: str, workload: Workload, seconds: float) -> Result:
    _, kind, busy, period = workload
    subject = make(subject_name)
    task = work(kind, busy)
    held, turns = Held(), Turns()
    giving = _loops.spawn(turns.give(period)) if workload is SHORT else None
    await subject.start()
    began = now()
    sessions: dict[str, Body | None] = {
        "worker": lambda: turns.work(held, task) if workload is SHORT else keep_working(held, task, period),
        **idle(9),
    }
    async with opened(subject, sessions):
        # The peer reports shares since its start; ours are measured from the time when everything is warm.
        if subject.held():
            await _loops.sleep(SETTLE_S)
            began = now()
        reported_before, true_before = subject.held().get("worker", 0.0), held.seconds
        shown = []
        until = began + seconds
        while now() < until:
            await _loops.sleep(0.25)
            shown.append(subject.shares()["worker"])
        # No session runs at this moment, so neither the truth nor the accounts change.
        reported_after, true_after = subject.held().get("worker"), held.seconds
        wall = now() - began
        share = subject.shares()["worker"]
    if giving is not None:
        giving.cancel()
        await giving.wait()
    await subject.close()
    reported = 100.0 * (reported_after - reported_before) / wall if reported_after is not None else share
    true = 100.0 * (true_after - true_before) / wall
    return {
        "true_pct": true,
        "reported_pct": reported,
        "shown_pct": fmean(shown[len(shown) // 2 :]),
        "error_pct": relative_error(reported, true),
        "steps": held.steps,
    }


def rows(results: Results) -> list[Row]:
    found = []
    for loop in _shown(results):
        for what, workloads, must in (
            ("worst relative error of a share", WORKLOADS, 2.0),
            (f"relative error, {SHORT[0]}", (SHORT,), 3.0),
        ):
            worst = {subject: _worst(results, loop, subject, workloads) for subject in SUBJECTS}
            found.append(Row(f"{loop}, {what}, exact", worst["exact"], "%", must, worst["peer"]))
            if (before := _worst(results, loop, BEFORE, workloads)) is not None:
                found.append(Row(f"{loop}, {what}, exact, the build before", before, "%", None, worst["peer"]))
            found.append(Row(f"{loop}, {what}, sampled", worst["sampled"], "%", None, worst["peer"]))
    return found


def _shown(results: Results) -> list[str]:
    """Return the loops that the tables have: of the others those that were measured."""
    return [loop for loop in _loops.EVERY if loop in _loops.WITH_TRIO or f"{loop} exact" in results]


def _worst(results: Results, loop: str, subject: str, workloads: Sequence[Workload]) -> float | None:
    measured = results.get(f"{loop} {subject}")
    return max(measured[name]["error_pct"] for name, *_ in workloads) if measured else None


def details(results: Results) -> list[Details]:
    heading = ("loop, work", "exact: truth", "reported", "sampled: truth", "reported", "peer: truth", "reported")
    lines = []
    for loop in _shown(results):
        for name, *_ in (*WORKLOADS, SHORT):
            line = [f"{loop}, {name}"]
            for subject in SUBJECTS:
                measured = value(results, f"{loop} {subject}", name)
                line += [figure(measured[key], "%") if measured else "–" for key in ("true_pct", "reported_pct")]
            lines.append(line)
    return [Details("Shares of loop time, each run against its own truth", heading, lines)]
