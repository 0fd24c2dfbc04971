"""Run two short soaks; `nox -s soak` runs the long ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.program,
    pytest.mark.skipif(sys.platform == "win32", reason="serves no socket"),
]

WITHIN_S = 100.0
SOAKS = {
    "soak.py": ("--sessions", "20000", "--watchers", "2", "--samples", "5", "--loop", "asyncio"),
    "soak_of_freezes.py": ("--freezes", "100", "--samples", "3"),
}
"""By the name of the program its arguments."""

RUNS = 3
"""On a busy machine, what is to see a freeze may not run during it. One of so many runs sees enough of them."""


def started(name: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).with_name(name)), *SOAKS[name]]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def soaks() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Start all soaks at once: they wait more than they compute. Return their processes by the programs' names."""
    with ExitStack() as stack:
        running = {name: stack.enter_context(started(name)) for name in SOAKS}
        for process in running.values():
            stack.callback(process.kill)
        yield running


def report_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = process.communicate(timeout=WITHIN_S)
    assert process.returncode in (0, 1), errors
    report: dict[str, Any] = json.loads(output)
    return report


def test_twenty_thousand_sessions_leave_nothing_behind(soaks: dict[str, subprocess.Popen[str]]) -> None:
    """Memory, threads and files do not grow, the totals are right, and each watcher gets frames."""
    report = report_of(soaks["soak.py"])
    assert report["problems"] == [], report
    assert report["sessions"] == 20_000


def test_a_hundred_freezes_leave_nothing_behind(soaks: dict[str, subprocess.Popen[str]]) -> None:
    """Memory, threads and files do not grow, and each freeze is its session's, at its line."""
    reports = [report_of(soaks["soak_of_freezes.py"])]
    while reports[-1]["problems"] and len(reports) < RUNS:
        assert all("freezes" in problem for problem in reports[-1]["problems"]), reports  # nothing has grown
        with started("soak_of_freezes.py") as again:
            reports.append(report_of(again))
    assert reports[-1]["problems"] == [], reports
