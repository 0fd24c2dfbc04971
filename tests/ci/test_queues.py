"""The sessions of a run of CI, in queues beside each other."""

from __future__ import annotations

from pathlib import Path

import pytest
from ci import queues
from ci.plan import Plan
from ci.queues import run_queue, run_queues, run_session

PLAN = Plan({}, arguments={"fuzz": ["15"]}, may_be_missing={})

NOXFILE = """
import os, pathlib, sys, time
session, *arguments = sys.argv[1:]
print(f"{session} ran with {arguments} in {pathlib.Path.cwd().name}")
print("and was ill", file=sys.stderr)
if session == "lacks":
    print("nox > Session lacks skipped: arm64 is NOT TESTED, for lack of qemu.")
if session == "hangs":
    time.sleep(60)
if session.startswith("tests"):
    reports = pathlib.Path(".nox/reports")
    reports.mkdir(parents=True, exist_ok=True)
    case = '<testcase classname="a.test_it" name="test" time="1"/>'
    suite = f'<testsuites><testsuite name="C">{case}</testsuite></testsuites>'
    reports.joinpath(f"{session}.xml").write_text(suite)
sys.exit(session == "fails")
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder with a noxfile.py whose sessions do what their names say."""
    (tmp_path / "noxfile.py").write_text(NOXFILE, encoding="utf-8")
    return tmp_path


def test_a_session_has_its_report_and_what_it_printed(checkout: Path) -> None:
    """Both streams are in the log."""
    result = run_session(checkout, "tests-3.13", ["-n0"])
    assert result.ended_well
    assert f"tests-3.13 ran with ['--', '-n0'] in {checkout.name}" in result.log
    assert "and was ill" in result.log
    assert result.report is not None
    assert (result.report.session, result.report.passed.total()) == ("tests-3.13", 1)


def test_the_report_of_an_earlier_run_is_not_taken_for_this_ones(checkout: Path) -> None:
    """A session may end before it runs pytest."""
    run_session(checkout, "tests-3.13", [])
    (checkout / "noxfile.py").write_text("raise SystemExit(1)", encoding="utf-8")
    result = run_session(checkout, "tests-3.13", [])
    assert not result.ended_well
    assert result.report is None


def test_a_session_that_hangs_is_ended(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it printed until then is kept."""
    monkeypatch.setattr(queues, "TIMEOUT_S", 2.0)
    result = run_session(checkout, "hangs", [])
    assert not result.ended_well
    assert "ended after" in result.log


def test_a_session_that_nox_skips_did_not_end_well(checkout: Path) -> None:
    """What it lacks is to be installed."""
    assert not run_session(checkout, "lacks", []).ended_well


def test_a_queue_goes_on_after_a_failure(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And says of each session how it ended."""
    results = run_queue(PLAN, checkout, ["fails", "fuzz-3.13"])
    assert [result.ended_well for result in results] == [False, True]
    assert "ran with ['--', '15']" in results[1].log
    assert [line.split("min")[1].strip() for line in capsys.readouterr().out.splitlines()] == [
        "fails: FAILED",
        "fuzz-3.13: passed",
    ]


def test_each_checkout_has_a_queue(tmp_path: Path) -> None:
    """The results of all are returned."""
    checkouts = {tmp_path / "one": ["lint"], tmp_path / "other": ["tests-3.11", "tests-3.12"]}
    for checkout in checkouts:
        checkout.mkdir()
        (checkout / "noxfile.py").write_text(NOXFILE, encoding="utf-8")
    results = run_queues(PLAN, checkouts)
    assert [result.session for result in results] == ["lint", "tests-3.11", "tests-3.12"]
    assert "in other" in results[1].log
