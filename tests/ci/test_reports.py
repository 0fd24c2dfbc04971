"""What pytest reports of a session is read: who passed on which loop, who was skipped, who failed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from ci.reports import NO_LOOP, Report, loop_of, read_report, unexpected_skips

TESTS = """
import logging
import pytest

@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "virtual trio"])
def test_on_loops(loop): ...

def test_on_no_loop(): ...

def test_that_fails():
    logging.warning("switched off")
    assert "one" == "other"

@pytest.fixture
def broken():
    raise OSError("no fixture")

def test_without_its_fixture(broken): ...

@pytest.mark.skip(reason="needs sshd")
def test_that_is_skipped(): ...
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Return the report of pytest's run of TESTS, with the meter in C."""
    folder = tmp_path_factory.mktemp("reported")
    (folder / "test_it.py").write_text(TESTS, encoding="utf-8")
    (folder / "test_other.py").write_text("import pytest; pytest.importorskip('absent')", encoding="utf-8")
    options = ["-p", "no:cacheprovider", "--junitxml=report.xml", "-o", "junit_suite_name=C", "-o", "junit_logging=log"]
    subprocess.run([sys.executable, "-m", "pytest", *options], cwd=folder, capture_output=True, check=False)
    return read_report(folder / "report.xml", "tests-3.13")


def test_the_meter_is_the_name_of_the_suite(report: Report) -> None:
    """Nothing else in a report can say it."""
    assert report.meter == "C"


def test_tests_that_passed_are_counted_by_loop(report: Report) -> None:
    """A loop on virtual time counts as the loop."""
    assert report.passed == Counter({"asyncio": 1, "uvloop": 1, "trio": 1, NO_LOOP: 1})


def test_tests_that_failed_are_there_with_what_pytest_says(report: Report) -> None:
    """A fixture that fails fails the test."""
    assert report.failed.keys() == {"test_it::test_that_fails", "test_it::test_without_its_fixture"}
    assert "AssertionError" in report.failed["test_it::test_that_fails"]
    assert "no fixture" in report.failed["test_it::test_without_its_fixture"]


def test_what_a_test_that_failed_logged_is_kept(report: Report) -> None:
    """A probe that failed may be the reason."""
    assert report.logged.keys() <= report.failed.keys()
    assert "switched off" in report.logged["test_it::test_that_fails"]


def test_tests_that_were_skipped_are_counted_by_reason(report: Report) -> None:
    """The reason is what expected_skips.toml lists."""
    assert report.skipped == Counter({"needs sshd": 1, "could not import 'absent': No module named 'absent'": 1})


def test_every_test_has_a_duration(report: Report) -> None:
    """Skipped ones too, and a file that was skipped."""
    assert len(report.durations) == 8


@pytest.mark.parametrize(
    ("test", "loop"),
    [
        ("test_trio_hook::test_it", "trio"),
        ("test_hook::test_it[uvloop-3]", "uvloop"),
        ("test_hook::test_it[virtual asyncio]", "asyncio"),
        ("test_hook::test_trio_is_not_there", NO_LOOP),
    ],
)
def test_the_loop_is_that_of_the_parameters_or_the_file(test: str, loop: str) -> None:
    """The name of a function says nothing certain."""
    assert loop_of(test) == loop


def test_a_skip_that_is_not_listed_for_the_session_is_not_expected() -> None:
    """It may be listed for another one."""
    skips = Counter({"new in Python 3.14": 2, "needs sshd": 1, "the machine is busy": 3})
    older, newer = (Report(session, "C", skipped=skips) for session in ("tests-3.13", "tests-3.14"))
    assert unexpected_skips(older) == {"needs sshd": 1}
    assert unexpected_skips(newer) == {"needs sshd": 1, "new in Python 3.14": 2}
