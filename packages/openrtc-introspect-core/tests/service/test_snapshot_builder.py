from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
from ticking import Ticking

from openrtc_introspect_core import Introspector, Snapshot, StateError
from openrtc_introspect_testing._loops.backends import Backend, in_task
from openrtc_introspect_testing._loops.fake_clock import FakeClock

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def snapshot_from_a_thread(introspector: Introspector) -> Snapshot:
    """Return the snapshot that another thread takes while this one, the loop's, is held."""
    seen: list[Snapshot] = []
    reader = threading.Thread(target=lambda: seen.append(introspector.snapshot()))
    reader.start()
    reader.join()
    return seen[0]


def test_the_step_in_progress_shows_as_blocked_and_growing(on_any_loop: Backend) -> None:
    """Another thread reads it as blocked while the loop is held; afterwards it is slow."""

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:

            async def hold() -> list[Snapshot]:
                clock.advance(0.04)
                early = snapshot_from_a_thread(introspector)
                clock.advance(2.96)
                first = snapshot_from_a_thread(introspector)
                clock.advance(1)
                return [early, first, snapshot_from_a_thread(introspector)]

            with introspector.session("culprit", agent_name="a", metadata={"tenant": "t"}):
                held = await in_task(hold, name="lookup")
                return [*held, introspector.snapshot()]

    early, first, second, after = on_any_loop(main())
    (block,), (later,) = first.blocks_in_progress, second.blocks_in_progress
    assert (block.session_id, block.agent_name, block.tenant, block.task_name) == ("culprit", "a", "t", "lookup")
    assert (block.seq, block.in_progress, block.running_since) == (0, True, block.started_at)
    assert (round(block.duration_ms), round(later.duration_ms)) == (3000, 4000)
    assert later.running_since == block.running_since
    assert [snapshot.sessions[0].status for snapshot in (early, first, second, after)] == [
        "active",
        "blocked",
        "blocked",
        "slow",
    ]
    assert (round(first.sessions[0].cpu_s, 6), round(second.sessions[0].cpu_s, 6)) == (3, 4)
    assert early.blocks_in_progress == after.blocks_in_progress == []


def test_a_callback_in_progress_is_an_unattributed_block(run_on_asyncio: Run) -> None:
    """The loop is held, and no session shows as blocked."""

    async def main() -> Any:
        clock = FakeClock()
        seen: list[Snapshot] = []
        async with Introspector(socket_path=False, clock=clock) as introspector:

            def callback() -> None:
                clock.advance(0.2)
                seen.append(snapshot_from_a_thread(introspector))

            with introspector.session("innocent", agent_name="a"):
                await asyncio.create_task(asyncio.sleep(0))
                asyncio.get_running_loop().call_soon(callback)
                await asyncio.sleep(0.001)
        return seen

    (snapshot,) = run_on_asyncio(main())
    assert [(block.session_id, round(block.duration_ms)) for block in snapshot.blocks_in_progress] == [(None, 200)]
    assert [row.status for row in snapshot.sessions] == ["active"]


def test_the_header_says_what_the_worker_is(virtually: Backend) -> None:
    """It has the worker's identity, limits and counts."""

    async def main() -> Any:
        async with Ticking(virtually, name="voice-a", memory_limit_mb=4096, max_sessions=80) as ticking:
            with (
                pytest.raises(ValueError, match="mine"),
                ticking.introspector.session("a", agent_name="test"),
            ):
                raise ValueError("mine")
            with anyio.CancelScope() as scope, ticking.introspector.session("b", agent_name="test"):
                scope.cancel()
                await anyio.sleep(1)
            with ticking.introspector.session("c", agent_name="test"):
                ticking.tick()
                await anyio.sleep(2)
                ticking.tick()
                ticking.introspector.draining = True
                return ticking.snapshot(), ticking.snapshot()

    first, second = virtually(main())
    worker = first.worker
    assert (worker.name, worker.pid) == ("voice-a", os.getpid())
    assert worker.loop == ("trio" if virtually.is_trio else "asyncio")
    assert (worker.sessions, worker.started, worker.errored) == (1, 3, 1)
    assert (worker.memory_limit_mb, worker.max_sessions, worker.draining) == (4096, 80, True)
    assert first.sessions[0].status == "draining"
    assert worker.uptime_s == pytest.approx(2)
    assert second.seq == first.seq + 1
    assert worker.epoch == second.worker.epoch != ""
    assert worker.introspection_pct is not None
    assert worker.host.cores >= 1


def test_there_is_no_snapshot_before_the_start() -> None:
    """The error says what to do."""
    introspector = Introspector()
    with pytest.raises(StateError, match="is not started: use `async with"):
        introspector.snapshot()


def test_a_snapshot_can_be_taken_after_the_end(virtually: Backend) -> None:
    """The last state can still be reported."""

    async def main() -> Any:
        async with Ticking(virtually) as ticking:
            pass
        return ticking.snapshot()

    assert virtually(main()).sessions == []


def test_snapshots_from_many_threads_agree_with_the_loop(on_timed_loops: Backend) -> None:
    """Accounts are read while they are written: totals never fall, and shares stay within bounds."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            problems: list[str] = []
            stop = threading.Event()

            def read() -> None:
                last = 0.0
                while not stop.is_set():
                    for row in introspector.snapshot().sessions:
                        assert row.cpu_s is not None
                        assert row.cpu_pct is not None
                        if row.session_id == "one" and row.cpu_s < last - 1e-6:
                            problems.append(f"{row.cpu_s} after {last}")
                        if row.session_id == "one":
                            last = row.cpu_s

            threads = [threading.Thread(target=read) for _ in range(2)]
            with (
                introspector.session("one", agent_name="test"),
                introspector.session("two", agent_name="test"),
            ):
                for thread in threads:
                    thread.start()
                for _ in range(2000):
                    await anyio.sleep(0)
                stop.set()
                for thread in threads:
                    thread.join()
            return problems

    assert on_timed_loops(main()) == []
