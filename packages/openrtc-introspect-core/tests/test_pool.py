from __future__ import annotations

import asyncio
import functools
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import AgentPool, ArgumentError, PoolSession, StateError, current_session
from openrtc_introspect_testing._backends import Backend

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(autouse=True)
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rt") as directory:
        monkeypatch.setenv("OPENRTC_RUNTIME_DIR", directory)
        yield Path(directory)


async def serving(pool: AgentPool, use: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """What `use` returns, while the pool serves; then the pool is stopped."""
    async with anyio.create_task_group() as group:
        group.start_soon(pool.serve)
        while pool._group is None:
            await anyio.sleep(0)
        try:
            return await use()
        finally:
            pool.stop()


def test_a_session_runs_its_entrypoint_inside_its_scope(on_any_loop: Backend) -> None:
    """The entrypoint is given its session, and is measured as that session."""
    pool = AgentPool()

    async def entrypoint(session: PoolSession) -> None:
        bound = current_session()
        assert bound is not None
        seen.append((bound.session_id, bound.agent_name, bound.tenant, session.metadata["call"]))
        assert pool.introspector is not None
        seen.append(tuple(row.session_id for row in pool.introspector.snapshot().sessions))

    seen: list[Any] = []
    pool.add("restaurant", entrypoint)

    async def use() -> PoolSession:
        session = await pool.start_session("restaurant", metadata={"tenant": "acme", "call": 7})
        await session.wait()
        return session

    session = on_any_loop(serving(pool, use))
    assert seen == [(session.session_id, "restaurant", "acme", 7), (session.session_id,)]
    assert (session.state, session.error, pool.started, pool.failed, pool.active) == ("done", None, 1, 0, 0)


def test_a_failure_is_the_session_s_own(on_any_loop: Backend, caplog: pytest.LogCaptureFixture) -> None:
    """It is counted, logged with its traceback, and the others go on."""
    pool = AgentPool()

    async def fail(session: PoolSession) -> None:
        raise ValueError("mine")

    async def work(session: PoolSession) -> None:
        for _ in range(10):
            await anyio.sleep(0)

    pool.add("bad", fail)
    pool.add("good", work)

    async def use() -> Any:
        good, bad = await pool.start_session("good"), await pool.start_session("bad", session_id="job-bad")
        await good.wait()
        await bad.wait()
        assert pool.introspector is not None
        return good, bad, pool.introspector.snapshot().worker.errored

    good, bad, errored = on_any_loop(serving(pool, use))
    assert (good.state, bad.state, repr(bad.error)) == ("done", "errored", "ValueError('mine')")
    assert (pool.failed, errored) == (1, 1)
    (record,) = [record for record in caplog.records if record.name == "openrtc.pool"]
    assert "session job-bad of agent bad failed" in record.getMessage()
    assert record.exc_info


def test_sessions_asked_for_before_serving_start_with_it(virtually: Backend) -> None:
    """`start_session` first or `add(sessions=…)`: both run once the pool serves."""
    pool = AgentPool(introspection={"socket_path": False})
    ran: list[str] = []

    async def work(session: PoolSession) -> None:
        ran.append(f"{session.agent_name} {session.metadata.get('tenant')}")
        if len(ran) == 4:
            pool.drain()

    pool.add("early", work)
    pool.add("counted", work, sessions=3, metadata={"tenant": "acme"})

    async def main() -> str:
        session = await pool.start_session("early")
        assert session.state == "waiting"
        await pool.serve()
        return session.state

    assert virtually(main()) == "done"
    assert sorted(ran) == ["counted acme"] * 3 + ["early None"]


def test_stop_cancels_and_drain_waits(virtually: Backend) -> None:
    """Drained sessions finish, stopped ones are cancelled; either way `serve` returns."""

    ended: list[float] = []

    async def work(session: PoolSession) -> None:
        try:
            await anyio.sleep(60)
        finally:
            ended.append(virtually.clock())

    async def main(end: Callable[[AgentPool], None]) -> Any:
        pool = AgentPool(introspection={"socket_path": False})
        pool.add("agent", work)
        session = await pool.start_session("agent")
        began = virtually.clock()

        async def end_it() -> None:
            await anyio.sleep(1)
            end(pool)

        async with anyio.create_task_group() as group:
            group.start_soon(end_it)
            await pool.serve()
        with pytest.raises(StateError, match="takes no new sessions"):
            await pool.start_session("agent")
        return session.state, round(ended[-1] - began)

    assert virtually(main(AgentPool.drain)) == ("done", 60)
    assert virtually(main(AgentPool.stop)) == ("cancelled", 1)


def test_one_session_can_be_cancelled_before_and_while_it_runs(virtually: Backend) -> None:
    """The others do not notice."""
    pool = AgentPool(introspection={"socket_path": False})

    async def work(session: PoolSession) -> None:
        await anyio.sleep(60)

    pool.add("agent", work)

    async def use() -> Any:
        running = await pool.start_session("agent")
        await anyio.sleep(1)
        early = await pool.start_session("agent")
        early.cancel()
        running.cancel()
        other = await pool.start_session("agent")
        await early.wait()
        await running.wait()
        await other.wait()
        return running.state, early.state, other.state, pool.started

    assert virtually(serving(pool, use)) == ("cancelled", "cancelled", "done", 2)


def test_a_full_pool_says_so(virtually: Backend) -> None:
    """max_sessions is kept, and the header shows it."""
    pool = AgentPool(max_sessions=1, introspection={"socket_path": False})

    async def work(session: PoolSession) -> None:
        await anyio.sleep(60)

    pool.add("agent", work)

    async def use() -> Any:
        await pool.start_session("agent")
        with pytest.raises(StateError, match="'worker' is full: max_sessions is 1"):
            await pool.start_session("agent")
        assert pool.introspector is not None
        return pool.introspector.snapshot().worker.max_sessions

    assert virtually(serving(pool, use)) == 1


def test_over_its_memory_limit_it_drains(virtually: Backend, caplog: pytest.LogCaptureFixture) -> None:
    """No new sessions, those that run finish, `serve` returns."""
    pool = AgentPool(memory_limit_mb=1, introspection={"socket_path": False})

    async def work(session: PoolSession) -> None:
        await anyio.sleep(30)
        assert pool.introspector is not None
        seen.append((pool.draining, pool.introspector.snapshot().sessions[0].status))

    seen: list[Any] = []
    pool.add("agent", work, sessions=1)
    virtually(pool.serve())
    assert seen == [(True, "draining")]
    assert [record for record in caplog.records if "memory_limit_mb is 1" in record.getMessage()]


def test_without_introspection_nothing_is_started(virtually: Backend, runtime_dir: Path) -> None:
    """No thread, no socket, no task factory; sessions run all the same."""
    pool = AgentPool(enable_introspection=False)

    async def work(session: PoolSession) -> None:
        factory = None if virtually.is_trio else asyncio.get_running_loop().get_task_factory()
        seen.append((factory, current_session(), list(runtime_dir.iterdir())))
        seen.append([t.name for t in threading.enumerate() if t.name.startswith("openrtc")])
        pool.drain()

    seen: list[Any] = []
    pool.add("agent", work, sessions=1)
    virtually(pool.serve())
    assert seen == [(None, None, []), []]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: AgentPool(isolation="thread"), "isolation must be 'coroutine', got 'thread'"),  # type: ignore[arg-type]
        (
            lambda: AgentPool(slow_session_threshold_ms=0),
            "slow_session_threshold_ms must be greater than 0, got 0",
        ),
        (
            lambda: AgentPool(enable_introspection=False, memory_limit_mb=-1),
            "memory_limit_mb must be 0 or more",
        ),
        (lambda: AgentPool(max_sessions=-1), "max_sessions must be 0"),
        (lambda: AgentPool().add("", lambda session: None), "agent name must have 1 to 256"),  # type: ignore[arg-type,return-value]
        (lambda: AgentPool().add("a", lambda session: None), "entrypoint of agent 'a' must be an async"),  # type: ignore[arg-type,return-value]
    ],
)
def test_bad_arguments_are_told_in_one_line(call: Any, told: str) -> None:
    """What was given and what is accepted."""
    with pytest.raises(ArgumentError, match=told):
        call()


def test_bad_sessions_are_told_in_one_line(virtually: Backend) -> None:
    """Unknown agents with the known ones, ids in use, metadata that is none."""
    pool = AgentPool(introspection={"socket_path": False})

    async def work(session: PoolSession) -> None:
        await anyio.sleep(60)

    with pytest.raises(ArgumentError, match="agent 'x' is not in this pool; it has none: add one first"):
        virtually(pool.start_session("x"))
    pool.add("agent", work)
    with pytest.raises(ArgumentError, match="agent 'agent' is in this pool already"):
        pool.add("agent", work)

    async def use() -> None:
        await pool.start_session("agent", session_id="job-1")
        with pytest.raises(ArgumentError, match="session id 'job-1' is live already"):
            await pool.start_session("agent", session_id="job-1")
        with pytest.raises(ArgumentError, match="metadata must be a mapping"):
            await pool.start_session("agent", metadata=7)  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="it has 'agent'"):
            await pool.start_session("other")

    virtually(serving(pool, use))
    with pytest.raises(StateError, match="has served already"):
        virtually(pool.serve())


def test_any_async_callable_is_an_entrypoint() -> None:
    """Functions, partials, bound methods, and objects with an async __call__."""

    async def function(extra: int, session: PoolSession) -> None: ...

    class Agent:
        async def method(self, session: PoolSession) -> None: ...

        async def __call__(self, session: PoolSession) -> None: ...

    pool = AgentPool()
    pool.add("partial", functools.partial(function, 1))
    pool.add("method", Agent().method)
    pool.add("object", Agent())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(number: signal.Signals, runtime_dir: Path) -> None:
    """Sessions are cancelled and clean up, the socket goes, and the exit code is 0 without a traceback."""
    code = """
        import asyncio
        from openrtc_introspect_core import AgentPool

        async def entrypoint(session):
            print("started", flush=True)
            try:
                await asyncio.sleep(60)
            finally:
                print("cleaned up", flush=True)

        pool = AgentPool(name="signalled")
        pool.add("agent", entrypoint, sessions=1)
        pool.run()
        print("returned", pool.failed)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        assert [path.name for path in runtime_dir.iterdir()] == [f"signalled-{process.pid}.sock"]
        os.kill(process.pid, number)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (0, "cleaned up\nreturned 0\n", "")
    assert list(runtime_dir.iterdir()) == []
