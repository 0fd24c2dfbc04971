"""The pytest plugin, run on suites of its own: what fails, what passes, and what is told."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

import pytest

from openrtc_introspect_testing._allowed import Allowed
from openrtc_introspect_testing._findings import Finding, fix_of
from openrtc_introspect_testing._watch import Watcher

pytest_plugins = "pytester"

PLUGIN = "openrtc_introspect_testing.plugin"
INSTALLED = any(entry.value == PLUGIN for entry in entry_points(group="pytest11"))

LEAVE_OUT = ["-p", "no:hypothesispytest"]
"""It loads all of hypothesis anew for each run."""

Run = Callable[..., pytest.RunResult]


def run_suite(
    run: Callable[..., pytest.RunResult], *arguments: str, asyncio_mode: str | None = None, pytest_trio: bool = False
) -> Any:
    """pytest with warnings as errors, on the suite in pytester's folder."""
    asyncio = (
        ["-p", "no:asyncio"]
        if asyncio_mode is None
        else [f"--asyncio-mode={asyncio_mode}", "-o", "asyncio_default_fixture_loop_scope=function"]
    )
    trio = [] if pytest_trio else ["-p", "no:trio"]
    plugin = [] if INSTALLED else ["-p", PLUGIN]
    return run(*plugin, *asyncio, *trio, "-W", "error", "-p", "no:cacheprovider", *LEAVE_OUT, *arguments)


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Run:
    """Runs pytest in this process, on the suite that the test has written."""
    return lambda *arguments, **options: run_suite(pytester.runpytest_inprocess, *arguments, **options)


needs_asyncio = pytest.mark.skipif(find_spec("pytest_asyncio") is None, reason="pytest-asyncio is not installed")
needs_pytest_trio = pytest.mark.skipif(find_spec("pytest_trio") is None, reason="pytest-trio is not installed")
needs_xdist = pytest.mark.skipif(find_spec("xdist") is None, reason="pytest-xdist is not installed")

BLOCKS = """
    import asyncio, threading, time
    import pytest

    def look_up():
        time.sleep(0.5)

    async def main():
        look_up()
"""
LOOK_UP = 5
"""The line that blocks."""


# --- the marker --------------------------------------------------------------------------------------


def test_a_marked_test_that_blocks_the_loop_fails_with_line_cause_and_fix(
    pytester: pytest.Pytester, suite: Run
) -> None:
    """In fewer than ten lines, of which one says what to do."""
    pytester.makepyfile(
        BLOCKS
        + """
    @pytest.mark.no_slow_sessions
    def test_menu():
        asyncio.run(main())
    """
    )
    result = suite()
    result.assert_outcomes(failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    lines = result.outlines
    first = next(index for index, line in enumerate(lines) if "test_menu ____" in line)
    told = lines[first + 1 : next(index for index, line in enumerate(lines) if "short test summary" in line)]
    assert len(told) < 10
    result.stdout.fnmatch_lines(
        [
            "the event loop was blocked for more than 50 ms",
            "no session (task *) blocked it for * ms: sync-call",
            f"    *.py:{LOOK_UP} in look_up",
            "        time.sleep(0.5)",
            "    fix: await asyncio.sleep(...)",
        ],
        consecutive=False,
    )


def test_the_session_is_named_whoevers_introspector_it_is(pytester: pytest.Pytester, suite: Run) -> None:
    """The program under test has its own; the one that watches learns of its sessions, and leaves its books alone."""
    pytester.makepyfile(
        BLOCKS
        + """
    from openrtc_introspect_core import Introspector, current_session

    @pytest.mark.no_slow_sessions
    def test_menu():
        async def program():
            async with Introspector(socket_path=False, slow_session_threshold_ms=10_000) as introspector:
                with introspector.session("job-1", agent_name="restaurant") as session:
                    assert current_session() is session
                    await asyncio.create_task(main())
                assert current_session() is None
                assert introspector.blocks() == []
                assert [row.session_id for row in introspector.snapshot().sessions] == []
        asyncio.run(program())
    """
    )
    result = suite()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["session job-1 (restaurant) blocked it for * ms: sync-call"])


def test_a_block_on_any_loop_that_runs_during_the_test_is_found(pytester: pytest.Pytester, suite: Run) -> None:
    """However the loop was made, in whatever thread; what no session did is nobody's."""
    pytester.makepyfile(
        BLOCKS
        + """
    import anyio, uvloop

    pytestmark = pytest.mark.no_slow_sessions

    def test_run():
        asyncio.run(main())

    def test_task():
        asyncio.run(asyncio.wait_for(main(), 9))

    def test_second_run():
        with asyncio.Runner() as runner:
            runner.run(asyncio.sleep(0))
            runner.run(main())

    def test_by_hand():
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()

    def test_last_callback():
        loop = asyncio.new_event_loop()
        loop.call_soon(look_up)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()

    def test_thread():
        thread = threading.Thread(target=asyncio.run, args=[main()])
        thread.start()
        thread.join()

    def test_uvloop():
        uvloop.run(main())

    def test_anyio():
        anyio.run(main)
    """
    )
    result = suite()
    result.assert_outcomes(failed=8)
    told = [line for line in result.outlines if line.endswith(f".py:{LOOK_UP} in look_up")]
    assert len(told) == 8
    assert sum(line.startswith("no session") for line in result.outlines) == 8


def test_a_librarys_block_is_told_at_the_users_line(pytester: pytest.Pytester, suite: Run) -> None:
    """Nobody can mend the library; the fix is what stands in for it."""
    pytester.makepyfile(
        """
    import asyncio, subprocess, sys
    import pytest

    async def main():
        subprocess.run([sys.executable, "-c", "import time; time.sleep(0.5)"])

    @pytest.mark.no_slow_sessions
    def test_menu():
        asyncio.run(main())
    """
    )
    result = suite()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["    *.py:5 in main", "    fix: await asyncio.create_subprocess_exec(...), or *"])


def test_what_stays_below_the_threshold_passes(pytester: pytest.Pytester, suite: Run) -> None:
    """The marker's threshold is what counts."""
    pytester.makepyfile(
        BLOCKS
        + """
    @pytest.mark.no_slow_sessions(threshold_ms=60_000)
    def test_menu():
        asyncio.run(main())
    """
    )
    suite().assert_outcomes(passed=1)


def test_time_that_a_fake_loop_pretends_to_spend_blocks_nobody(pytester: pytest.Pytester, suite: Run) -> None:
    """The watch is on the real clock; a virtual block is for an introspector on the loop's clock to find."""
    pytester.makepyfile(
        """
    import asyncio
    import pytest
    from openrtc_introspect_core import Introspector
    from openrtc_introspect_testing import FakeLoop

    @pytest.mark.no_slow_sessions(threshold_ms=5_000)
    def test_menu():
        async def main():
            loop = asyncio.get_running_loop()
            async with Introspector(socket_path=False, clock=loop.clock) as introspector:
                with introspector.session("job-1", agent_name="restaurant"):
                    await asyncio.sleep(0)
                    loop.block(60)
                    await asyncio.sleep(3600)
                    await asyncio.to_thread(lambda: None)
                assert [block.session_id for block in introspector.blocks() if block.session_id] == ["job-1"]
        FakeLoop.run(main())
    """
    )
    suite().assert_outcomes(passed=1)


def test_a_failure_of_the_tests_own_stays_and_the_block_is_told_beside_it(
    pytester: pytest.Pytester, suite: Run
) -> None:
    """What blocked may be why it failed."""
    pytester.makepyfile(
        BLOCKS
        + """
    @pytest.mark.no_slow_sessions
    def test_menu():
        asyncio.run(main())
        raise ValueError("its own")
    """
    )
    result = suite()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E *ValueError: its own", "*Captured slow sessions call*", f"    *:{LOOK_UP} in look_up"]
    )


def test_a_fixture_that_blocks_is_an_error_in_setup(pytester: pytest.Pytester, suite: Run) -> None:
    """The test that asks for it says so, and does not run."""
    pytester.makepyfile(
        BLOCKS
        + """
    @pytest.fixture
    def menu():
        asyncio.run(main())

    @pytest.mark.no_slow_sessions
    def test_menu(menu):
        pass
    """
    )
    result = suite()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*ERROR at setup of test_menu*", f"    *:{LOOK_UP} in look_up"])


@pytest.mark.parametrize("arguments", ["5", "threshold_ms=0", "threshold_ms='5'", "limit=5"])
def test_a_marker_that_is_not_understood_is_an_error(pytester: pytest.Pytester, suite: Run, arguments: str) -> None:
    """It says what was given and what is accepted."""
    pytester.makepyfile(
        f"""
    import pytest

    @pytest.mark.no_slow_sessions({arguments})
    def test_menu():
        pass
    """
    )
    result = suite()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"@pytest.mark.no_slow_sessions({arguments}); accepted: threshold_ms=*"])


def test_a_marked_test_in_which_no_loop_was_watched_is_told_of(pytester: pytest.Pytester, suite: Run) -> None:
    """A marker that watches nothing does not pass in silence."""
    pytester.makepyfile(
        """
    import pytest

    @pytest.mark.no_slow_sessions
    def test_menu():
        pass
    """
    )
    result = suite()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["marked, but no event loop was watched in: *::test_menu"])


def test_a_closed_loop_is_freed_in_the_middle_of_a_test(pytester: pytest.Pytester, suite: Run) -> None:
    """As without the plugin, and what blocked it is told all the same."""
    pytester.makepyfile(
        """
    import asyncio
    import gc
    import time
    import weakref

    import pytest

    async def main():
        time.sleep(0.2)
        return weakref.ref(asyncio.get_running_loop())

    @pytest.mark.no_slow_sessions
    def test_menu():
        for _ in range(3):
            loop = asyncio.run(main())
            gc.collect()
            assert loop() is None
    """
    )
    result = suite()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*time.sleep(0.2)*"])
    assert "assert loop() is None" not in "".join(line for line in result.outlines if line.startswith(">"))


def test_a_loop_that_cannot_be_watched_is_told_of_and_the_test_goes_on(pytester: pytest.Pytester, suite: Run) -> None:
    """Such as one whose methods cannot be replaced."""
    pytester.makepyfile(
        """
    import asyncio
    import pytest

    class Loop(asyncio.SelectorEventLoop):
        def __setattr__(self, name, value):
            if name == "create_task":
                raise AttributeError("read-only")
            super().__setattr__(name, value)

    @pytest.mark.no_slow_sessions
    def test_menu():
        with asyncio.Runner(loop_factory=Loop) as runner:
            assert runner.run(asyncio.sleep(0, "slept")) == "slept"
    """
    )
    result = suite()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["could not be watched: *.Loop: AttributeError('read-only')"])


# --- faults of its own -------------------------------------------------------------------------------

PARTS: dict[str, dict[str, int]] = {
    "_watch.Watcher.__enter__": {"errors": 1},
    "_watch.Watcher._mirror_scopes": {"errors": 1},
    "_watch.Watcher.__exit__": {"passed": 1, "errors": 1},
    "_watch._end": {"passed": 1, "errors": 1},
    "_watch.Watcher.found": {"errors": 2},
    "_watch.Watch.new_blocks": {"passed": 1},
    "_watch.Watch.begin": {"passed": 1},
    "_watch.Watcher._mirror_of": {"passed": 1},
    "plugin.allowing": {"failed": 1},
    "plugin._add_findings": {"errors": 2},
    "_suite.Finding": {"failed": 1},
    "_suite.by_place": {"passed": 1},
    "_suite.Suite._stale": {"passed": 1},
    "_watch.end_threads": {"passed": 1},
}
"""What is made to raise, and how the one test ends that it happens in."""


@pytest.mark.parametrize("part", PARTS)
def test_a_fault_of_the_plugins_own_is_one_tests_or_is_told_and_never_ends_the_run(
    pytester: pytest.Pytester, suite: Run, part: str
) -> None:
    """What runs after it runs as without it, and all is as it was."""
    module, _, name = part.partition(".")
    pytester.makeconftest(
        f"""
    from operator import attrgetter
    from openrtc_introspect_testing import {module} as module
    from openrtc_introspect_testing import _suite, _watch

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
    threshold_ms = 100 if part in ("plugin.allowing", "_suite.Finding") else 60_000
    pytester.makepyfile(
        BLOCKS
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

    options = ["--slow-sessions=100"] if part == "_suite.by_place" else []
    lasting = part in ("_watch.Watcher.__exit__", "_watch._end", "_watch.end_threads")  # what was begun does not end
    result = run_suite(pytester.runpytest_subprocess, *options) if lasting else suite(*options)
    assert before == [vars(asyncio.Runner)["run"], vars(asyncio.BaseEventLoop)["run_forever"], list(sys.meta_path)]
    expected = {"passed": 0, "errors": 0, "failed": 0} | PARTS[part]
    result.assert_outcomes(**{**expected, "passed": expected["passed"] + 1})
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    assert "not today" in result.stdout.str()


def test_a_failure_of_the_tests_own_is_told_first_where_the_plugin_fails_as_well(
    pytester: pytest.Pytester, suite: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the plugin's beside it."""
    pytester.makepyfile(
        """
    import pytest

    @pytest.mark.no_slow_sessions
    def test_menu(request):
        request.node.broken = True
        raise ValueError("the test's own")
    """
    )
    found = Watcher.found

    def broken(watcher: Watcher) -> Any:
        if sys.exc_info()[0] is not None:
            raise LookupError("not today")
        return found(watcher)

    monkeypatch.setattr(Watcher, "found", broken)
    result = suite()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E * ValueError: the test's own", "*slow sessions*", "LookupError: not today"])


# --- leaving no trace --------------------------------------------------------------------------------


def test_where_it_is_not_used_nothing_is_imported_or_touched(pytester: pytest.Pytester) -> None:
    """Installing the package costs a suite that does not use it neither time nor a changed method."""
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
    run_suite(pytester.runpytest_subprocess, "-p", "no:anyio").assert_outcomes(passed=1)


def test_the_package_works_without_pytest() -> None:
    """Only the plugin needs it: everything that the package offers loads where there is none."""
    code = (
        "import sys; sys.modules['pytest'] = None; from openrtc_introspect_testing import *; print(FakeLoop.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "FakeLoop" in done.stdout


def test_after_a_watched_test_everything_is_as_it_was(pytester: pytest.Pytester, suite: Run) -> None:
    """Methods, scopes and, at the end, threads."""
    pytester.makeconftest(
        """
    import asyncio, sys, threading
    import trio
    from openrtc_introspect_core._scope import SessionScope

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
        assert not [each for each in threading.enumerate() if each.name.startswith("openrtc-introspect")]
        print("as it was")
    """
    )
    pytester.makepyfile(
        BLOCKS
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


# --- the fixture -------------------------------------------------------------------------------------


def test_the_fixture_in_a_sync_test_measures_the_loop_that_it_runs(pytester: pytest.Pytester, suite: Run) -> None:
    """asyncio.run inside is enough; afterwards what was found can still be read."""
    pytester.makepyfile(
        BLOCKS
        + """
    def test_menu(introspector):
        async def program():
            with introspector.session("job-1", agent_name="restaurant"):
                await asyncio.create_task(main())
        asyncio.run(program())
        assert [block.session_id for block in introspector.blocks() if block.duration_ms > 400] == ["job-1"]
        assert introspector.socket_path is None
    """
    )
    suite().assert_outcomes(passed=1)


def test_the_fixture_says_so_on_another_loop_than_its_own(pytester: pytest.Pytester, suite: Run) -> None:
    """A session there would be measured by nobody."""
    pytester.makepyfile(
        """
    import asyncio
    import pytest
    from openrtc_introspect_core import StateError

    def test_menu(introspector):
        async def program():
            with introspector.session("job-1", agent_name="restaurant"):
                pass
        with pytest.raises(StateError, match="is not started"):
            introspector.session("job-1", agent_name="restaurant")
        asyncio.run(program())
        with pytest.raises(StateError, match="this is another one"):
            asyncio.run(program())
    """
    )
    suite().assert_outcomes(passed=1)


def test_with_anyios_plugin_the_fixture_is_on_the_tests_loop(pytester: pytest.Pytester, suite: Run) -> None:
    """With async fixtures as well, on uvloop and on Trio."""
    pytester.makepyfile(
        """
    import time
    import anyio, pytest

    @pytest.fixture(params=["asyncio", ("asyncio", {"use_uvloop": True}), "trio"], ids=["asyncio", "uvloop", "trio"])
    def anyio_backend(request):
        return request.param

    @pytest.fixture
    async def session(introspector):
        with introspector.session("job-1", agent_name="restaurant"):
            yield

    @pytest.mark.anyio
    async def test_menu(introspector):
        with introspector.session("job-1", agent_name="restaurant"):
            await anyio.sleep(0)
            time.sleep(0.5)
            await anyio.sleep(0)
        assert [block.session_id for block in introspector.blocks() if block.duration_ms > 400] == ["job-1"]

    @pytest.mark.no_slow_sessions
    @pytest.mark.anyio
    async def test_marked(session):
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, time.sleep, 0.1)
    """
    )
    suite().assert_outcomes(passed=6)


# --- Trio --------------------------------------------------------------------------------------------

ON_TRIO = """
    import threading, time
    import pytest, trio, trio.testing

    def look_up():
        time.sleep(0.5)

    async def main():
        look_up()
"""


def test_a_block_on_any_trio_run_that_begins_during_the_test_is_found(pytester: pytest.Pytester, suite: Run) -> None:
    """However it is begun, in whatever thread, a guest's as well; told as on asyncio."""
    pytester.makepyfile(
        ON_TRIO
        + """
    from queue import Queue
    from trio import run

    pytestmark = pytest.mark.no_slow_sessions

    def test_run():
        trio.run(main)

    def test_imported_by_name():
        run(main)

    def test_child():
        async def parent():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(main)
        trio.run(parent)

    def test_thread():
        thread = threading.Thread(target=trio.run, args=[main])
        thread.start()
        thread.join()

    def test_guest():
        turns, done = Queue(), []
        trio.lowlevel.start_guest_run(main, run_sync_soon_threadsafe=turns.put, done_callback=done.append)
        while not done:
            turns.get()()

    def test_jumping_clock():
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    """
    )
    result = suite()
    result.assert_outcomes(failed=6)
    told = [line for line in result.outlines if line.endswith(f".py:{LOOK_UP} in look_up")]
    assert len(told) == 6
    assert sum(line.startswith("no session (task ") for line in result.outlines) == 6


def test_trio_is_watched_where_only_the_test_itself_imports_it(pytester: pytest.Pytester) -> None:
    """The plugin imports it for nobody, and notices who does."""
    pytester.makepyfile(
        """
    import sys, time
    import pytest

    async def main():
        time.sleep(0.5)

    @pytest.mark.no_slow_sessions
    def test_menu():
        assert "trio" not in sys.modules
        import trio
        assert type(trio.__spec__.loader).__name__ == "SourceFileLoader"
        trio.run(main)

    @pytest.mark.no_slow_sessions
    def test_other():
        pass
    """
    )
    result = run_suite(pytester.runpytest_subprocess, "-p", "no:anyio")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["no session (task *main) blocked it for * ms: sync-call", "*_only_the_*.py:5 in main"])


def test_the_fixture_in_a_sync_test_measures_the_trio_run_that_it_starts(pytester: pytest.Pytester, suite: Run) -> None:
    """trio.run inside is enough; on another run than its own it says so."""
    pytester.makepyfile(
        ON_TRIO
        + """
    from openrtc_introspect_core import StateError

    def test_menu(introspector):
        async def program():
            with introspector.session("job-1", agent_name="restaurant"):
                await main()
        trio.run(program)
        assert [block.session_id for block in introspector.blocks() if block.session_id] == ["job-1"]
        with pytest.raises(StateError, match="this is another one"):
            trio.run(program)
    """
    )
    suite().assert_outcomes(passed=1)


def test_the_programs_own_session_is_named_on_trio(pytester: pytest.Pytester, suite: Run) -> None:
    """Whoever's introspector it is, and an entry of the allow-list lets its block pass."""
    pytester.makepyfile(
        ON_TRIO
        + """
    from openrtc_introspect_core import Introspector

    @pytest.mark.no_slow_sessions
    def test_menu():
        async def program():
            async with Introspector(socket_path=False, slow_session_threshold_ms=10_000) as introspector:
                with introspector.session("job-1", agent_name="restaurant"):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(main)
                assert introspector.blocks() == []
        trio.run(program)
    """
    )
    result = suite()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["session job-1 (restaurant) blocked it for * ms: sync-call", "*fix: await trio.sleep(*"]
    )
    pytester.makeini("[pytest]\nslow_sessions_allow =\n    *.py:look_up  # until there is an async client\n")
    suite().assert_outcomes(passed=1)


def test_a_run_that_is_older_than_the_test_is_watched_from_its_next_turn(pytester: pytest.Pytester, suite: Run) -> None:
    """anyio's plugin keeps one for the fixtures of a module. At its turn after the test nothing is attached."""
    pytester.makepyfile(
        ON_TRIO
        + """
    import anyio

    @pytest.fixture(scope="module")
    def anyio_backend():
        return "trio"

    @pytest.fixture(scope="module", autouse=True)
    async def worker(anyio_backend):
        yield

    @pytest.mark.anyio
    async def test_before():
        look_up()

    @pytest.mark.anyio
    async def test_fixture(introspector):
        with introspector.session("job-1", agent_name="restaurant"):
            await anyio.sleep(0)
            look_up()
            await anyio.sleep(0)
        assert [block.session_id for block in introspector.blocks() if block.session_id] == ["job-1"]

    @pytest.mark.no_slow_sessions
    @pytest.mark.anyio
    async def test_marked():
        await anyio.sleep(0)
        look_up()
    """
    )
    result = suite()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines([f"    *:{LOOK_UP} in look_up"])
    assert [each.name for each in threading.enumerate() if each.name.startswith("openrtc-introspect")] == []


@needs_pytest_trio
def test_with_pytest_trio_the_fixture_is_on_the_tests_run(pytester: pytest.Pytester) -> None:
    """With an async fixture of its own, and a clock that jumps."""
    pytester.makepyfile(
        ON_TRIO
        + """
    @pytest.fixture
    async def session(introspector):
        with introspector.session("job-1", agent_name="restaurant"):
            yield

    @pytest.mark.trio
    async def test_menu(introspector, autojump_clock):
        with introspector.session("job-2", agent_name="restaurant"):
            await trio.sleep(3600)
            look_up()
            await trio.sleep(0)
        assert [block.session_id for block in introspector.blocks() if block.session_id] == ["job-2"]

    @pytest.mark.no_slow_sessions
    @pytest.mark.trio
    async def test_marked(session):
        look_up()
    """
    )
    result = run_suite(pytester.runpytest_subprocess, pytest_trio=True)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["* blocked it for * ms: sync-call", f"    *:{LOOK_UP} in look_up"])


@needs_asyncio
@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_with_pytest_asyncio_the_fixture_is_on_the_tests_loop(pytester: pytest.Pytester, suite: Run, mode: str) -> None:
    """In both modes, with an async fixture and on a loop that the whole session shares."""
    pytester.makepyfile(
        """
    import asyncio, time
    import pytest, pytest_asyncio

    @pytest_asyncio.fixture(loop_scope="session", scope="session")
    async def worker():
        async def run():
            while True:
                await asyncio.sleep(0.01)
                if asks:
                    time.sleep(asks.pop())
        task = asyncio.create_task(run(), name="worker")
        yield
        task.cancel()

    asks = []

    @pytest.mark.asyncio
    async def test_menu(introspector):
        with introspector.session("job-1", agent_name="restaurant"):
            await asyncio.sleep(0)
            time.sleep(0.5)
            await asyncio.sleep(0)
        assert [block.session_id for block in introspector.blocks() if block.duration_ms > 400] == ["job-1"]

    @pytest.mark.asyncio(loop_scope="session")
    async def test_shared(worker, introspector):
        with introspector.session("job-2", agent_name="restaurant"):
            await asyncio.sleep(0.1)

    @pytest.mark.no_slow_sessions
    @pytest.mark.asyncio(loop_scope="session")
    async def test_marked(worker):
        asks.append(0.5)
        while asks:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
    """
    )
    result = suite(asyncio_mode=mode)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["no session (task worker) blocked it for * ms: sync-call", "*time.sleep(asks.pop())"])


# --- the whole suite ---------------------------------------------------------------------------------

SUITE = (
    BLOCKS
    + """
    @pytest.mark.parametrize("number", range(3))
    def test_menu(number):
        asyncio.run(main())

    def test_quick():
        asyncio.run(asyncio.sleep(0))

    def test_sync():
        pass
"""
)
ONE = (
    BLOCKS
    + """
    @pytest.mark.no_slow_sessions
    def test_one():
        asyncio.run(main())
"""
)
REPORT = [
    "*= slow sessions =*",
    "3 blocks of more than 400 ms at 1 place, in 3 of 4 tests that ran an event loop",
    f"* ms     3×  *.py:{LOOK_UP} in look_up  (sync-call)",
    "*time.sleep(0.5)",
    "*tests: *::test_menu[[]0], *::test_menu[[]1], *::test_menu[[]2]",
]


def test_the_option_watches_all_tests_and_reports_at_the_end(pytester: pytest.Pytester, suite: Run) -> None:
    """Each line once, with how often and in which tests; the tests pass, and the run fails."""
    pytester.makepyfile(SUITE)
    result = suite("--slow-sessions=400")
    result.assert_outcomes(passed=5)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(REPORT)


@needs_xdist
def test_with_pytest_xdist_failures_and_report_are_the_same(pytester: pytest.Pytester) -> None:
    """What its workers found is one report, and what none of them let pass is told of."""
    pytester.makepyfile(test_all=SUITE, test_one=ONE)
    pytester.makeini("[pytest]\nslow_sessions_allow = gone.py:*  # an entry that matches nothing\n")
    result = run_suite(pytester.runpytest_subprocess, "--slow-sessions=400", "-n2")
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
    """It says what is accepted."""
    result = suite(f"--slow-sessions={value}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*'{value}' is no number of milliseconds; accepted: more than 0, such as 50"])


# --- the allow-list ----------------------------------------------------------------------------------


def test_an_entry_that_matches_lets_the_block_pass(pytester: pytest.Pytester, suite: Run) -> None:
    """For the marker and for the option; the report counts it."""
    pytester.makepyfile(
        test_all=SUITE,
        test_one=ONE,
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
    ("strict", "code", "told"),
    [("false", pytest.ExitCode.OK, "take it out"), ("true", pytest.ExitCode.TESTS_FAILED, "fails the run")],
)
def test_an_entry_that_never_matches_is_told_of(
    pytester: pytest.Pytester, suite: Run, strict: str, code: int, told: str
) -> None:
    """And where the setting says so, it fails the run."""
    pytester.makepyfile("import asyncio\ndef test_quick(): asyncio.run(asyncio.sleep(0))")
    pytester.makeini(
        f"[pytest]\nslow_sessions_strict = {strict}\nslow_sessions_allow = agents/*.py:look_up  # was mended\n"
    )
    result = suite("--slow-sessions=5000")
    assert result.ret == code
    result.stdout.fnmatch_lines([f"slow_sessions_allow: nothing matched 'agents/?.py:look_up  # was mended': {told}"])


@pytest.mark.parametrize("part", [["test_it.py"], ["-k", "quick"]], ids=["a file", "by name"])
def test_a_run_of_a_part_of_the_suite_says_nothing_of_entries(
    pytester: pytest.Pytester, suite: Run, part: list[str]
) -> None:
    """They may be for what did not run."""
    pytester.makepyfile(
        test_it="import asyncio\ndef test_quick(): asyncio.run(asyncio.sleep(0))\ndef test_other(): pass"
    )
    pytester.makeini("[pytest]\nslow_sessions_strict = true\nslow_sessions_allow = agents/*.py:look_up\n")
    result = suite("--slow-sessions=5000", *part)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("*nothing matched*")


def test_an_entry_that_is_none_is_refused(pytester: pytest.Pytester, suite: Run) -> None:
    """Before any test runs, with what is accepted."""
    pytester.makeini("[pytest]\nslow_sessions_allow = agents.py\n")
    result = suite()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*slow_sessions_allow has 'agents.py'; accepted: path:function or path:line*"])


# --- wording and judging -----------------------------------------------------------------------------


def finding(**changes: Any) -> Finding:
    known: dict[str, Any] = {
        "session_id": None,
        "agent_name": None,
        "task_name": None,
        "duration_ms": 100.0,
        "cause": "sync-call",
        "detail": None,
        "file": "agents/menu.py",
        "line": 42,
        "function": "Menu.look_up",
        "source": "",
        "fix": "",
    }
    return Finding(**known | changes)


@pytest.mark.parametrize("cause", ["gc", "gil-contention", "descheduled"])
def test_what_no_code_under_test_did_is_held_against_none(cause: str) -> None:
    """A busy machine does not fail a suite."""
    assert finding().counts
    assert not finding(cause=cause).counts


def test_a_block_that_cannot_be_placed_does_not_count_unless_it_is_a_burst() -> None:
    """Nobody could mend it; a burst has no single place."""
    assert not finding(file=None).counts
    assert finding(file=None, cause="burst").counts


def test_without_a_gil_blocks_count_although_their_line_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else could fail a test there; who it was, and for how long, is known."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert finding(file=None).counts
    assert not finding(file=None, cause="gc").counts
    assert not finding(file=None, cause=None).counts


@pytest.mark.parametrize(
    ("entry", "matches"),
    [
        ("agents/menu.py:42", True),
        ("agents/menu.py:4", False),
        ("agents/*.py:look_up", True),
        ("*:Menu.look_up", True),
        ("*:Menu.*", True),
        ("menu.py:look_up", False),
        ("agents/menu.py:look", False),
    ],
)
def test_an_entry_matches_by_path_and_line_or_function(entry: str, matches: bool) -> None:
    """A function by its name or its qualified name; the whole of both, but for what * stands for."""
    assert Allowed.parse(f"{entry}  # why").matches(finding()) is matches


@pytest.mark.parametrize(
    ("cause", "called", "source", "fix"),
    [
        ("sync-call", ["socket.py", "http/client.py", "requests/sessions.py"], "", "an async HTTP client"),
        ("sync-call", ["selectors.py", "subprocess.py"], "", "await asyncio.create_subprocess_exec"),
        ("sync-call", ["socket.py"], "", "asyncio's streams"),
        ("sync-call", ["mysocket.py"], "", "await asyncio.to_thread"),
        ("sync-call", [], "time.sleep(1)", "await asyncio.sleep"),
        ("cpu", [], "", "process pool"),
        ("import", [], "", "when the worker starts"),
        ("burst", [], "", "spread what the sessions do"),
        ("callback", [], "", "as short as a task's step"),
        (None, [], "", "asyncio.to_thread"),
    ],
)
def test_the_fix_goes_by_the_cause_and_by_what_is_called(
    cause: str | None, called: list[str], source: str, fix: str
) -> None:
    """One line says what to write instead."""
    assert fix in fix_of(cause, called, source)


def test_on_trio_the_fix_names_what_trio_calls_it() -> None:
    """asyncio's functions do not work there."""
    assert fix_of("sync-call", [], "time.sleep(1)", on_trio=True) == "await trio.sleep(...)"
    assert "trio.to_thread.run_sync(" in fix_of("sync-call", [], "", on_trio=True)
    assert "asyncio" not in fix_of("sync-call", ["socket.py"], "", on_trio=True)
