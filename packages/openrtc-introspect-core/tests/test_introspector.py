from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import tempfile
import textwrap
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from openrtc_introspect_core import (
    ArgumentError,
    EndpointError,
    Introspector,
    StateError,
    current_session,
    read_blocks,
    read_snapshot,
)
from openrtc_introspect_core._log import flush
from openrtc_introspect_testing._backends import Backend, in_task
from openrtc_introspect_testing._clock import FakeClock
from openrtc_introspect_testing._threads import ours_end

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short private directory that workers of this test put their sockets in."""
    with tempfile.TemporaryDirectory(prefix="rt") as directory:
        monkeypatch.setenv("OPENRTC_RUNTIME_DIR", directory)
        yield Path(directory)


def nothing_left(directory: Path) -> bool:
    """No file now, and soon no thread."""
    return not list(directory.iterdir()) and ours_end()


def test_the_five_lines_of_the_readme_work(on_any_loop: Backend, runtime_dir: Path) -> None:
    """Attach, open a scope, work; a reader in another thread sees the session, and nothing is left after."""

    async def main() -> Any:
        async with Introspector() as introspector:
            path = introspector.socket_path
            assert path is not None
            with introspector.session("job-c1d550", agent_name="restaurant", metadata={"tenant": "acme"}) as session:
                assert current_session() is session
                snapshot = await anyio.to_thread.run_sync(read_snapshot, path)
                mode = stat.S_IMODE(path.stat().st_mode)
            assert current_session() is None
            return snapshot, path.name, mode

    snapshot, name, mode = on_any_loop(main())
    (row,) = snapshot.sessions
    assert (row.session_id, row.agent_name, row.tenant) == ("job-c1d550", "restaurant", "acme")
    assert row.cpu_s > 0
    assert (name, mode) == (f"worker-{os.getpid()}.sock", 0o600)
    assert nothing_left(runtime_dir)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"slow_session_threshold_ms": 0}, r"slow_session_threshold_ms must be greater than 0, got 0$"),
        ({"slow_session_threshold_ms": -1.5}, r"greater than 0, got -1\.5$"),
        ({"slow_session_threshold_ms": float("nan")}, "greater than 0, got nan$"),
        ({"slow_session_threshold_ms": "50"}, "must be a number, got '50'$"),
        ({"slow_session_threshold_ms": True}, "must be a number, got True$"),
        ({"slow_status_s": -1}, "slow_status_s must be 0 or more, got -1$"),
        ({"memory_interval_s": 0}, r"memory_interval_s must be 0\.01 or more, got 0$"),
        ({"sample_interval_s": 0}, r"sample_interval_s must be 0\.001 or more, got 0$"),
        ({"memory_limit_mb": -1}, "memory_limit_mb must be 0 or more, got -1$"),
        ({"max_sessions": -1}, r"max_sessions must be 0 \(no limit\) or more, got -1$"),
        ({"max_sessions": 1.5}, r"max_sessions must be an int, got 1\.5$"),
        ({"cpu": "fast"}, "cpu must be 'exact' or 'sampled' or 'off', got 'fast'$"),
        ({"memory": "all"}, "memory must be 'share' or 'heap' or 'traced', got 'all'$"),
        ({"name": ""}, "name must have 1 to 256 characters, got an empty one$"),
        ({"name": "a\x1bb"}, r"name must be at most 64 printable characters, got 'a\\x1bb'$"),
        ({"socket_path": 7}, r"socket_path must be a path, None .* or False .*, got 7$"),
        ({"socket_path": "/" + "x" * 200}, r"is 201 bytes long; at most 10[37] are possible: set"),
    ],
)
def test_bad_arguments_are_told_in_one_line(arguments: dict[str, Any], told: str) -> None:
    """What was given, what is accepted; before anything has started."""
    with pytest.raises(ArgumentError, match=told) as caught:
        Introspector(**arguments)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            lambda i: i.session("", agent_name="a"),
            "session_id must have 1 to 256 characters, got an empty one",
        ),
        (
            lambda i: i.session("x" * 257, agent_name="a"),
            "session_id must have 1 to 256 .* got 257 characters",
        ),
        (lambda i: i.session(7, agent_name="a"), "session_id must be a str, got 7"),
        (lambda i: i.session("a", agent_name=""), "agent_name must have 1 to 256 characters"),
        (
            lambda i: i.session("a", agent_name="a", metadata=["x"]),
            r"metadata must be a mapping .* got \['x'\]",
        ),
        (lambda i: i.session("a", agent_name="a", metadata={"tenant": 7}), "tenant'] must be a str, got 7"),
        (lambda i: i.session("live", agent_name="a"), "session id 'live' is live already"),
    ],
)
def test_bad_sessions_are_told_in_one_line(call: Any, told: str, virtually: Backend) -> None:
    """And leave the live ones as they are."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("live", agent_name="a"):
                with pytest.raises(ArgumentError, match=told):
                    call(introspector)
                return [row.session_id for row in introspector.snapshot().sessions]

    assert virtually(main()) == ["live"]


def test_two_scopes_of_one_id_made_before_either_is_entered(virtually: Backend) -> None:
    """The second is refused when it is entered, and the first is not harmed."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            one = introspector.session("same", agent_name="a")
            two = introspector.session("same", agent_name="a")
            with one:
                with pytest.raises(ArgumentError, match="live already"), two:
                    pass
                assert current_session() is not None
                return len(introspector.snapshot().sessions)

    assert virtually(main()) == 1


def test_a_scope_is_entered_once(virtually: Backend) -> None:
    """A second time is an error."""

    async def main() -> None:
        async with Introspector(socket_path=False) as introspector:
            scope = introspector.session("a", agent_name="a")
            with scope:
                pass
            with pytest.raises(StateError, match="was entered already"), scope:
                pass

    virtually(main())


def test_it_starts_once(virtually: Backend) -> None:
    """While it runs, and after it ended, a second start is refused and changes nothing."""

    async def main() -> None:
        introspector = Introspector(socket_path=False)
        async with introspector:
            with pytest.raises(StateError, match="'worker' is attached already to "):
                introspector.attach()
            with pytest.raises(StateError, match="'worker' is attached already: make a new one"):
                await introspector.__aenter__()
            with introspector.session("still", agent_name="works"):
                pass
        with pytest.raises(StateError, match="'worker' is closed: make a new one"):
            async with introspector:
                pass
        await introspector.aclose()

    virtually(main())


def test_a_session_needs_a_started_introspector() -> None:
    """Before, the error says what is missing."""
    with pytest.raises(StateError, match="is not started: its sessions go inside `async with"):
        Introspector().session("a", agent_name="a")


def test_without_a_loop_it_does_not_start() -> None:
    """The error says so, and nothing is left."""
    with pytest.raises(StateError, match="no event loop is running here"):
        Introspector().attach()


def test_a_session_that_outlives_the_introspector_ends_quietly(virtually: Backend) -> None:
    """Its scope may be left after the introspector has been closed."""

    async def main() -> Any:
        introspector = Introspector(socket_path=False)
        await introspector.__aenter__()
        scope = introspector.session("a", agent_name="a")
        scope.__enter__()
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 1)
            await introspector.aclose()
        scope.__exit__(None, None, None)
        return current_session()

    assert virtually(main()) is None


def test_a_scope_left_in_another_task_is_ended(virtually: Backend) -> None:
    """As generators and exit stacks do: the session ends, and no error reaches the host."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            scope = introspector.session("a", agent_name="a")

            async def enter() -> None:
                scope.__enter__()

            async def leave() -> None:
                scope.__exit__(None, None, None)

            await in_task(enter)
            await in_task(leave)
            return introspector.snapshot().sessions

    assert virtually(main()) == []


def test_a_scope_entered_in_a_thread_binds_there(virtually: Backend) -> None:
    """`to_thread` work may open a session: it is listed, though its time is not loop time."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:

            def work() -> Any:
                with introspector.session("threaded", agent_name="a"):
                    session = current_session()
                    return session.session_id if session else None, len(introspector.snapshot().sessions)

            return await anyio.to_thread.run_sync(work)

    assert virtually(main()) == ("threaded", 1)


def test_exceptions_inside_our_own_never_reach_a_session(
    virtually: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Recording and scopes break: the sessions run on, each fault is logged once and noted."""

    async def main() -> Any:
        async with Introspector(socket_path=False, clock=virtually.clock) as introspector:

            def broken(*_: Any, **__: Any) -> Any:
                raise OSError("broken probe")

            monkeypatch.setattr(introspector._blocks, "record", broken)
            monkeypatch.setattr(introspector._loops[0].hook, "enter_scope", broken)
            monkeypatch.setattr(introspector._loops[0].hook, "leave_scope", broken)

            async def work() -> str:
                virtually.block(0.1)
                await anyio.sleep(0)
                virtually.block(0.1)
                return "done"

            results = []
            for n in range(3):
                with introspector.session(f"job-{n}", agent_name="a"):
                    results.append(await in_task(work))
            return results, introspector.snapshot().worker.notes

    results, notes = virtually(main())
    assert results == ["done"] * 3
    assert flush(60.0)
    assert len(notes) == len(caplog.records) == 2
    assert all("broken probe" in note for note in notes)


def test_failing_samples_switch_sampling_off_and_it_still_serves(
    on_timed_loops: Backend, runtime_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The service goes on without the probe; the note says what is missing."""

    async def main() -> Any:
        introspector = Introspector()

        def broken(now: float) -> None:
            raise OSError("no /proc")

        introspector._tick = broken  # type: ignore[method-assign]
        async with introspector:
            with introspector.session("a", agent_name="a"):
                while not introspector.snapshot().worker.notes:
                    await anyio.sleep(0.001)
                return await anyio.to_thread.run_sync(read_snapshot, introspector.socket_path)

    snapshot = on_timed_loops(main())
    assert snapshot.worker.notes == ["sampling is switched off: OSError('no /proc')"]
    assert [row.session_id for row in snapshot.sessions] == ["a"]
    assert flush(60.0)
    assert len(caplog.records) == 1


def test_a_socket_that_cannot_be_made_leaves_nothing(run_on_asyncio: Run, runtime_dir: Path) -> None:
    """The loop has no factory of ours, no thread runs, and the introspector may say why."""
    target = runtime_dir / "link"
    target.symlink_to(runtime_dir)

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        introspector = Introspector(socket_path=target / "worker.sock")
        with pytest.raises(EndpointError, match=r"link' is a symbolic link; a real directory is required"):
            await introspector.__aenter__()
        return (
            loop.get_task_factory(),
            introspector.socket_path,
            set(vars(loop)) & {"call_soon", "create_task", "run_forever", "run_in_executor"},
        )

    assert run_on_asyncio(main()) == (None, None, set())
    target.unlink()
    assert nothing_left(runtime_dir)


def test_another_worker_s_socket_of_the_same_name_is_left_alone(on_timed_loops: Backend, runtime_dir: Path) -> None:
    """Who put it there in place of ours finds it where it was."""

    async def main() -> Path:
        async with Introspector() as introspector:
            path = introspector.socket_path
            assert path is not None
            path.unlink()
            path.write_text("someone else's")
        return path

    path = on_timed_loops(main())
    assert path.read_text() == "someone else's"
    path.unlink()
    assert nothing_left(runtime_dir)


def test_a_failure_late_in_the_start_takes_everything_back(
    run_on_asyncio: Run, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket was made and the factory set when the thread could not start: both are gone."""
    from openrtc_introspect_core._service import Service

    def broken(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Service, "start", broken)

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        with pytest.raises(RuntimeError, match="can't start new thread"):
            async with Introspector(cpu="sampled"):
                pass
        return loop.get_task_factory(), set(vars(loop)) & {
            "call_soon",
            "create_task",
            "run_forever",
            "run_in_executor",
        }

    assert run_on_asyncio(main()) == (None, set())
    assert nothing_left(runtime_dir)


def test_a_forked_child_lets_go_of_everything(run_on_asyncio: Run, runtime_dir: Path) -> None:
    """The parent's socket stays, and the child's introspector does nothing any more."""
    code = """
        import asyncio, os, sys
        from openrtc_introspect_core import Introspector, StateError

        async def main():
            async with Introspector() as introspector:
                path = introspector.socket_path
                pid = os.fork()
                if pid == 0:
                    try:
                        introspector.session("a", agent_name="a")
                    except StateError:
                        introspector.close()
                        os._exit(0 if path.exists() else 2)
                    os._exit(3)
                _, status = os.waitpid(pid, 0)
                assert path.exists()
                return os.waitstatus_to_exitcode(status)

        sys.exit(asyncio.run(main()))
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)]
    assert subprocess.run(command, timeout=30, check=False).returncode == 0
    assert nothing_left(runtime_dir)


def test_close_is_for_hosts_without_a_running_loop(runtime_dir: Path) -> None:
    """It waits for the threads itself and leaves as little."""
    loop = asyncio.new_event_loop()
    introspector = Introspector()
    introspector.attach(loop)
    assert introspector.socket_path is not None
    introspector.close()
    introspector.close()
    loop.close()
    assert introspector.socket_path is None
    assert nothing_left(runtime_dir)


def test_the_end_does_not_wait_for_a_loop_s_cancellation(on_timed_loops: Backend, runtime_dir: Path) -> None:
    """A cancelled host still closes properly."""

    async def main() -> None:
        started = anyio.Event()

        async def host() -> None:
            async with Introspector():
                started.set()
                await anyio.sleep(60)

        async with anyio.create_task_group() as group:
            group.start_soon(host)
            await started.wait()
            group.cancel_scope.cancel()

    on_timed_loops(main())
    assert nothing_left(runtime_dir)


def test_blocks_are_read_from_another_thread_too(on_any_loop: Backend, runtime_dir: Path) -> None:
    """All that are kept, or those since a number."""

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(stacks=False, clock=clock) as introspector:
            with introspector.session("culprit", agent_name="a"):
                for _ in range(3):
                    clock.advance(0.2)
                    await anyio.sleep(0.001)
            everything = await anyio.to_thread.run_sync(read_blocks, introspector.socket_path)
            newer = await anyio.to_thread.run_sync(partial(read_blocks, introspector.socket_path, since=2))
            return everything, newer

    everything, newer = on_any_loop(main())
    assert [(block.seq, block.session_id) for block in everything.blocks] == [(n, "culprit") for n in (1, 2, 3)]
    assert ([block.seq for block in newer.blocks], newer.last_seq) == ([3], 3)
    with pytest.raises(ArgumentError, match="since must be 0 or more, got -1"):
        read_blocks("/nowhere", since=-1)


def broken(*arguments: Any, **options: Any) -> None:
    raise LookupError("not today")


PARTS: dict[str, Callable[[Introspector, Any], tuple[Any, str]]] = {
    "how tasks are created": lambda introspector, loop: (introspector._loops[0].hook._creation, "detach"),
    "the loop itself": lambda introspector, loop: (loop, "is_closed"),
    "the hook": lambda introspector, loop: (introspector._loops[0].hook, "detach"),
    "what older tasks' steps go through": lambda introspector, loop: (introspector._loops[0].hook._adopted, "clear"),
    "the executor": lambda introspector, loop: (introspector._loops[0], "_unwrap_executor"),
    "the watchdog": lambda introspector, loop: (introspector._watchdog, "unwatch"),
    "collections": lambda introspector, loop: (introspector._collections, "detach"),
    "memory": lambda introspector, loop: (introspector._heap, "stop"),
    "the socket": lambda introspector, loop: (introspector._socket, "remove"),
    "a thread's usage": lambda introspector, loop: (introspector._loops[0]._usage, "close"),
}


@pytest.mark.parametrize("part", PARTS)
def test_what_cannot_be_let_go_of_keeps_the_rest_from_nothing(
    part: str, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing goes on, raises nothing, notes it once with its traceback, and can be called again."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        introspector = Introspector(memory="traced", slow_session_threshold_ms=60_000)
        introspector.attach()
        with introspector.session("job-1", agent_name="test"):
            await asyncio.create_task(asyncio.sleep(0))
        owner, name = PARTS[part](introspector, loop)
        monkeypatch.setattr(owner, name, broken)
        await introspector.aclose()
        introspector.close()
        monkeypatch.undo()
        methods = ("call_soon", "create_task", "run_forever", "run_in_executor")
        touched = {name for name in methods if name in vars(loop)}
        if "select" in vars(loop._selector):
            touched.add("select")
        return touched, introspector.snapshot().worker.notes

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        touched, notes = runner.run(main())
    tracing = tracemalloc.is_tracing()
    tracemalloc.stop()
    assert touched == {
        "how tasks are created": {"create_task"},
        "the hook": {"create_task", "run_forever", "select"},
        "the executor": {"run_in_executor"},
    }.get(part, set())
    assert tracing == (part == "memory")
    assert ours_end()
    assert (list(runtime_dir.iterdir()) == []) == (part != "the socket")
    assert [note for note in notes if "could not be let go of altogether: LookupError('not today')" in note]
    logged = [record for record in caplog.records if "let go of" in record.message]
    assert [record.exc_info is not None for record in logged] == [True]
