"""The pytest plugin: a test fails when its code blocks the event loop, with the session, the line and the cause.

- `@pytest.mark.no_slow_sessions(threshold_ms=50)` watches one test, and fails it;
- `--slow-sessions=MS` watches all tests, and reports at the end;
- the fixture `introspector` measures the loop that the test runs.

Where none of these is used, nothing of the core is imported and no method is touched.

A fault of the plugin's own is an error of the test that it happened in, and never ends the run: a test is watched from
inside its setup to inside its teardown, where pytest takes errors for the test's; what runs outside of a test's phases
is in `Suite`, which reports its faults at the end.
"""

from __future__ import annotations

import argparse
import math
import traceback
from collections.abc import Generator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest

from ._allowed import Allowed, allowing
from ._findings import Finding, failure_text
from ._suite import Suite

if TYPE_CHECKING:
    from openrtc_introspect_core import Introspector

    from ._watch import Watcher

MARKER = "no_slow_sessions"
THRESHOLD_MS = 50.0

_watcher = pytest.StashKey["Watcher"]()
_watching = pytest.StashKey[ExitStack]()
"""Ends the watching."""
_found = pytest.StashKey[list[Finding]]()
_allowed = pytest.StashKey[Sequence[Allowed]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("slow sessions", "blocks of the event loop").addoption(
        "--slow-sessions",
        metavar="MS",
        type=_milliseconds,
        default=None,
        help="watch every test's event loops, report what blocked them for more than MS milliseconds, and fail the run",
    )
    parser.addini(
        "slow_sessions_allow",
        "blocks to put up with, one a line: path:function or path:line, * where they vary, and # a reason",
        type="linelist",
        default=[],
    )
    parser.addini(
        "slow_sessions_strict",
        "fail the run when an entry of slow_sessions_allow let nothing pass in a run of the whole suite",
        type="bool",
        default=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{MARKER}(threshold_ms={THRESHOLD_MS:g}): fail the test when its code blocks an event loop for longer",
    )
    try:
        config.stash[_allowed] = [Allowed.parse(line) for line in config.getini("slow_sessions_allow")]
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(Suite(config, config.stash[_allowed]), "openrtc_introspect_suite")


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of milliseconds; accepted: more than 0, such as 50")
    return value


# --- watching a test ---------------------------------------------------------------------------------


def _watch(item: pytest.Item) -> None:
    """Watches the test from now on, where that was asked for."""
    marker = item.get_closest_marker(MARKER)
    threshold = item.config.getoption("slow_sessions")
    if marker is None and threshold is None and "introspector" not in getattr(item, "fixturenames", ()):
        return
    from ._watch import Watcher

    marked = _marked_ms(marker) if marker is not None else None
    watcher = Watcher(marked or threshold or THRESHOLD_MS, item.config.rootpath)
    item.stash[_watching] = stack = ExitStack()
    stack.enter_context(watcher)
    item.stash[_watcher] = watcher


def _unwatch(item: pytest.Item) -> None:
    stack = item.stash.get(_watching, None)
    if stack is not None:
        del item.stash[_watching]
        stack.close()


def _marked_ms(marker: pytest.Mark) -> float | None:
    """The marker's threshold; None where it is not written as it should be."""
    value = marker.kwargs.get("threshold_ms", THRESHOLD_MS)
    if marker.args or set(marker.kwargs) - {"threshold_ms"} or isinstance(value, bool):
        return None
    return value if isinstance(value, (int, float)) and 0 < value < math.inf else None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    fault = None
    try:
        _watch(item)
    except Exception as error:
        fault = error
    result = yield from _judged(item, "setup")  # in any case: what others begin here they end in the teardown
    if fault is not None:
        raise fault
    if (marker := item.get_closest_marker(MARKER)) is not None and _marked_ms(marker) is None:
        given = ", ".join([*map(repr, marker.args), *(f"{name}={value!r}" for name, value in marker.kwargs.items())])
        pytest.fail(
            f"@pytest.mark.{MARKER}({given}); accepted: threshold_ms=, milliseconds, more than 0", pytrace=False
        )
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    return (yield from _judged(item, "call"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    try:
        return (yield from _judged(item, "teardown"))
    finally:
        _unwatch(item)


def _judged(item: pytest.Item, when: str) -> Generator[None, Any, Any]:
    """One phase of a test. A failure of its own comes first; what blocked the loop is told beside it."""
    watcher = item.stash.get(_watcher, None)
    if watcher is None:
        return (yield)
    try:
        result = yield
    except BaseException:
        try:
            counting = _take(item, watcher)
            beside = failure_text(counting, watcher.threshold_ms) if counting else ""
        except Exception:
            beside = traceback.format_exc()
        if beside:
            item.add_report_section(when, "slow sessions", beside)
        raise
    counting = _take(item, watcher)
    if counting and item.get_closest_marker(MARKER) is not None:
        pytest.fail(failure_text(counting, watcher.threshold_ms), pytrace=False)
    return result


def _take(item: pytest.Item, watcher: Watcher) -> list[Finding]:
    """What was found in this phase and counts against the test."""
    entries = item.config.stash[_allowed]
    found = [replace(each, allowed=allowing(entries, each)) for each in watcher.found()]
    item.stash[_found] = found
    return [each for each in found if each.counts]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report: pytest.TestReport = yield
    watcher = item.stash.get(_watcher, None)
    try:
        if watcher is not None:
            _add_findings(item, watcher, report)
    except Exception:
        if report.passed:
            report.outcome, report.longrepr = "failed", traceback.format_exc()
        else:
            report.sections.append(("slow sessions", traceback.format_exc()))
    return report


def _add_findings(item: pytest.Item, watcher: Watcher, report: Any) -> None:
    told = item.config.getoption("slow_sessions") is not None or item.get_closest_marker(MARKER) is not None
    found = item.stash.get(_found, [])
    item.stash[_found] = []
    # An attribute of plain values travels with the report from pytest-xdist's workers.
    report.slow_sessions = {
        "found": [asdict(each) for each in found],
        "loops": watcher.loops,
        "faults": watcher.faults,
        "told": told,
    }


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    try:
        return (yield)
    finally:
        with suppress(Exception):
            _unwatch(item)  # where the run is interrupted, there is no teardown
        if item.stash.get(_watcher, None) is not None:
            del item.stash[_watcher]


@pytest.fixture
def introspector(request: pytest.FixtureRequest) -> Introspector:
    """An Introspector of the loop that this test runs: the first one that runs after this was set up.

    In an async test that is the test's own loop, with anyio's plugin, pytest-asyncio and pytest-trio; in
    a sync test that of `asyncio.run`, `trio.run` or whatever else it starts. It serves no socket and ends
    with the test. Its threshold is that of the test's marker, else of --slow-sessions, else 50 ms.
    """
    watcher: Watcher | None = request.node.stash.get(_watcher, None)
    if watcher is None:
        pytest.fail(
            "the fixture `introspector` has to be an argument of the test or of a fixture of it: "
            "by getfixturevalue it comes too late to see the loop begin",
            pytrace=False,
        )
    return watcher.introspector()
