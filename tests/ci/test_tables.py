"""What a run of CI prints at its end."""

from __future__ import annotations

from collections import Counter

import pytest
from ci.plan import Plan, Queue
from ci.queues import Result
from ci.reports import NO_LOOP, Report
from ci.tables import details, faults, table_of_sessions, table_of_skips, table_of_slowest, table_of_tests

PLAN = Plan(
    {"tests": Queue(["tests-3.13", "tests-3.15"]), "others": Queue(["lint"], [["pure-3.13", "coverage-3.11"]])},
    arguments={},
    may_be_missing={"3.15": "no Debian package"},
)


def passed(session: str, meter: str = "C") -> Report:
    """Return a report in which each loop has a test that passed."""
    return Report(session, meter, Counter({"asyncio": 3, "uvloop": 2, "trio": 1, NO_LOOP: 4}))


def result(report: Report | None, session: str = "tests-3.13", log: str = "", *, ended_well: bool = True) -> Result:
    return Result(session, ended_well, 90.0, log, report)


def rows(lines: list[str]) -> dict[tuple[str, str], str]:
    """Return the cells of the table of tests, by Python and meter."""
    return {(line[:8].strip(), line[8:16].strip()): " ".join(line[16:].split()) for line in lines}


def test_each_python_and_meter_has_the_tests_that_passed_or_the_reason_why_there_are_none() -> None:
    """No cell is empty."""
    chosen = ["tests-3.13", "lint", "coverage-3.11"]
    table = rows(table_of_tests(PLAN, chosen, PLAN.may_be_missing, [passed("tests-3.13")]))
    assert table == {
        ("Python", "meter"): "asyncio uvloop trio no loop named",
        ("3.11", "C"): "not part of CI: docs/tested-versions.md",
        ("3.11", "Python"): "failed",
        ("3.13", "C"): "3 2 1 4",
        ("3.13", "Python"): "in another run: pure-3.13",
        ("3.15", "C"): "NOT TESTED: no Debian package",
        ("3.15", "Python"): "NOT TESTED: no Debian package",
    }


def test_a_session_that_used_another_meter_fills_that_meters_row() -> None:
    """Without a compiler, `tests` runs with the meter in Python."""
    table = rows(table_of_tests(PLAN, ["tests-3.13"], {}, [passed("tests-3.13", meter="Python")]))
    assert table["3.13", "Python"] == "3 2 1 4"
    assert table["3.13", "C"] == "failed"


def test_each_session_has_its_minutes_and_its_counts() -> None:
    """A session that runs no tests has no counts."""
    lines = table_of_sessions([result(passed("tests-3.13")), result(None, "lint", ended_well=False)])
    assert [line.split() for line in lines[1:]] == [["tests-3.13", "1.5", "10", "0", "C"], ["lint", "1.5", "FAILED"]]


def test_each_reason_to_skip_has_its_sessions() -> None:
    """The same reason in two sessions is one line."""
    reports = [Report(session, "C", skipped=Counter({"is busy": 2})) for session in ("tests-3.12", "tests-3.13")]
    assert [" ".join(line.split()) for line in table_of_skips(reports)] == ["4 is busy (tests-3.12, tests-3.13)"]


def test_the_slowest_tests_have_their_longest_time() -> None:
    """A test is listed once, with the session that it was slowest in."""
    reports = [Report("tests-3.12", "C", durations={"a": 1.0, "b": 3.0}), Report("tests-3.13", "C", durations={"a": 2})]
    lines = [" ".join(line.split()) for line in table_of_slowest(reports)]
    assert lines == ["3.0 s b (tests-3.12)", "2.0 s a (tests-3.13)"]


def test_nothing_is_wrong_if_all_passed() -> None:
    """Of a session without tests its exit code is all there is."""
    results = [result(passed("tests-3.13")), result(None, "lint")]
    assert list(faults(results)) == list(details(results)) == []


def test_a_failed_test_is_shown_with_the_end_of_what_pytest_says() -> None:
    """The end has the assertion."""
    report = Report("tests-3.13", "C", failed={"test_it::test": "\n".join(["first", *["..."] * 30, "E  the last"])})
    failed = result(report, ended_well=False)
    assert list(faults([failed])) == ["tests-3.13 failed\n  test_it::test"]
    title, *lines = details([failed])
    assert title == "tests-3.13, test_it::test"
    assert lines[-1] == "    E  the last"
    assert "    first" not in lines
    report.logged["test_it::test"] = "a warning"
    assert list(details([failed]))[1] == "    a warning"


@pytest.mark.parametrize("report", [None, passed("tests-3.13")])
def test_a_session_that_failed_without_a_failed_test_is_shown_with_the_end_of_its_log(report: Report | None) -> None:
    """It could not be installed, or too little was covered."""
    failed = result(report, log="one\ntwo", ended_well=False)
    assert list(faults([failed])) == ["tests-3.13 failed"]
    assert list(details([failed])) == ["tests-3.13", "    one", "    two"]


def test_a_skip_that_is_not_expected_is_wrong() -> None:
    """All tests may have passed."""
    report = passed("tests-3.13")
    report.skipped["needs sshd"] = 2
    assert list(faults([result(report)])) == ["tests-3.13: 2 tests were skipped, which is not expected: needs sshd"]


def test_a_loop_without_a_test_is_wrong() -> None:
    """Its library may be missing."""
    report = passed("tests-3.13")
    del report.passed["uvloop"]
    assert list(faults([result(report)])) == ["tests-3.13: no test ran on uvloop"]
