"""What CI runs: each session is there, and has its turn."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from ci.plan import Queue, kind_of, number_of_commits, python_of, read_plan

ROOT = Path(__file__).resolve().parent.parent.parent


def test_every_run_has_one_session_of_each_list_and_some_runs_have_all() -> None:
    """As many runs as the longest list is long have had every session."""
    queue = Queue(["lint"], [["a", "b", "c"], ["d", "e"]])
    runs = [queue.chosen(number) for number in range(7, 10)]
    assert [run[0] for run in runs] == ["lint"] * 3
    assert {name for run in runs for name in run} == set(queue.all)
    assert all(len(run) == 3 for run in runs)


def test_a_session_has_a_kind_and_a_python() -> None:
    """A session without a Python runs on the one that runs noxfile.py."""
    assert (kind_of("tests-3.13"), python_of("tests-3.13")) == ("tests", "3.13")
    assert (kind_of("lint"), python_of("lint")) == ("lint", "")


def test_arguments_are_those_of_the_session_else_of_its_kind() -> None:
    """`fuzz` stands for each fuzz-X.Y."""
    plan = read_plan()
    for session in plan.sessions():
        assert plan.arguments_of(session) == plan.arguments.get(kind_of(session), [])


def test_no_session_is_in_the_plan_twice() -> None:
    """Nor in both queues."""
    sessions = list(read_plan().sessions())
    assert len(sessions) == len(set(sessions))


def test_what_may_be_missing_and_what_does_not_fail_ci_is_in_the_plan() -> None:
    """Each name in plan.toml stands for something."""
    plan = read_plan()
    assert set(plan.may_be_missing) <= {python_of(name) for name in plan.sessions()}
    assert set(plan.not_blocking) <= set(plan.sessions())
    assert set(plan.arguments) <= {kind_of(name) for name in plan.sessions()} | set(plan.sessions())


def test_a_copy_without_history_has_no_commits(tmp_path: Path) -> None:
    """CI runs there too."""
    assert number_of_commits(tmp_path) == 0


def test_the_sessions_of_a_run_are_listed_without_running_them() -> None:
    """A number takes the place of the number of commits."""
    command = [sys.executable, str(ROOT / "tests/ci/run.py"), "--list", "3"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.match(r"run 3: tests-3\.11, ", listed)
    assert "lint" in listed


@pytest.mark.parametrize("number", range(12))
def test_every_run_has_each_supported_python(number: int) -> None:
    """A fault on one Python alone fails each run."""
    chosen = [name for queue in read_plan().queues.values() for name in queue.chosen(number)]
    assert {python_of(name) for name in chosen if kind_of(name) == "tests"} == {"3.11", "3.12", "3.13", "3.14", "3.15"}
