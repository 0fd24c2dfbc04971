from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
import trio

from openrtc_introspect_core import Introspector, Snapshot, StateError
from openrtc_introspect_testing._backends import Backend, in_task
from openrtc_introspect_testing._clock import FakeClock

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Ticking:
    """An introspector whose service thread samples nothing: the test ticks, on virtual time."""

    def __init__(self, backend: Backend, **arguments: Any) -> None:
        self.backend = backend
        self.introspector = Introspector(socket_path=False, clock=backend.clock, **arguments)
        self._tick = self.introspector._tick
        self.introspector._tick = lambda now: None  # type: ignore[method-assign]

    async def __aenter__(self) -> Ticking:
        await self.introspector.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.introspector.__aexit__(*error)

    def tick(self) -> None:
        self._tick(self.backend.clock())

    def snapshot(self) -> Snapshot:
        return self.introspector.snapshot()


def test_a_share_is_of_the_last_seconds_not_of_a_lifetime(virtually: Backend) -> None:
    """A session that went busy now shows it now."""

    async def main() -> Any:
        async with Ticking(virtually) as ticking:
            with ticking.introspector.session("job-1", agent_name="test"):
                for _ in range(100):
                    await anyio.sleep(1)
                    ticking.tick()
                quiet = ticking.snapshot().sessions[0].cpu_pct
                for _ in range(20):
                    virtually.block(0.04)
                    await anyio.sleep(0.06)
                    if virtually.clock() % 1 < 0.1:
                        ticking.tick()
                return quiet, ticking.snapshot().sessions[0].cpu_pct

    quiet, busy = virtually(main())
    assert quiet == pytest.approx(0.0, abs=0.01)
    assert busy == pytest.approx(40.0, abs=4)


def test_parts_of_the_loop_s_time_add_up(virtually: Backend) -> None:
    """Sessions, untagged tasks, callbacks and idle make 100 %. Trio runs callbacks in a task of its own."""

    async def main() -> Any:
        async with Ticking(virtually) as ticking:
            call_soon = (
                trio.lowlevel.current_trio_token().run_sync_soon
                if virtually.is_trio
                else asyncio.get_running_loop().call_soon
            )

            async def untagged() -> None:
                virtually.block(0.02)

            async def tagged() -> None:
                virtually.block(0.03)

            for _ in range(20):
                await in_task(untagged)
                with ticking.introspector.session("job-1", agent_name="test"):
                    await in_task(tagged)
                call_soon(virtually.block, 0.01)
                await anyio.sleep(0.05)  # 0.01 of it are the callback's
            return ticking.snapshot().worker.loop_time

    parts = virtually(main())
    assert parts.sessions_pct == pytest.approx(30, abs=0.1)
    callbacks = 10
    assert parts.untagged_pct == pytest.approx(20 + virtually.is_trio * callbacks, abs=0.1)
    assert parts.other_pct == pytest.approx((not virtually.is_trio) * callbacks, abs=0.1)
    assert parts.idle_pct == pytest.approx(40, abs=0.1)


def looked_at_from_a_thread(introspector: Introspector) -> Snapshot:
    """What another thread sees while this one, the loop's, is held."""
    seen: list[Snapshot] = []
    looker = threading.Thread(target=lambda: seen.append(introspector.snapshot()))
    looker.start()
    looker.join()
    return seen[0]


def test_the_step_in_progress_shows_as_blocked_and_growing(on_any_loop: Backend) -> None:
    """Read from another thread while the loop is held; slow when it is over."""

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, clock=clock) as introspector:

            async def hold() -> list[Snapshot]:
                clock.advance(0.04)
                early = looked_at_from_a_thread(introspector)
                clock.advance(2.96)
                first = looked_at_from_a_thread(introspector)
                clock.advance(1)
                return [early, first, looked_at_from_a_thread(introspector)]

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


def test_a_callback_in_progress_is_a_block_of_nobody(run_on_asyncio: Run) -> None:
    """The loop is stuck, and no session is shown as blocked."""

    async def main() -> Any:
        clock = FakeClock()
        seen: list[Snapshot] = []
        async with Introspector(socket_path=False, clock=clock) as introspector:

            def callback() -> None:
                clock.advance(0.2)
                seen.append(looked_at_from_a_thread(introspector))

            with introspector.session("innocent", agent_name="a"):
                await asyncio.create_task(asyncio.sleep(0))
                asyncio.get_running_loop().call_soon(callback)
                await asyncio.sleep(0.001)
        return seen

    (snapshot,) = run_on_asyncio(main())
    assert [(block.session_id, round(block.duration_ms)) for block in snapshot.blocks_in_progress] == [(None, 200)]
    assert [row.status for row in snapshot.sessions] == ["active"]


def test_slow_lasts_as_long_as_asked(virtually: Backend) -> None:
    """Five seconds after the block by default, then active again."""

    async def main() -> Any:
        async with Ticking(virtually) as ticking:
            with ticking.introspector.session("job-1", agent_name="test"):
                virtually.block(0.06)
                await anyio.sleep(4.9)
                before = ticking.snapshot().sessions[0]
                await anyio.sleep(0.2)
                return before, ticking.snapshot().sessions[0]

    before, after = virtually(main())
    assert (before.status, after.status) == ("slow", "active")
    assert (after.blocks, round(after.worst_block_ms)) == (1, 60)


def test_memory_shares_add_up_to_the_resident_set(virtually: Backend) -> None:
    """Rows sum to RSS, whatever their number."""

    async def main() -> Any:
        async with Ticking(virtually) as ticking:
            with (
                ticking.introspector.session("a", agent_name="test"),
                ticking.introspector.session("b", agent_name="test"),
                ticking.introspector.session("c", agent_name="test"),
            ):
                return ticking.snapshot()

    snapshot = virtually(main())
    assert sum(row.mem_mb for row in snapshot.sessions) == pytest.approx(snapshot.worker.rss_mb)
    assert all(row.peak_mb >= row.mem_mb > 0 for row in snapshot.sessions)


def test_the_lag_is_that_of_a_random_moment(virtually: Backend) -> None:
    """One iteration of 0.5 s in 10 s: one moment in a hundred waits longer than 0.4 s for its rest."""

    async def main() -> Any:
        async with Ticking(virtually, slow_session_threshold_ms=1000) as ticking:
            virtually.block(0.5)
            await anyio.sleep(9.5)
            return ticking.snapshot().worker

    worker = virtually(main())
    assert worker.lag_p99_ms == pytest.approx(400, rel=0.01)
    assert worker.lag_max_ms == pytest.approx(500, rel=0.01)
    assert worker.lag_method == "iterations"


def test_a_quiet_loop_has_no_lag(virtually: Backend) -> None:
    """0 is measured here, not unknown."""

    async def main() -> Any:
        async with Ticking(virtually) as ticking:
            await anyio.sleep(10)
            return ticking.snapshot().worker

    worker = virtually(main())
    assert (worker.lag_p99_ms, worker.lag_max_ms) == (0.0, 0.0)


def test_the_header_says_what_the_worker_is(virtually: Backend) -> None:
    """Identity, limits and counts."""

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
    """The last state is still there for whoever wants to report it."""

    async def main() -> Any:
        async with Ticking(virtually) as ticking:
            pass
        return ticking.snapshot()

    assert virtually(main()).sessions == []


def test_snapshots_from_many_threads_agree_with_the_loop(on_timed_loops: Backend) -> None:
    """Read while it is written: totals never fall and shares stay within bounds."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            problems: list[str] = []
            stop = threading.Event()

            def look() -> None:
                last = 0.0
                while not stop.is_set():
                    for row in introspector.snapshot().sessions:
                        assert row.cpu_s is not None
                        assert row.cpu_pct is not None
                        if row.session_id == "one" and row.cpu_s < last - 1e-6:
                            problems.append(f"{row.cpu_s} after {last}")
                        if row.session_id == "one":
                            last = row.cpu_s

            threads = [threading.Thread(target=look) for _ in range(2)]
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
