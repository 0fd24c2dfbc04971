from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.to_thread
import pytest

from openrtc_introspect_core import (
    ArgumentError,
    EndpointError,
    Introspector,
    StateError,
    _native,
    current_session,
    read_blocks,
    read_snapshot,
)
from openrtc_introspect_core._base.log import flush
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._service import introspection
from openrtc_introspect_testing._loops.backends import Backend, in_task
from openrtc_introspect_testing._loops.fake_clock import FakeClock
from openrtc_introspect_testing._loops.introspection_threads import ours_end

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def nothing_left(directory: Path) -> bool:
    """Return whether there is no file now, and soon no thread."""
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
    ("call", "message"),
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
def test_bad_sessions_are_described_in_one_line(call: Any, message: str, virtually: Backend) -> None:
    """The live sessions stay as they are."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            with introspector.session("live", agent_name="a"):
                with pytest.raises(ArgumentError, match=message):
                    call(introspector)
                return [row.session_id for row in introspector.snapshot().sessions]

    assert virtually(main()) == ["live"]


def test_it_starts_once(virtually: Backend) -> None:
    """A second start is refused while it runs and after its end, and changes nothing."""

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
    """Before the start, the error says what is missing."""
    with pytest.raises(StateError, match="is not started: its sessions go inside `async with"):
        Introspector().session("a", agent_name="a")


def test_without_a_loop_it_does_not_start() -> None:
    """The error says so, and nothing is left."""
    with pytest.raises(StateError, match="no event loop is running here"):
        Introspector().attach()


def test_exceptions_inside_our_own_never_reach_a_session(
    virtually: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If recording and scopes fail, the sessions go on, and each fault is logged once and noted."""

    async def main() -> Any:
        async with Introspector(socket_path=False, clock=virtually.clock) as introspector:

            def broken(*_: Any, **__: Any) -> Any:
                raise OSError("broken probe")

            monkeypatch.setattr(parts_of(introspector).shared.history, "record", broken)
            monkeypatch.setattr(parts_of(introspector).loops[0].hook, "enter_scope", broken)
            monkeypatch.setattr(parts_of(introspector).loops[0].hook, "leave_scope", broken)

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
        # What a busy machine does to the loop is no block here, and is not logged.
        introspector = Introspector(slow_session_threshold_ms=60_000)

        def broken(now: float) -> None:
            raise OSError("no /proc")

        parts_of(introspector).tick = broken  # type: ignore[method-assign]
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


def test_the_worker_says_which_meter_runs(virtually: Backend) -> None:
    """It is the language of the one that is loaded."""

    async def main() -> Any:
        async with Introspector(socket_path=False, clock=virtually.clock) as introspector:
            return introspector.snapshot().worker.meter

    assert virtually(main()) == _native.meter


def test_a_meter_in_c_that_cannot_be_used_is_noted_and_logged_once(
    virtually: Backend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In one line: the numbers are right, and cost more."""
    trouble = "the meter in C cannot be loaded, the one in Python is used: undefined symbol: x"
    monkeypatch.setattr(introspection, "trouble", trouble)

    async def main() -> Any:
        async with Introspector(socket_path=False, clock=virtually.clock) as introspector:
            introspector.snapshot()
            return introspector.snapshot().worker.notes

    assert virtually(main()) == [trouble]
    assert flush(60.0)
    assert [record.message for record in caplog.records] == [f"introspection of worker: {trouble}"]


def test_a_socket_that_cannot_be_made_leaves_nothing(run_on_asyncio: Run, runtime_dir: Path) -> None:
    """The loop has no factory of ours, no thread runs, and the error names the cause."""
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


def test_a_failure_late_in_the_start_undoes_everything(
    run_on_asyncio: Run, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket was made and the methods were set when the thread could not start: both are gone."""
    from openrtc_introspect_core._service.worker_service import WorkerService

    def broken(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(WorkerService, "start", broken)

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


@pytest.mark.parametrize("path", [None, False])
def test_an_interrupt_right_after_the_last_thread_s_start_undoes_everything(
    run_on_asyncio: Run, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch, path: Literal[False] | None
) -> None:
    """The service thread works for it no more."""
    from openrtc_introspect_core._service.worker_service import WorkerService

    start = WorkerService.start

    def interrupted(self: Any) -> None:
        start(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(WorkerService, "start", interrupted)

    async def main() -> None:
        with pytest.raises(KeyboardInterrupt):
            Introspector(socket_path=path).attach()

    run_on_asyncio(main())
    assert nothing_left(runtime_dir)


@pytest.mark.parametrize("part", ["watchdog", "service"])
@pytest.mark.parametrize("path", [None, False])
def test_what_is_closed_while_its_threads_start_leaves_none(
    run_on_asyncio: Run, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch, part: str, path: Literal[False] | None
) -> None:
    """A signal handler closes it right before one of its threads starts: that ends as well."""
    from openrtc_introspect_core._blocks.watchdog import Watchdog
    from openrtc_introspect_core._service.worker_service import WorkerService

    async def main() -> None:
        introspector = Introspector(socket_path=path)
        kind: Any = Watchdog if part == "watchdog" else WorkerService
        start = kind.start

        def closed(self: Any) -> None:
            introspector.close()
            start(self)

        monkeypatch.setattr(kind, "start", closed)
        introspector.attach()
        with pytest.raises(StateError, match="is closed"):
            introspector.session("job-1", agent_name="test")

    run_on_asyncio(main())
    assert nothing_left(runtime_dir)


def test_what_is_closed_while_it_starts_stays_closed(run_on_asyncio: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler closes it, and its threads cannot start: it is not started again."""
    from openrtc_introspect_core._service.worker_service import WorkerService

    async def main() -> None:
        introspector = Introspector(socket_path=False)

        def closed(self: Any) -> None:
            introspector.close()
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(WorkerService, "start", closed)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            introspector.attach()
        with pytest.raises(StateError, match="introspector 'worker' is closed: make a new one to start again"):
            introspector.attach()

    run_on_asyncio(main())


def test_a_forked_child_drops_everything(run_on_asyncio: Run, runtime_dir: Path) -> None:
    """The parent's socket stays, and the child's introspector does nothing."""
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
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
    assert nothing_left(runtime_dir)


def test_close_is_for_hosts_without_a_running_loop(runtime_dir: Path) -> None:
    """It waits for the threads itself, and leaves nothing either."""
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
    """A host that is cancelled still closes properly."""

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
    """All kept blocks can be read, or those after a number."""

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
    "how tasks are created": lambda introspector, loop: (parts_of(introspector).loops[0].hook._creation, "detach"),
    "the loop itself": lambda introspector, loop: (loop, "is_closed"),
    "the hook": lambda introspector, loop: (parts_of(introspector).loops[0].hook, "detach"),
    "what older tasks' steps go through": lambda introspector, loop: (
        parts_of(introspector).loops[0].hook._adopted,
        "clear",
    ),
    "the executor": lambda introspector, loop: (parts_of(introspector).loops[0], "_unsee_threads"),
    "the watchdog": lambda introspector, loop: (parts_of(introspector).shared.watchdog, "stop_observing"),
    "collections": lambda introspector, loop: (parts_of(introspector).shared.gc_monitor, "detach"),
    "memory": lambda introspector, loop: (parts_of(introspector).shared.heap, "stop"),
    "the socket": lambda introspector, loop: (parts_of(introspector).socket, "remove"),
    "a thread's usage": lambda introspector, loop: (parts_of(introspector).loops[0]._usage, "close"),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_cannot_be_detached_does_not_prevent_the_rest(
    part: str, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing goes on, raises nothing, notes the error once with its traceback, and can be repeated."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        selector = dict(vars(loop._selector))
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
        if dict(vars(loop._selector)) != selector:
            touched.add("select")
        if part == "the executor":
            owner._unsee_threads()  # what the whole process shares is put back for other tests
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
    assert [note for note in notes if "could not be released completely: LookupError('not today')" in note]
    logged = [record for record in caplog.records if "released completely" in record.message]
    assert [record.exc_info is not None for record in logged] == [True]
