"""A pytest plugin that writes the outcome of each test as a line of JSON, and attaches to loops on request.

    pytest -p recorder --outcomes=FILE [--introspect-every-loop]

A run that is killed, or ends by an error of a plugin, has written the lines of earlier tests, and no line with `exit`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("suites")
    group.addoption("--outcomes", metavar="FILE", type=Path)
    group.addoption("--introspect-every-loop", action="store_true")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--outcomes") is not None:
        config.pluginmanager.register(Recorder(config), "openrtc_suites_recorder")


class Recorder:
    """The writer of one run's lines. If the plugin of openrtc-introspect-testing watches tests, it counts the loops."""

    def __init__(self, config: pytest.Config) -> None:
        self._file = config.getoption("--outcomes").open("w", encoding="utf-8", buffering=1)
        self._watched = 0
        self._faults: dict[str, None] = {}
        self._every_loop: Any = None
        if config.getoption("--introspect-every-loop"):
            from every_loop import EveryLoop

            self._every_loop = EveryLoop().__enter__()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write(begun=nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome = "xfailed" if report.skipped and hasattr(report, "wasxfail") else report.outcome
        if report.when == "call" or outcome != "passed":
            phase = f" in {report.when}" if report.failed and report.when != "call" else ""
            self._write(test=report.nodeid, outcome=outcome + phase, why=_why(report) if report.failed else "")
        watched: dict[str, Any] = getattr(report, "slow_sessions", {})
        if report.when == "teardown":
            self._watched += watched.get("loops", 0)
        self._faults.update(dict.fromkeys(watched.get("faults", ())))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write(test=report.nodeid, outcome="not collected", why=_why(report))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if self._every_loop is not None:
            self._every_loop.__exit__(None, None, None)
            self._watched += self._every_loop.loops
            self._faults.update(dict.fromkeys(self._every_loop.faults))
        self._write(exit=int(exitstatus), loops=self._watched, faults=list(self._faults))

    def _write(self, **line: object) -> None:
        self._file.write(json.dumps(line) + "\n")


def _why(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return the first line of the exception's message, or else the last line of pytest's text; 200 characters."""
    crash = getattr(report.longrepr, "reprcrash", None)
    lines = crash.message.strip().splitlines() if crash is not None else str(report.longrepr).splitlines()[-1:]
    return "".join(lines[:1])[:200]
