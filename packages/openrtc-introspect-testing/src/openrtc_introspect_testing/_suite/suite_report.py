"""The findings of a whole run, gathered and reported at its end."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import pytest

from .allowed import Allowed
from .finding import Finding, by_place

Result = TypeVar("Result")

_MAX_TESTS_SHOWN = 3
_OUTPUT = "slow_sessions_deselected"


def _guarded(part: Callable[..., Result]) -> Callable[..., Result | None]:
    """Make a part of a hook whose errors are reported and do not end the run."""

    @functools.wraps(part)
    def guarded(report: SuiteReport, *given: Any, **named: Any) -> Result | None:
        try:
            return part(report, *given, **named)
        except Exception as error:
            report._faults[f"the plugin failed: {part.__name__}: {error!r}"] = None
            return None

    return guarded


class SuiteReport:
    """A plugin object that gathers the findings of all tests.

    With pytest-xdist the reports of all workers reach the object in the controller.
    """

    def __init__(self, config: pytest.Config, entries: Sequence[Allowed]) -> None:
        self._config = config
        self._threshold_ms: float | None = config.getoption("slow_sessions")
        self._entries = entries
        self._is_worker = hasattr(config, "workerinput")
        self._found: list[tuple[str, Finding]] = []
        self._loops: dict[str, int] = {}
        """By test that was to be observed: how many loops ran in it."""
        self._faults: dict[str, None] = {}
        self._deselected = 0
        self._is_whole = False
        """Whether the whole suite ran, so that an entry without a match is stale."""

    # --- gathering -------------------------------------------------------------------------------

    @_guarded
    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self._deselected += len(items)

    @_guarded
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        observed: dict[str, Any] | None = getattr(report, "slow_sessions", None)
        if observed is None or not observed["reported"]:
            return
        self._faults.update(dict.fromkeys(f"could not be watched: {fault}" for fault in observed["faults"]))
        self._found += [(report.nodeid, Finding(**each)) for each in observed["found"]]
        if report.outcome == "skipped":
            self._loops.pop(report.nodeid, None)
        elif report.when == "call":
            self._loops[report.nodeid] = observed["loops"]

    @pytest.hookimpl(optionalhook=True)
    @_guarded
    def pytest_testnodedown(self, node: Any) -> None:
        self._deselected += getattr(node, "workeroutput", {}).get(_OUTPUT, 0)

    # --- exit status -----------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        self._set_status(session, exitstatus)
        self._end_threads()

    @_guarded
    def _end_threads(self) -> None:
        if __package__ + ".loop_monitor" in sys.modules:
            from .loop_monitor import end_threads

            end_threads()

    @_guarded
    def _set_status(self, session: pytest.Session, exitstatus: int) -> None:
        if self._is_worker:
            self._config.workeroutput[_OUTPUT] = self._deselected  # type: ignore[attr-defined]
            return
        finished = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not session.shouldstop
        by_arguments = self._config.args_source is pytest.Config.ArgsSource.ARGS
        self._is_whole = finished and not by_arguments and not self._deselected and not session.shouldfail
        failed = self._threshold_ms is not None and any(found.counts for _, found in self._found)
        stale = bool(self._stale()) and bool(self._config.getini("slow_sessions_strict"))
        if exitstatus == pytest.ExitCode.OK and (failed or stale):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _stale(self) -> list[Allowed]:
        """Return the entries that matched no block although the whole suite ran."""
        if not self._is_whole or not self._loops:
            return []
        used = {found.allowed for _, found in self._found}
        return [entry for entry in self._entries if entry.text not in used]

    # --- the report ------------------------------------------------------------------------------

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        lines = self._lines() or []
        lines += self._faults
        if lines:
            terminalreporter.section("slow sessions")
            for line in lines:
                terminalreporter.line(line)

    @_guarded
    def _lines(self) -> list[str]:
        lines: list[str] = []
        if self._threshold_ms is not None:
            lines += self._report()
        without_loop = [nodeid for nodeid, loops in self._loops.items() if not loops]
        if without_loop and self._threshold_ms is None:
            lines.append(f"marked, but no event loop was watched in: {_shortened(without_loop)}")
        for entry in self._stale():
            verdict = "fails the run" if self._config.getini("slow_sessions_strict") else "take it out"
            lines.append(f"slow_sessions_allow: nothing matched {entry.text!r}: {verdict}")
        return lines

    def _report(self) -> list[str]:
        counting = [(nodeid, found) for nodeid, found in self._found if found.counts]
        groups = by_place(found for _, found in counting)
        tests = len({nodeid for nodeid, _ in counting})
        with_loop = sum(1 for loops in self._loops.values() if loops)
        lines = [
            f"{_counted(len(counting), 'block')} of more than {self._threshold_ms:g} ms at "
            f"{_counted(len(groups), 'place')}, in {tests} of {_counted(with_loop, 'test')} that ran an event loop"
        ]
        for group in groups:
            worst = group[0]
            lines.append(
                f"{worst.duration_ms:7.0f} ms  {len(group):4d}×  {worst.where}  ({worst.cause or 'cause unknown'})"
            )
            if worst.source:
                lines.append(f"{'':20}{worst.source}")
            sessions = sorted({found.session_id for found in group if found.session_id is not None})
            if sessions:
                lines.append(f"{'':20}sessions: {_shortened(sessions)}")
            inside = {id(found) for found in group}
            hit = dict.fromkeys(nodeid for nodeid, found in counting if id(found) in inside)
            lines.append(f"{'':20}tests: {_shortened(hit)}")
        allowed = [found for _, found in self._found if found.allowed is not None]
        uncounted = [found for _, found in self._found if not found.counts and found.allowed is None]
        if allowed:
            lines.append(f"allowed: {len(allowed)}")
        if uncounted:
            from openrtc_introspect_core._diagnosis.cause import NOT_LOOP_CODE

            causes = sorted(
                {found.cause if found.cause in NOT_LOOP_CODE else "seen too late" for found in uncounted} - {None}
            )
            lines.append(f"not counted: {len(uncounted)} ({', '.join(str(cause) for cause in causes)})")
        return lines


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _shortened(names: Iterable[str]) -> str:
    every = list(names)
    more = f", and {len(every) - _MAX_TESTS_SHOWN} more" if len(every) > _MAX_TESTS_SHOWN else ""
    return ", ".join(every[:_MAX_TESTS_SHOWN]) + more
