"""Process mode, with real processes. Their entrypoints are in a module of their own, which they import."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from openrtc_introspect_core import (
    AgentPool,
    ArgumentError,
    PoolSession,
    RequestFailed,
    SessionFailed,
    connect,
    read_snapshot,
)
from openrtc_introspect_core._base.log import flush
from openrtc_introspect_core._hosting import processes
from openrtc_introspect_testing._loops.introspection_threads import ours, ours_end

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("runtime_dir")]

Run = Callable[[Coroutine[Any, Any, Any]], Any]
WITHIN_S = 60.0

AGENTS = """
import json, os, signal, socket, sys, threading, time
from pathlib import Path
import anyio

async def report(session):
    "Writes what it finds to the path it is given."
    fds = []
    for fd in os.listdir("/proc/self/fd") if sys.platform == "linux" else ():
        try:
            fds.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            pass
    said = {
        "session": [session.session_id, session.agent_name, session.metadata["tenant"], session.state],
        "pid": os.getpid(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "sockets": [fd for fd in fds if fd.startswith("socket:")],
        "listening": os.path.exists(session.metadata["socket"]),
        "library": "trio" if "trio" in sys.modules else "asyncio",
    }
    Path(session.metadata["path"]).write_text(json.dumps(said))

async def wait(session):
    Path(session.metadata["path"]).write_text(str(os.getpid()))
    try:
        await anyio.sleep(3600)
    finally:
        Path(session.metadata["path"]).write_text("cleaned up")

async def hold(session):
    "Blocks its loop, so that it cannot be asked to end."
    Path(session.metadata["path"]).write_text(str(os.getpid()))
    time.sleep(3600)

async def fail(session):
    raise ValueError("mine")

async def fail_when_cancelled(session):
    Path(session.metadata["path"]).write_text(str(os.getpid()))
    try:
        await anyio.sleep(3600)
    finally:
        raise ValueError("cleaning up")

async def leave(session):
    sys.exit(session.metadata["code"])

async def crash(session):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module above; the sessions' processes find it on the same path."""
    (tmp_path / "agents_in_processes.py").write_text(AGENTS)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("agents_in_processes")
    sys.modules.pop("agents_in_processes", None)


async def serving(pool: AgentPool, use: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """What `use` returns, while the pool serves; then the pool is stopped."""
    async with asyncio.TaskGroup() as group:
        group.create_task(pool.serve())
        await asyncio.sleep(0)
        try:
            return await asyncio.wait_for(use(), WITHIN_S)
        finally:
            pool.stop()


async def written(path: Path) -> str:
    """What a session has written there, once it has."""
    while not (path.exists() and path.read_text()):
        await asyncio.sleep(0.02)
    return path.read_text()


def gone(pid: int) -> bool:
    """Not even a zombie."""
    return not psutil.pid_exists(pid)


def test_a_session_is_a_process_that_has_its_id_agent_and_metadata(
    run: Run, agents: Any, tmp_path: Path, runtime_dir: Path
) -> None:
    """And nothing of the pool: neither its threads nor its sockets. It runs on a loop of the same kind."""
    pool = AgentPool(isolation="process")
    pool.add("restaurant", agents.report)

    async def use() -> PoolSession:
        metadata = {"tenant": "acme", "path": str(tmp_path / "report"), "socket": str(pool.socket_path)}
        session = await pool.start_session("restaurant", metadata=metadata, session_id="job-1")
        await session.wait()
        return session

    session = run(serving(pool, use))
    assert (session.state, session.error, pool.started, pool.failed, pool.active) == ("done", None, 1, 0, 0)
    said = json.loads((tmp_path / "report").read_text())
    assert said["session"] == ["job-1", "restaurant", "acme", "running"]
    assert said["pid"] != os.getpid()
    assert said["threads"] == ["MainThread", "openrtc-pool"]
    assert said["listening"]
    assert len(said["sockets"]) <= 2  # the pair that its own loop wakes up by
    assert gone(said["pid"])
    assert list(runtime_dir.iterdir()) == []


def test_how_it_ended_is_told(run: Run, agents: Any, caplog: pytest.LogCaptureFixture) -> None:
    """By its exception, its exit code or its signal; an exit code of 0 is none."""
    pool = AgentPool(isolation="process")
    for entrypoint in (agents.fail, agents.leave, agents.crash):
        pool.add(entrypoint.__name__, entrypoint)

    async def use() -> Any:
        sessions = [
            await pool.start_session("fail", session_id="job-fail"),
            await pool.start_session("leave", metadata={"code": 3}),
            await pool.start_session("leave", metadata={"code": 0}),
            await pool.start_session("crash"),
        ]
        for session in sessions:
            await session.wait()
        assert pool.socket_path is not None
        return sessions, await asyncio.to_thread(read_snapshot, pool.socket_path)

    (failed, left, done, crashed), snapshot = run(serving(pool, use))
    assert [session.state for session in (failed, left, done, crashed)] == ["errored", "errored", "done", "errored"]
    for session, said, code in (
        (failed, "ValueError: mine", None),
        (left, "exit code 3", 3),
        (crashed, "killed by SIGKILL", -9),
    ):
        assert isinstance(session.error, SessionFailed)
        assert (str(session.error), session.error.exit_code) == (said, code)
    assert pool.failed == 3
    assert {row.error for row in snapshot.sessions} == {"ValueError: mine", "exit code 3", "killed by SIGKILL"}
    assert (snapshot.worker.started, snapshot.worker.errored, snapshot.worker.sessions) == (4, 3, 0)
    assert flush(WITHIN_S)
    (record,) = [message for message in caplog.messages if "job-fail" in message]
    assert record.startswith("session job-fail of agent fail failed: ValueError: mine\nTraceback")
    assert 'in fail\n    raise ValueError("mine")' in record
    assert "child.py" not in record


def test_a_process_that_cannot_be_started_is_a_failure_of_its_session(
    run_on_asyncio: Run, agents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted as such by the pool and by what it serves; the others go on."""

    def refuse(process: Any) -> None:
        raise OSError("out of processes")

    pool = AgentPool(isolation="process")
    pool.add("leave", agents.leave)

    async def use() -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(processes, "_start", refuse)
            failed = await pool.start_session("leave", metadata={"code": 0})
            await failed.wait()
        other = await pool.start_session("leave", metadata={"code": 0})
        await other.wait()
        assert pool.socket_path is not None
        worker = (await asyncio.to_thread(read_snapshot, pool.socket_path)).worker
        assert (worker.started, worker.errored, worker.sessions) == (pool.started, pool.failed, pool.active)
        return repr(failed.error), other.state, pool.started, pool.failed

    assert run_on_asyncio(serving(pool, use)) == ("OSError('out of processes')", "done", 2, 1)


def test_a_cancelled_session_cleans_up(run: Run, agents: Any, tmp_path: Path) -> None:
    """SIGTERM cancels its entrypoint; an error it then raises is one, the cancellation is none."""
    pool = AgentPool(isolation="process", stop_grace_s=WITHIN_S)
    pool.add("wait", agents.wait)
    pool.add("fail", agents.fail_when_cancelled)

    async def use() -> Any:
        paths = [tmp_path / name for name in ("wait", "fail")]
        sessions = [await pool.start_session(path.name, metadata={"path": str(path)}) for path in paths]
        for path in paths:
            await written(path)
        for session in sessions:
            session.cancel()
            await session.wait()
        return [(session.state, str(session.error or "")) for session in sessions]

    assert run(serving(pool, use)) == [("cancelled", ""), ("errored", "ValueError: cleaning up")]
    assert (tmp_path / "wait").read_text() == "cleaned up"


def test_a_session_that_does_not_end_is_killed(
    run_on_asyncio: Run, agents: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After the grace, and the log says so."""
    pool = AgentPool(isolation="process", stop_grace_s=0.2)
    pool.add("hold", agents.hold)

    async def use() -> Any:
        session = await pool.start_session("hold", metadata={"path": str(tmp_path / "held")}, session_id="job-1")
        pid = int(await written(tmp_path / "held"))
        session.cancel()
        await session.wait()
        return session.state, gone(pid)

    assert run_on_asyncio(serving(pool, use)) == ("cancelled", True)
    assert flush(WITHIN_S)
    assert "session job-1 of agent hold did not end within 0.2 s of SIGTERM: its process is killed" in caplog.messages


def test_the_worker_says_that_it_is_in_process_mode(
    run_on_asyncio: Run, agents: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once in the log, and in what it serves; the rows have what the system accounts."""
    pool = AgentPool(isolation="process", name="apart", max_sessions=9, memory_limit_mb=10**6)
    pool.add("wait", agents.wait)

    async def use() -> Any:
        assert pool.introspector is None
        await pool.start_session("wait", metadata={"tenant": "acme", "path": str(tmp_path / "up")}, session_id="job-1")
        await written(tmp_path / "up")
        assert pool.socket_path is not None
        snapshot = await asyncio.to_thread(read_snapshot, pool.socket_path)
        while not snapshot.sessions[0].cpu_s:  # looked at once a second
            await asyncio.sleep(0.1)
            snapshot = await asyncio.to_thread(read_snapshot, pool.socket_path)
        pool.drain()
        draining = snapshot
        while not draining.worker.draining:  # readers share a snapshot for some milliseconds
            draining = await asyncio.to_thread(read_snapshot, pool.socket_path)
        return snapshot, draining

    snapshot, draining = run_on_asyncio(serving(pool, use))
    worker, (row,) = snapshot.worker, snapshot.sessions
    assert (worker.name, worker.isolation, worker.cpu, worker.loop) == ("apart", "process", "off", "asyncio")
    assert (worker.max_sessions, worker.memory_limit_mb, worker.sessions) == (9, 10**6, 1)
    assert (row.session_id, row.agent_name, row.tenant, row.status) == ("job-1", "wait", "acme", "active")
    assert (row.tasks, row.steps, row.error) == (None, None, None)
    assert 1 < row.mem_mb < worker.rss_mb
    assert row.peak_mb >= row.mem_mb
    (note,) = worker.notes
    assert note.startswith("process mode: each session is a process of its own, so introspection is skipped")
    assert flush(WITHIN_S)
    assert caplog.messages.count(f"pool apart: {note}") == 1
    assert (draining.worker.draining, draining.sessions[0].status) == (True, "draining")


def test_it_is_not_asked_for_what_it_does_not_see(run_on_asyncio: Run, agents: Any) -> None:
    """The hello does not offer tasks and stacks, and a client that asks for them gets an error."""
    pool = AgentPool(isolation="process")

    async def use() -> Any:
        assert pool.socket_path is not None
        async with connect(pool.socket_path) as client:
            assert {"tasks", "stacks"}.isdisjoint(client.hello.capabilities)
            for question in (client.tasks("job-1"), client.stacks()):
                with pytest.raises(RequestFailed, match="unsupported: this worker does not answer requests of type"):
                    await question
            return (await client.blocks()).blocks, (await client.snapshot()).sessions

    assert run_on_asyncio(serving(pool, use)) == ([], [])


def test_without_introspection_process_mode_serves_nothing(
    run_on_asyncio: Run, agents: Any, runtime_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No socket, no thread of the service; nothing to say."""
    pool = AgentPool(isolation="process", enable_introspection=False)
    pool.add("leave", agents.leave)

    async def use() -> Any:
        session = await pool.start_session("leave", metadata={"code": 0})
        await session.wait()
        return session.state, pool.socket_path, list(runtime_dir.iterdir()), ours()

    assert ours_end()
    assert run_on_asyncio(serving(pool, use)) == ("done", None, [], [])
    assert flush(WITHIN_S)
    assert caplog.messages == []


def test_it_runs_on_trio(agents: Any, tmp_path: Path) -> None:
    """So do its sessions."""
    pool = AgentPool(isolation="process", enable_introspection=False)
    pool.add("report", agents.report)

    async def main() -> None:
        session = await pool.start_session(
            "report", metadata={"tenant": "t", "path": str(tmp_path / "report"), "socket": "/"}
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.serve)
            await session.wait()
            pool.drain()

    trio.run(main)
    assert json.loads((tmp_path / "report").read_text())["library"] == "trio"


POOL = """
import sys
from openrtc_introspect_core import AgentPool
import agents_in_processes

if __name__ == "__main__":
    pool = AgentPool(isolation="process", name="apart", stop_grace_s=1)
    for name in ("wait", "hold"):
        pool.add(name, getattr(agents_in_processes, name), sessions=1, metadata={"path": f"{sys.argv[1]}/{name}"})
    pool.run()
"""


@contextlib.contextmanager
def a_pool(agents: Any, folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """In a process of its own; with the ids of its sessions' processes."""
    script = folder / "pool.py"
    script.write_text(POOL)
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, str(script), str(folder)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process, [int(asyncio.run(written(folder / name))) for name in ("wait", "hold")]
        finally:
            process.kill()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_sessions_end_with_a_pool_that_is_killed(agents: Any, tmp_path: Path) -> None:
    """One cleans up, and one that holds its loop is killed after the grace."""
    with a_pool(agents, tmp_path) as (process, pids):
        process.kill()
        process.wait(WITHIN_S)
        until(lambda: all(_ended(pid) for pid in pids))
    assert (tmp_path / "wait").read_text() == "cleaned up"


def _ended(pid: int) -> bool:
    try:  # in a container without an init process, orphans stay zombies
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_ctrl_c_is_the_pool_s_alone(agents: Any, tmp_path: Path) -> None:
    """A terminal sends it to its whole process group. The sessions' processes are in other groups and go on."""
    with a_pool(agents, tmp_path) as (process, pids):
        assert process.stderr is not None
        assert os.getpgid(process.pid) not in [os.getpgid(pid) for pid in pids]
        assert "process mode" in process.stderr.readline()
        os.kill(process.pid, signal.SIGINT)
        assert "drains on SIGINT: it waits for 2 sessions to end" in process.stderr.readline()
        assert not any(map(gone, pids))
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(WITHIN_S) == 130
        assert all(map(gone, pids))
    assert (tmp_path / "wait").read_text() == "cleaned up"


def test_the_memory_limit_is_for_all_processes_together(run_on_asyncio: Run, agents: Any, tmp_path: Path) -> None:
    """What the pool counts is its own and its sessions' memory."""
    pool = AgentPool(isolation="process", introspection={"socket_path": False})
    pool.add("wait", agents.wait)

    async def use() -> Any:
        alone = pool._place.rss_mb()
        for number in range(2):
            await pool.start_session("wait", metadata={"path": str(tmp_path / str(number))})
        pids = [int(await written(tmp_path / str(number))) for number in range(2)]
        theirs = sum(psutil.Process(pid).memory_info().rss for pid in pids) / 2**20
        return alone, pool._place.rss_mb(), theirs

    alone, together, theirs = run_on_asyncio(serving(pool, use))
    assert together - alone > theirs / 2 > 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pool: pool.add("a", lambda session: None), "must be an async function"),
        (lambda pool: pool.add("a", nested()), "entrypoint of agent 'a' must be a function at the top of a module"),
        (
            lambda pool: pool.add("a", functools.partial(nested(), 1)),
            "for isolation='process', so that another process",
        ),
    ],
)
def test_what_another_process_cannot_have_is_refused(call: Any, message: str) -> None:
    """When it is added, and it is named."""
    with pytest.raises(ArgumentError, match=message) as problem:
        call(AgentPool(isolation="process"))
    assert "\n" not in str(problem.value)


def nested() -> Any:
    async def entrypoint(*args: Any) -> None: ...

    return entrypoint


def test_metadata_must_be_picklable(run_on_asyncio: Run, agents: Any) -> None:
    """Told when the session is started, not by a session that failed."""
    pool = AgentPool(isolation="process")
    pool.add("leave", agents.leave)
    with pytest.raises(ArgumentError, match="metadata must be picklable for isolation='process'"):
        run_on_asyncio(pool.start_session("leave", metadata={"lock": threading.Lock()}))


def test_a_main_module_that_is_no_file_is_refused() -> None:
    """Its entrypoint could not be imported."""
    code = """
        from openrtc_introspect_core import AgentPool
        async def entrypoint(session): ...
        AgentPool(isolation="process").add("agent", entrypoint)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, timeout=WITHIN_S
    )
    assert result.returncode == 1
    assert result.stderr.rstrip().endswith(": its main module is no file")


def test_an_agent_that_cannot_be_imported_in_its_process_is_a_failure_of_the_session(
    run_on_asyncio: Run, agents: Any, tmp_path: Path
) -> None:
    """Told as such, not as an exit code."""
    pool = AgentPool(isolation="process")
    pool.add("leave", agents.leave)
    (tmp_path / "agents_in_processes.py").write_text("raise RuntimeError('moved')")

    async def use() -> Any:
        session = await pool.start_session("leave", metadata={"code": 0})
        await session.wait()
        return session.state, str(session.error)

    assert run_on_asyncio(serving(pool, use)) == ("errored", "RuntimeError: moved")
