"""The pytest plugin: a test fails when its code blocks the event loop.

The failure names the session, the line and the cause.

- `@pytest.mark.no_slow_sessions(threshold_ms=50)` observes one test, and fails it;
- `--slow-sessions=MS` observes all tests, and reports at the end;
- the fixture `introspector` measures the loop that the test runs.

A suite that uses none of these imports nothing of the core, and no method is touched.

A fault of the plugin's own is an error of the test that it happened in, and never ends the run: a test is observed from
inside its setup to inside its teardown, and pytest takes errors there for the test's. `SuiteReport` has what runs
outside of a test's phases, and reports its faults at the end.
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

from ._suite.allowed import Allowed, allowing
from ._suite.finding import Finding, failure_text
from ._suite.suite_report import SuiteReport

if TYPE_CHECKING:
    from openrtc_introspect_core import Introspector

    from ._suite.loop_attacher import LoopAttacher

MARKER = "no_slow_sessions"
THRESHOLD_MS = 50.0

_attacher = pytest.StashKey["LoopAttacher"]()
_ending = pytest.StashKey[ExitStack]()
"""Ends the attacher's work."""
_found = pytest.StashKey[list[Finding]]()
_allowed = pytest.StashKey[Sequence[Allowed]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("slow sessions", "blocks of the event loop").addoption(
        "--slow-sessions",
        metavar="MS",
        type=_milliseconds,
        default=None,
        help="observe every test's event loops, report blocks of more than MS milliseconds, and fail the run",
    )
    parser.addini(
        "slow_sessions_allow",
        "blocks that are allowed, one per line: path:function or path:line, * for any text, and a reason after #",
        type="linelist",
        default=[],
    )
    parser.addini(
        "slow_sessions_strict",
        "fail the run if an entry of slow_sessions_allow matched no block in a run of the whole suite",
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
    config.pluginmanager.register(SuiteReport(config, config.stash[_allowed]), "openrtc_introspect_suite")


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of milliseconds; accepted: more than 0, such as 50")
    return value


# --- observing a test --------------------------------------------------------------------------------


def _begin(item: pytest.Item) -> None:
    """Observe the test from now on, if marker, option or fixture ask for it."""
    marker = item.get_closest_marker(MARKER)
    threshold = item.config.getoption("slow_sessions")
    if marker is None and threshold is None and "introspector" not in getattr(item, "fixturenames", ()):
        return
    from ._suite.loop_attacher import LoopAttacher

    marked = _marked_ms(marker) if marker is not None else None
    attacher = LoopAttacher(marked or threshold or THRESHOLD_MS, item.config.rootpath)
    item.stash[_ending] = stack = ExitStack()
    stack.enter_context(attacher)
    item.stash[_attacher] = attacher


def _end(item: pytest.Item) -> None:
    stack = item.stash.get(_ending, None)
    if stack is not None:
        del item.stash[_ending]
        stack.close()


def _marked_ms(marker: pytest.Mark) -> float | None:
    """Return the marker's threshold; None if the marker is written wrongly."""
    value = marker.kwargs.get("threshold_ms", THRESHOLD_MS)
    if marker.args or set(marker.kwargs) - {"threshold_ms"} or isinstance(value, bool):
        return None
    return value if isinstance(value, (int, float)) and 0 < value < math.inf else None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    fault = None
    try:
        _begin(item)
    except Exception as error:
        fault = error
    result = yield from _phase(item, "setup")  # also after a fault: what others begin here they end in the teardown
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
    return (yield from _phase(item, "call"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    try:
        return (yield from _phase(item, "teardown"))
    finally:
        _end(item)


def _phase(item: pytest.Item, when: str) -> Generator[None, Any, Any]:
    """Run one phase of a test, and fail the test for its blocks.

    If the test fails by itself, the blocks are a section of its report.
    """
    attacher = item.stash.get(_attacher, None)
    if attacher is None:
        return (yield)
    try:
        result = yield
    except BaseException:
        try:
            counting = _take(item, attacher)
            beside = failure_text(counting, attacher.threshold_ms) if counting else ""
        except Exception:
            beside = traceback.format_exc()
        if beside:
            item.add_report_section(when, "slow sessions", beside)
        raise
    counting = _take(item, attacher)
    if counting and item.get_closest_marker(MARKER) is not None:
        pytest.fail(failure_text(counting, attacher.threshold_ms), pytrace=False)
    return result


def _take(item: pytest.Item, attacher: LoopAttacher) -> list[Finding]:
    """Keep the findings of this phase; return those that count."""
    entries = item.config.stash[_allowed]
    found = [replace(each, allowed=allowing(entries, each)) for each in attacher.found()]
    item.stash[_found] = found
    return [each for each in found if each.counts]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report: pytest.TestReport = yield
    attacher = item.stash.get(_attacher, None)
    try:
        if attacher is not None:
            _add_findings(item, attacher, report)
    except Exception:
        if report.passed:
            report.outcome, report.longrepr = "failed", traceback.format_exc()
        else:
            report.sections.append(("slow sessions", traceback.format_exc()))
    return report


def _add_findings(item: pytest.Item, attacher: LoopAttacher, report: Any) -> None:
    reported = item.config.getoption("slow_sessions") is not None or item.get_closest_marker(MARKER) is not None
    found = item.stash.get(_found, [])
    item.stash[_found] = []
    # An attribute of plain values travels with the report from pytest-xdist's workers.
    report.slow_sessions = {
        "found": [asdict(each) for each in found],
        "loops": attacher.loops,
        "faults": attacher.faults,
        "reported": reported,
    }


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    try:
        return (yield)
    finally:
        with suppress(Exception):
            _end(item)  # an interrupted run has no teardown
        if item.stash.get(_attacher, None) is not None:
            del item.stash[_attacher]


@pytest.fixture
def introspector(request: pytest.FixtureRequest) -> Introspector:
    """Return an Introspector of the loop that this test runs.

    It is the first loop that runs after the fixture's setup.

    In an async test it measures the test's own loop, with anyio's plugin, pytest-asyncio and pytest-trio; in a sync
    test the loop of `asyncio.run`, `trio.run` or whatever else the test starts. It serves no socket and ends with the
    test. Its threshold is that of the test's marker, else of --slow-sessions, else 50 ms.
    """
    attacher: LoopAttacher | None = request.node.stash.get(_attacher, None)
    if attacher is None:
        pytest.fail(
            "the fixture `introspector` has to be an argument of the test or of a fixture of it: "
            "by getfixturevalue it comes too late to see the loop begin",
            pytrace=False,
        )
    return attacher.introspector()
