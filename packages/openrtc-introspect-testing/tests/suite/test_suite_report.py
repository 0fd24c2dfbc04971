"""The option, the report of a run and the allow-list, used by suites of their own."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import pytest

pytest_plugins = "pytester"

Run = Callable[..., pytest.RunResult]
needs_xdist = pytest.mark.skipif(find_spec("xdist") is None, reason="pytest-xdist is not installed")
LOOK_UP = 5
"""The line that blocks."""

SUITE = """
    @pytest.mark.parametrize("number", range(3))
    def test_menu(number):
        asyncio.run(main())

    def test_quick():
        asyncio.run(asyncio.sleep(0))

    def test_sync():
        pass
"""
ONE = """
    @pytest.mark.no_slow_sessions
    def test_one():
        asyncio.run(main())
"""
REPORT = [
    "*= slow sessions =*",
    "3 blocks of more than 400 ms at 1 place, in 3 of 4 tests that ran an event loop",
    f"* ms     3×  *.py:{LOOK_UP} in look_up  (sync-call)",
    "*time.sleep(0.5)",
    "*tests: *::test_menu[[]0], *::test_menu[[]1], *::test_menu[[]2]",
]


def test_the_option_watches_all_tests_and_reports_at_the_end(
    pytester: pytest.Pytester, suite: Run, blocking: str
) -> None:
    """Each line is there once, with how often and in which tests; the tests pass, and the run fails."""
    pytester.makepyfile(blocking + SUITE)
    result = suite("--slow-sessions=400")
    result.assert_outcomes(passed=5)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(REPORT)


@needs_xdist
def test_with_pytest_xdist_failures_and_report_are_the_same(
    pytester: pytest.Pytester, blocking: str, suite_in_subprocess: Run
) -> None:
    """One report has the findings of all workers, and the entries that matched in none of them."""
    pytester.makepyfile(test_all=blocking + SUITE, test_one=blocking + ONE)
    pytester.makeini("[pytest]\nslow_sessions_allow = gone.py:*  # an entry that matches nothing\n")
    result = suite_in_subprocess("--slow-sessions=400", "-n2")
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines(
        [
            f"    test_one.py:{LOOK_UP} in look_up",
            "*= slow sessions =*",
            "4 blocks of more than 400 ms at 2 places, in 4 of 5 tests that ran an event loop",
            "slow_sessions_allow: nothing matched 'gone.py:*",
        ]
    )
    result.stdout.fnmatch_lines([f"* ms     3×  test_all.py:{LOOK_UP} in look_up  (sync-call)"])


@pytest.mark.parametrize("value", ["0", "-5", "fast", "nan", "inf"])
def test_an_option_that_is_no_time_is_refused(pytester: pytest.Pytester, suite: Run, value: str) -> None:
    """The error says what is accepted."""
    result = suite(f"--slow-sessions={value}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*'{value}' is no number of milliseconds; accepted: more than 0, such as 50"])


# --- the allow-list -------------------------------------------------------------------------------


def test_an_entry_that_matches_lets_the_block_pass(pytester: pytest.Pytester, suite: Run, blocking: str) -> None:
    """It does for the marker and for the option; the report counts the block."""
    pytester.makepyfile(
        test_all=blocking + SUITE,
        test_one=blocking + ONE,
    )
    pytester.makeini(
        "[pytest]\nslow_sessions_allow =\n    test_all.py:look_*  # until there is an async client\n    *_one.py:5\n"
    )
    result = suite("--slow-sessions=400")
    result.assert_outcomes(passed=6)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["0 blocks of more than 400 ms*", "allowed: 4"])
    result.stdout.no_fnmatch_line("*nothing matched*")


@pytest.mark.parametrize(
    ("strict", "code", "verdict"),
    [("false", pytest.ExitCode.OK, "take it out"), ("true", pytest.ExitCode.TESTS_FAILED, "fails the run")],
)
def test_an_entry_that_never_matches_is_reported(
    pytester: pytest.Pytester, suite: Run, strict: str, code: int, verdict: str
) -> None:
    """If the setting says so, it fails the run."""
    pytester.makepyfile("import asyncio\ndef test_quick(): asyncio.run(asyncio.sleep(0))")
    pytester.makeini(
        f"[pytest]\nslow_sessions_strict = {strict}\nslow_sessions_allow = agents/*.py:look_up  # was mended\n"
    )
    result = suite("--slow-sessions=5000")
    assert result.ret == code
    result.stdout.fnmatch_lines(
        [f"slow_sessions_allow: nothing matched 'agents/?.py:look_up  # was mended': {verdict}"]
    )


@pytest.mark.parametrize("part", [["test_it.py"], ["-k", "quick"]], ids=["a file", "by name"])
def test_a_run_of_a_part_of_the_suite_says_nothing_of_entries(
    pytester: pytest.Pytester, suite: Run, part: list[str]
) -> None:
    """The entries may be for tests that did not run."""
    pytester.makepyfile(
        test_it="import asyncio\ndef test_quick(): asyncio.run(asyncio.sleep(0))\ndef test_other(): pass"
    )
    pytester.makeini("[pytest]\nslow_sessions_strict = true\nslow_sessions_allow = agents/*.py:look_up\n")
    result = suite("--slow-sessions=5000", *part)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("*nothing matched*")


def test_an_entry_that_is_none_is_refused(pytester: pytest.Pytester, suite: Run) -> None:
    """The error comes before any test runs, and says what is accepted."""
    pytester.makeini("[pytest]\nslow_sessions_allow = agents.py\n")
    result = suite()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*slow_sessions_allow has 'agents.py'; accepted: path:function or path:line*"])
