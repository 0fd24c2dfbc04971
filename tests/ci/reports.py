"""Read pytest's reports of a run: who passed, who was skipped and why, and how long each test took."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from xml.etree import ElementTree

EXPECTED_SKIPS = Path(__file__).with_name("expected_skips.toml")
LOOPS = ("asyncio", "uvloop", "trio")
"""The event loops that the file or the parameters of a test may name."""
NO_LOOP = "no loop named"


@dataclass
class Report:
    """What pytest reported of one session."""

    session: str
    meter: str
    """The language of the meter: C or Python."""
    passed: Counter[str] = field(default_factory=Counter)
    """Tests that passed, by the loop that their names tell."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Tests that were skipped, by the reason."""
    failed: dict[str, str] = field(default_factory=dict)
    """By the name of each test that failed, what pytest says of it."""
    logged: dict[str, str] = field(default_factory=dict)
    """By the name of a test that failed, what it logged, if anything."""
    durations: dict[str, float] = field(default_factory=dict)
    """Seconds, by the name of the test."""


def read_report(file: Path, session: str) -> Report:
    """Return the report that pytest wrote, in the form of JUnit, with the meter as the name of the suite."""
    suite = ElementTree.parse(file).getroot().find("testsuite")
    assert suite is not None
    report = Report(session, suite.get("name", ""))
    for case in suite.iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name', '')}"
        report.durations[name] = float(case.get("time", "0"))
        wrong = case.find("failure") if case.find("failure") is not None else case.find("error")
        skip = case.find("skipped")
        if wrong is not None:
            report.failed[name] = wrong.text or ""
            if logged := case.findtext("system-out"):
                report.logged[name] = logged
        elif skip is not None:
            report.skipped[reason_of(skip)] += 1
        else:
            report.passed[loop_of(name)] += 1
    return report


def reason_of(skip: ElementTree.Element) -> str:
    """Return why a test was skipped. Of a whole file, the element's text has the place and the reason, as a tuple."""
    message = skip.get("message", "")
    if message != "collection skipped":
        return message
    *_, reason = ast.literal_eval(skip.text or "('',)")
    return str(reason).removeprefix("Skipped: ")


def loop_of(test: str) -> str:
    """Return the event loop that a test's parameters or its file name, real or virtual."""
    words = re.split(r"[\W_]+", f"{test.partition('[')[2]} {test.partition('::')[0]}")
    return next((loop for loop in LOOPS if loop in words), NO_LOOP)


def unexpected_skips(report: Report) -> Counter[str]:
    """Return the skipped tests of a session whose reason expected_skips.toml does not list for it, by the reason."""
    listed = tomllib.loads(EXPECTED_SKIPS.read_text(encoding="utf-8"))["skip"]
    reasons = [skip["reason"] for skip in listed if any(fnmatch(report.session, name) for name in skip["sessions"])]
    kept = {why: tests for why, tests in report.skipped.items() if not any(re.fullmatch(each, why) for each in reasons)}
    return Counter(kept)
