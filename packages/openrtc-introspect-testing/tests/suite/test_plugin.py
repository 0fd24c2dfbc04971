"""The marker and the fixture, used by suites of their own."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import pytest

pytest_plugins = "pytester"

Run = Callable[..., pytest.RunResult]
needs_asyncio = pytest.mark.skipif(find_spec("pytest_asyncio") is None, reason="pytest-asyncio is not installed")

LOOK_UP = 5
"""The line that blocks."""


# --- the marker -----------------------------------------------------------------------------------


def test_a_marked_test_that_blocks_the_loop_fails_with_line_cause_and_fix(
    pytester: pytest.Pytester, suite: Run, blocking: str
) -> None:
    """The failure has fewer than ten lines, and one of them says what to do."""
    pytester.makepyfile(
        blocking
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
    shown = lines[first + 1 : next(index for index, line in enumerate(lines) if "short test summary" in line)]
    assert len(shown) < 10
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


def test_the_session_is_named_whoevers_introspector_it_is(pytester: pytest.Pytester, suite: Run, blocking: str) -> None:
    """The plugin learns of the sessions of the program's own introspector, and adds nothing to its accounts."""
    pytester.makepyfile(
        blocking
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


def test_a_block_on_any_loop_that_runs_during_the_test_is_found(
    pytester: pytest.Pytester, suite: Run, blocking: str
) -> None:
    """It is found however the loop was made, and in any thread; outside of sessions it is unattributed."""
    pytester.makepyfile(
        blocking
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
    shown = [line for line in result.outlines if line.endswith(f".py:{LOOK_UP} in look_up")]
    assert len(shown) == 8
    assert sum(line.startswith("no session") for line in result.outlines) == 8


def test_a_librarys_block_is_reported_at_the_users_line(pytester: pytest.Pytester, suite: Run) -> None:
    """The user cannot change the library; the fix is another call in its place."""
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


def test_what_stays_below_the_threshold_passes(pytester: pytest.Pytester, suite: Run, blocking: str) -> None:
    """The marker's threshold counts."""
    pytester.makepyfile(
        blocking
        + """
    @pytest.mark.no_slow_sessions(threshold_ms=60_000)
    def test_menu():
        asyncio.run(main())
    """
    )
    suite().assert_outcomes(passed=1)


def test_virtual_time_of_a_fake_loop_is_no_block(pytester: pytest.Pytester, suite: Run) -> None:
    """The plugin is on the real clock; an introspector on the loop's clock finds a virtual block."""
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


def test_a_failure_of_the_tests_own_stays_with_the_block_beside_it(
    pytester: pytest.Pytester, suite: Run, blocking: str
) -> None:
    """The block may be why the test failed."""
    pytester.makepyfile(
        blocking
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


def test_a_fixture_that_blocks_is_an_error_in_setup(pytester: pytest.Pytester, suite: Run, blocking: str) -> None:
    """The test that uses the fixture reports it, and does not run."""
    pytester.makepyfile(
        blocking
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
    """The error shows the arguments and what is accepted."""
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


def test_a_marked_test_in_which_no_loop_ran_is_reported(pytester: pytest.Pytester, suite: Run) -> None:
    """A marker without effect does not pass in silence."""
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
    """It is freed as without the plugin, and its blocks are reported all the same."""
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
            deadline = time.monotonic() + 60
            gc.collect()
            while loop() is not None and time.monotonic() < deadline:  # another thread may be looking at its last frame
                time.sleep(0.01)
                gc.collect()
            assert loop() is None
    """
    )
    result = suite()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*time.sleep(0.2)*"])
    assert "assert loop() is None" not in "".join(line for line in result.outlines if line.startswith(">"))


def test_a_loop_that_cannot_be_watched_is_reported_and_the_test_goes_on(pytester: pytest.Pytester, suite: Run) -> None:
    """An example is a loop whose methods cannot be replaced."""
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


# --- the fixture ----------------------------------------------------------------------------------


def test_the_fixture_in_a_sync_test_measures_the_loop_that_it_runs(
    pytester: pytest.Pytester, suite: Run, blocking: str
) -> None:
    """asyncio.run inside is enough; the blocks can still be read afterwards."""
    pytester.makepyfile(
        blocking
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
    """No introspector would measure a session there."""
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
    """It is with async fixtures as well, on uvloop and on Trio."""
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


@needs_asyncio
@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_with_pytest_asyncio_the_fixture_is_on_the_tests_loop(pytester: pytest.Pytester, suite: Run, mode: str) -> None:
    """It is in both modes, with an async fixture and on a loop that the whole session shares."""
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
