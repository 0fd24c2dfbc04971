"""Blocks on Trio, found by the plugin in suites of their own."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import pytest

from openrtc_introspect_testing._loops.introspection_threads import ours

pytest_plugins = "pytester"

Run = Callable[..., pytest.RunResult]
needs_pytest_trio = pytest.mark.skipif(find_spec("pytest_trio") is None, reason="pytest-trio is not installed")
LOOK_UP = 5
"""The line that blocks."""

ON_TRIO = """
    import threading, time
    import pytest, trio, trio.testing

    def look_up():
        time.sleep(0.5)

    async def main():
        look_up()
"""


def test_a_block_on_any_trio_run_that_begins_during_the_test_is_found(pytester: pytest.Pytester, suite: Run) -> None:
    """It is found however the run begins, in any thread, in a guest run as well, and reported as on asyncio."""
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
    shown = [line for line in result.outlines if line.endswith(f".py:{LOOK_UP} in look_up")]
    assert len(shown) == 6
    assert sum(line.startswith("no session (task ") for line in result.outlines) == 6


def test_trio_is_watched_where_only_the_test_itself_imports_it(
    pytester: pytest.Pytester, suite_in_subprocess: Run
) -> None:
    """The plugin never imports Trio, and notices who does."""
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
    result = suite_in_subprocess("-p", "no:anyio")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["no session (task *main) blocked it for * ms: sync-call", "*_only_the_*.py:5 in main"])


def test_the_fixture_in_a_sync_test_measures_the_trio_run_that_it_starts(pytester: pytest.Pytester, suite: Run) -> None:
    """trio.run inside is enough; on another run the fixture raises an error."""
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
    """It is whichever introspector the session has, and an entry of the allow-list accepts its block."""
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
    assert ours() == []


@needs_pytest_trio
def test_with_pytest_trio_the_fixture_is_on_the_tests_run(pytester: pytest.Pytester, suite_in_subprocess: Run) -> None:
    """It is with an async fixture, and with a clock that jumps."""
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
    result = suite_in_subprocess(pytest_trio=True)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["* blocked it for * ms: sync-call", f"    *:{LOOK_UP} in look_up"])
