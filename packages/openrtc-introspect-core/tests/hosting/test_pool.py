from __future__ import annotations

import asyncio
import functools
import gc
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import CoroutineType
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import AgentPool, ArgumentError, PoolSession, StateError, current_session
from openrtc_introspect_core._base import fork
from openrtc_introspect_core._base.log import flush
from openrtc_introspect_testing._loops.backends import Backend

pytestmark = pytest.mark.usefixtures("runtime_dir")

Run = Callable[[Coroutine[Any, Any, Any]], Any]


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
    assert flush(60.0)
    (record,) = [record for record in caplog.records if record.name == "openrtc.pool"]
    assert "session job-bad of agent bad failed" in record.getMessage()
    assert record.exc_info


@pytest.mark.parametrize("introspected", [True, False])
def test_when_it_has_served_its_log_lines_are_out(
    introspected: bool, on_any_loop: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """So that they stand before what its caller prints."""

    async def fail(session: PoolSession) -> None:
        pool.drain()
        raise ValueError("mine")

    async def main() -> Any:
        await pool.serve()
        return [message for message in caplog.messages if "agent bad failed" in message]

    pool = AgentPool(enable_introspection=introspected, introspection={"socket_path": False})
    pool.add("bad", fail, sessions=1)
    assert len(on_any_loop(main())) == 1


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


def test_more_sessions_than_there_is_room_for_are_refused_before_it_serves(run_virtually: Run) -> None:
    """A plain error, and nothing was started."""
    pool = AgentPool(max_sessions=2, introspection={"socket_path": False})

    async def work(session: PoolSession) -> None: ...

    pool.add("agent", work, sessions=3)
    with pytest.raises(StateError, match="is full: max_sessions is 2"):
        run_virtually(pool.serve())
    assert pool.started == 0


def test_what_does_not_end_in_time_while_it_drains_is_cancelled(
    run_virtually: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """drain_timeout_s counts from when it drains, and the log says whom it cancels."""

    async def work(session: PoolSession) -> None:
        try:
            await asyncio.sleep(3 if session.session_id == "short" else 60)
        finally:
            ended.append(asyncio.get_running_loop().time())

    ended: list[float] = []

    async def main() -> Any:
        pool = AgentPool(drain_timeout_s=5, introspection={"socket_path": False})
        pool.add("agent", work)
        sessions = [await pool.start_session("agent", session_id=name) for name in ("short", "long")]
        loop: Any = asyncio.get_running_loop()
        began = loop.time()
        loop.call_later(1, pool.drain)
        await pool.serve()
        return [session.state for session in sessions], ended[-1] - began

    states, took = run_virtually(main())
    assert (states, took) == (["done", "cancelled"], pytest.approx(6))
    assert flush(60.0)
    assert "pool worker cancels 1 session, which did not end within 5 s" in caplog.text


def test_a_session_that_exits_ends_itself_and_not_the_pool(run: Run) -> None:
    """sys.exit with a code is a failure, without one the end; the others go on."""
    pool = AgentPool(introspection={"socket_path": False})

    async def leave(session: PoolSession) -> None:
        await asyncio.sleep(0)
        sys.exit(session.metadata.get("code"))

    async def work(session: PoolSession) -> None:
        await asyncio.sleep(0.05)

    pool.add("leave", leave)
    pool.add("work", work)

    async def use() -> Any:
        sessions = [
            await pool.start_session("leave", metadata={"code": 3}),
            await pool.start_session("leave"),
            await pool.start_session("work"),
        ]
        for session in sessions:
            await session.wait()
        return [(session.state, str(session.error or "")) for session in sessions]

    assert run(serving(pool, use)) == [("errored", "SystemExit: 3"), ("done", ""), ("done", "")]


def test_a_session_whose_own_task_was_cancelled_is_cancelled(run: Run) -> None:
    """By whomever: the pool and the others do not notice."""
    pool = AgentPool(introspection={"socket_path": False})

    async def work(session: PoolSession) -> None:
        raise asyncio.CancelledError

    pool.add("agent", work)

    async def use() -> Any:
        sessions = [await pool.start_session("agent") for _ in range(2)]
        for session in sessions:
            await session.wait()
        return [session.state for session in sessions], pool.failed, pool.active

    assert run(serving(pool, use)) == (["cancelled", "cancelled"], 0, 0)


def test_the_pool_and_what_it_serves_count_the_same(run: Run) -> None:
    """Started, failed and active; a cancelled session is none of the failed ones."""
    pool = AgentPool(introspection={"socket_path": False})

    async def work(session: PoolSession) -> None:
        if session.metadata:
            raise ValueError("mine")
        await asyncio.sleep(60)

    pool.add("agent", work)

    async def use() -> Any:
        failing = await pool.start_session("agent", metadata={"fail": True})
        running, cancelled = await pool.start_session("agent"), await pool.start_session("agent")
        await failing.wait()
        cancelled.cancel()
        await cancelled.wait()
        assert pool.introspector is not None
        worker = pool.introspector.snapshot().worker
        assert (worker.started, worker.errored, worker.sessions) == (pool.started, pool.failed, pool.active)
        return running.state, pool.started, pool.failed, pool.active

    assert run(serving(pool, use)) == ("running", 3, 1, 1)


def test_without_introspection_nothing_is_started(run: Run, runtime_dir: Path) -> None:
    """No thread, no socket, no task factory, no hook of any kind; sessions run all the same."""

    def traces() -> set[Any]:
        loop = asyncio.get_running_loop()
        return {
            *threading.enumerate(),
            *runtime_dir.iterdir(),
            ("task factory", loop.get_task_factory()),
            *(("loop", name) for name in getattr(loop, "__dict__", {})),
            *(("selector", name) for name in getattr(getattr(loop, "_selector", None), "__dict__", {})),
            *(("collector", callback) for callback in gc.callbacks),
            *fork.attached,
        }

    async def work(session: PoolSession) -> None:
        seen.append((traces(), current_session()))
        task = asyncio.create_task(asyncio.sleep(0))
        assert type(task.get_coro()) is CoroutineType
        await task
        pool.drain()

    async def main() -> set[Any]:
        before = traces()
        await pool.serve()
        return before

    pool = AgentPool(enable_introspection=False)
    seen: list[tuple[set[Any], object]] = []
    pool.add("agent", work, sessions=1)
    before = run(main())
    ((during, session),) = seen
    assert (during - before, session) == (set(), None)
    assert (pool.introspector, pool.socket_path) == (None, None)


def test_with_introspection_there_are_such_traces(run_on_asyncio: Run, runtime_dir: Path) -> None:
    """So that the test above would see something."""
    pool = AgentPool()

    async def work(session: PoolSession) -> None:
        loop = asyncio.get_running_loop()
        names = {thread.name for thread in threading.enumerate()}
        files = sorted(path.suffix for path in runtime_dir.iterdir())
        seen.append(("create_task" in vars(loop), "openrtc-introspect" in names, files))
        assert type(asyncio.current_task().get_coro()) is not CoroutineType  # type: ignore[union-attr]
        pool.drain()

    seen: list[Any] = []
    pool.add("agent", work, sessions=1)
    run_on_asyncio(pool.serve())
    assert seen == [(True, True, [".box", ".sock"])]


def test_without_introspection_it_runs_on_any_loop(virtually: Backend) -> None:
    """The pool itself is anyio's."""
    pool = AgentPool(enable_introspection=False)

    async def work(session: PoolSession) -> None:
        await anyio.sleep(1)
        seen.append((session.agent_name, current_session()))
        pool.drain()

    seen: list[Any] = []
    pool.add("agent", work, sessions=1)
    virtually(pool.serve())
    assert seen == [("agent", None)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AgentPool(isolation="thread"), "isolation must be 'coroutine' or 'process', got 'thread'"),  # type: ignore[arg-type]
        (
            lambda: AgentPool(slow_session_threshold_ms=0),
            "slow_session_threshold_ms must be greater than 0, got 0",
        ),
        (
            lambda: AgentPool(enable_introspection=False, memory_limit_mb=-1),
            "memory_limit_mb must be 0 or more",
        ),
        (lambda: AgentPool(max_sessions=-1), "max_sessions must be 0"),
        (lambda: AgentPool(drain_timeout_s=-1), "drain_timeout_s must be 0 or more, got -1"),
        (lambda: AgentPool(stop_grace_s=float("inf")), "stop_grace_s must be 0 or more, got inf"),
        (lambda: AgentPool().add("", lambda session: None), "agent name must have 1 to 256"),  # type: ignore[arg-type,return-value]
        (lambda: AgentPool().add("a", lambda session: None), "entrypoint of agent 'a' must be an async"),  # type: ignore[arg-type,return-value]
    ],
)
def test_bad_arguments_are_refused_in_one_line(call: Any, message: str) -> None:
    """What was given and what is accepted."""
    with pytest.raises(ArgumentError, match=message):
        call()


def test_bad_sessions_are_refused_in_one_line(virtually: Backend) -> None:
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
