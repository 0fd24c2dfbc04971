"""Print what a run of CI tested, what it skipped and how long it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby

from ci.plan import Plan, kind_of, python_of
from ci.queues import Result
from ci.reports import LOOPS, NO_LOOP, Report, unexpected_skips

METERS = ("C", "Python")
COLUMNS = (*LOOPS, NO_LOOP)
ON_THE_LOOPS = {"tests": "C", "lowest": "C", "pure": "Python", "coverage": "Python"}
"""By the kind of session, the meter: these run core's tests on each loop."""
SLOWEST = 10
SHOWN_LINES = 20
"""Lines of a failed test, or of a failed session that ran no tests."""


def tested(reports: Iterable[Report]) -> dict[tuple[str, str], Counter[str]]:
    """Return the tests that passed, by Python and meter, and by loop."""
    sums: dict[tuple[str, str], Counter[str]] = {}
    for report in reports:
        if kind_of(report.session) in ON_THE_LOOPS:
            sums.setdefault((python_of(report.session), report.meter), Counter()).update(report.passed)
    return sums


def table_of_tests(plan: Plan, chosen: list[str], missing: dict[str, str], reports: list[Report]) -> list[str]:
    """Return the table: for each Python and meter the tests that passed on each loop, else why there are none."""
    sums = tested(reports)
    pythons = sorted({python_of(name) for name in plan.sessions() if kind_of(name) in ON_THE_LOOPS}, key=version)
    lines = [f"{'Python':8}{'meter':8}" + "".join(f"{column:>16}" for column in COLUMNS)]
    for python in pythons:
        for meter in METERS:
            passed = sums.get((python, meter))
            cells = f"  {why_untested(plan, chosen, missing, python, meter)}"
            if passed is not None:
                cells = "".join(f"{passed[column]:>16,}" for column in COLUMNS)
            lines.append(f"{python:8}{meter:8}{cells}")
    return lines


def why_untested(plan: Plan, chosen: list[str], missing: dict[str, str], python: str, meter: str) -> str:
    """Return why no test ran on a Python with a meter."""
    names = [name for name in plan.sessions() if (kind_of(name), python_of(name)) in kinds_with(python, meter)]
    if python in missing:
        return f"NOT TESTED: {missing[python]}"
    if not names:
        return "not part of CI: docs/tested-versions.md"
    return "failed" if any(name in chosen for name in names) else f"in another run: {', '.join(names)}"


def kinds_with(python: str, meter: str) -> set[tuple[str, str]]:
    """Return the kinds of session that run the tests with a meter, with the Python."""
    return {(kind, python) for kind, used in ON_THE_LOOPS.items() if used == meter}


def table_of_sessions(results: list[Result]) -> list[str]:
    """Return a line for each session: how long it took, and how many tests passed and were skipped."""
    lines = [f"{'session':20}{'min':>6}{'passed':>9}{'skipped':>9}  meter"]
    for result in results:
        counts = ""
        if report := result.report:
            counts = f"{report.passed.total():>9,}{report.skipped.total():>9,}  {report.meter}"
        end = "" if result.ended_well else "  FAILED"
        lines.append(f"{result.session:20}{result.seconds / 60:6.1f}{counts}{end}")
    return lines


def table_of_skips(reports: list[Report]) -> list[str]:
    """Return a line for each reason to skip tests: how many, in which sessions."""
    skips = sorted((why, report.session, tests) for report in reports for why, tests in report.skipped.items())
    lines = []
    for why, group in groupby(skips, key=lambda skip: skip[0]):
        each = list(group)
        lines.append(f"{sum(tests for *_, tests in each):6,}  {why} ({', '.join(session for _, session, _ in each)})")
    return lines


def table_of_slowest(reports: list[Report]) -> list[str]:
    """Return the tests that took longest in any session, with their seconds."""
    took: dict[str, tuple[float, str]] = {}
    for report in reports:
        for name, seconds in report.durations.items():
            took[name] = max(took.get(name, (0.0, "")), (seconds, report.session))
    slowest = sorted(((*each, name) for name, each in took.items()), reverse=True)[:SLOWEST]
    return [f"{seconds:6.1f} s  {name} ({session})" for seconds, session, name in slowest]


def details(results: list[Result]) -> Iterator[str]:
    """Yield the end of what each failed test logged and says, or each session that failed without one."""
    for result in results:
        report = result.report or Report(result.session, "")
        texts = {
            f"{result.session}, {name}": [report.logged.get(name, ""), text] for name, text in report.failed.items()
        }
        for title, ends in (texts or {result.session: [result.log]}).items() if not result.ended_well else ():
            yield title
            yield from (f"    {line}" for text in ends for line in text.splitlines()[-SHOWN_LINES:])


def faults(results: list[Result]) -> Iterator[str]:
    """Yield a line for all that is wrong with a run."""
    for result in results:
        report = result.report
        if not result.ended_well:
            failed = report.failed if report is not None else {}
            yield f"{result.session} failed" + "".join(f"\n  {name}" for name in failed)
        if report is None:
            continue
        for why, tests in unexpected_skips(report).items():
            yield f"{result.session}: {tests} tests were skipped, which is not expected: {why}"
        if result.ended_well and kind_of(result.session) in ON_THE_LOOPS:
            yield from (f"{result.session}: no test ran on {loop}" for loop in LOOPS if not report.passed[loop])


def version(python: str) -> tuple[int, ...]:
    """Return what Pythons are sorted by; 3.14t comes after 3.14."""
    return (*(int(part) for part in python.rstrip("t").split(".")), python.endswith("t"))
