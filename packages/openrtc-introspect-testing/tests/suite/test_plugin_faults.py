"""Faults of the plugin's own, and what a suite finds changed by the plugin: nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from openrtc_introspect_testing._suite.loop_attacher import LoopAttacher

pytest_plugins = "pytester"

Run = Callable[..., pytest.RunResult]


# --- faults of its own ----------------------------------------------------------------------------


PARTS: dict[str, dict[str, int]] = {
    "_suite.loop_attacher:LoopAttacher.__enter__": {"errors": 1},
    "_suite.session_mirror:SessionMirror.install": {"errors": 1},
    "_suite.loop_attacher:LoopAttacher.__exit__": {"passed": 1, "errors": 1},
    "_suite.loop_monitor:LoopMonitor.end": {"passed": 1, "errors": 1},
    "_suite.loop_attacher:LoopAttacher.found": {"errors": 2},
    "_suite.loop_monitor:LoopMonitor.new_blocks": {"passed": 1},
    "_suite.loop_monitor:LoopMonitor.begin": {"passed": 1},
    "_suite.session_mirror:SessionMirror._mirror_of": {"passed": 1},
    "plugin:allowing": {"failed": 1},
    "plugin:_add_findings": {"errors": 2},
    "_suite.suite_report:Finding": {"failed": 1},
    "_suite.suite_report:by_place": {"passed": 1},
    "_suite.suite_report:SuiteReport._stale": {"passed": 1},
    "_suite.loop_monitor:end_threads": {"passed": 1},
}
"""What is made to raise, and the outcome of the one test in which it happens."""


@pytest.mark.parametrize("part", PARTS)
def test_a_fault_of_the_plugins_own_is_one_tests_or_is_reported_and_never_ends_the_run(
    pytester: pytest.Pytester, suite: Run, part: str, blocking: str, suite_in_subprocess: Run
) -> None:
    """Later tests run as without the fault, and all methods are the original ones again."""
    module, _, name = part.partition(":")
    pytester.makeconftest(
        f"""
    from operator import attrgetter
    from openrtc_introspect_testing import plugin
    from openrtc_introspect_testing._suite import loop_attacher, suite_report
    import openrtc_introspect_testing.{module} as module

    *owner, name = "{name}".split(".")
    owner = attrgetter(*owner)(module) if owner else module
    original = getattr(owner, name)

    def broken(*arguments, **options):
        raise LookupError("not today")

    setattr(owner, name, broken)

    def pytest_unconfigure():
        setattr(owner, name, original)
    """
    )
    before = [vars(asyncio.Runner)["run"], vars(asyncio.BaseEventLoop)["run_forever"], list(sys.meta_path)]
    threshold_ms = 100 if part in ("plugin:allowing", "_suite.suite_report:Finding") else 60_000
    pytester.makepyfile(
        blocking
        + """
    from openrtc_introspect_core import Introspector

    async def program():
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test"):
                await main()

    @pytest.mark.no_slow_sessions(threshold_ms=THRESHOLD_MS)
    def test_menu():
        asyncio.run(program())

    def test_next():
        pass
    """.replace("THRESHOLD_MS", str(threshold_ms))
    )

    options = ["--slow-sessions=100"] if part == "_suite.suite_report:by_place" else []
    # If one of these fails, what was begun does not end.
    lasting = part in (
        "_suite.loop_attacher:LoopAttacher.__exit__",
        "_suite.loop_monitor:LoopMonitor.end",
        "_suite.loop_monitor:end_threads",
    )
    result = suite_in_subprocess(*options) if lasting else suite(*options)
    assert before == [vars(asyncio.Runner)["run"], vars(asyncio.BaseEventLoop)["run_forever"], list(sys.meta_path)]
    expected = {"passed": 0, "errors": 0, "failed": 0} | PARTS[part]
    result.assert_outcomes(**{**expected, "passed": expected["passed"] + 1})
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    assert "not today" in result.stdout.str()


def test_a_failure_of_the_tests_own_comes_first_if_the_plugin_fails_as_well(
    pytester: pytest.Pytester, suite: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plugin's failure comes beside it."""
    pytester.makepyfile(
        """
    import pytest

    @pytest.mark.no_slow_sessions
    def test_menu(request):
        request.node.broken = True
        raise ValueError("the test's own")
    """
    )
    found = LoopAttacher.found

    def broken(attacher: LoopAttacher) -> Any:
        if sys.exc_info()[0] is not None:
            raise LookupError("not today")
        return found(attacher)

    monkeypatch.setattr(LoopAttacher, "found", broken)
    result = suite()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E * ValueError: the test's own", "*slow sessions*", "LookupError: not today"])


# --- leaving no trace -----------------------------------------------------------------------------


def test_where_it_is_not_used_nothing_is_imported_or_touched(
    pytester: pytest.Pytester, suite_in_subprocess: Run
) -> None:
    """A suite that does not use the installed package pays neither time nor a changed method."""
    pytester.makepyfile(
        """
    import asyncio, sys

    def test_menu():
        assert asyncio.BaseEventLoop.run_forever.__module__ == "asyncio.base_events"
        assert asyncio.Runner.run.__module__ == "asyncio.runners"
        loaded = {name.partition(".")[0] for name in sys.modules}
        assert not loaded & {"openrtc_introspect_core", "psutil", "msgspec"}
    """
    )
    suite_in_subprocess("-p", "no:anyio").assert_outcomes(passed=1)


def test_the_package_works_without_pytest() -> None:
    """Only the plugin needs pytest: every name of the package loads without it."""
    code = (
        "import sys; sys.modules['pytest'] = None; from openrtc_introspect_testing import *; print(FakeLoop.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "FakeLoop" in done.stdout


def test_after_a_watched_test_everything_is_as_it_was(pytester: pytest.Pytester, suite: Run, blocking: str) -> None:
    """Methods and scopes are the original ones, and at the end no thread is left."""
    pytester.makeconftest(
        """
    import asyncio, sys
    import trio
    from openrtc_introspect_core._sessions.scope import SessionScope
    from openrtc_introspect_testing._loops.introspection_threads import ours

    def touched():
        return (
            trio._core._run.setup_runner, vars(trio._core._run.GuestState)["guest_tick"], list(sys.meta_path),
            vars(asyncio.BaseEventLoop)["run_forever"], vars(asyncio.BaseEventLoop)["run_until_complete"],
            vars(asyncio.Runner)["run"], vars(asyncio.Runner)["get_loop"],
            vars(SessionScope)["__enter__"], vars(SessionScope)["__exit__"],
        )

    before = touched()

    def pytest_unconfigure():
        assert touched() == before
        assert not ours()
        print("as it was")
    """
    )
    pytester.makepyfile(
        blocking
        + """
    from conftest import before, touched

    @pytest.mark.no_slow_sessions(threshold_ms=60_000)
    def test_menu():
        assert touched() != before
        for _ in range(3):
            asyncio.run(main())

    def test_other():
        assert touched() == before
    """
    )
    result = suite("-s")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["as it was"])
