from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import anyio
import pytest
from ticking import Ticking

from openrtc_introspect_testing._loops.backends import Backend, in_task

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_a_share_is_of_the_last_seconds_not_of_a_lifetime(virtually: Backend) -> None:
    """A session that has become busy shows it at once."""

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


def test_a_row_says_when_the_last_step_ended(virtually: Backend) -> None:
    """A session waits since then; before its first step, since its start."""

    async def main() -> Any:
        async with Ticking(virtually) as ticking:
            started = virtually.clock()

            async def call() -> None:
                with ticking.introspector.session("job-1", agent_name="test"):
                    for _ in range(3):
                        virtually.block(0.01)
                        await anyio.sleep(2)
                    await anyio.sleep(60)

            async with anyio.create_task_group() as group:
                group.start_soon(call)
                await anyio.sleep(20)
                worker, row = (snapshot := ticking.snapshot()).worker, snapshot.sessions[0]
                group.cancel_scope.cancel()
            return worker.started_at + virtually.clock() - started, snapshot.taken_at, row.last_step_at

    now, taken_at, last_step_at = virtually(main())
    assert taken_at == pytest.approx(now, abs=1e-3, rel=0.0)
    # Three steps of 10 ms, each two seconds after the end of the one before; the fourth begins the long wait.
    assert taken_at - last_step_at == pytest.approx(20.0 - 6.03, abs=1e-3)


def test_a_session_whose_step_runs_has_no_last_step(virtually: Backend) -> None:
    """It waits for nothing. Once another's step runs, it has."""

    async def main() -> Any:
        async with Ticking(virtually) as ticking:
            started = ticking.snapshot().taken_at
            with ticking.introspector.session("runs", agent_name="test"):
                virtually.block(0.01)
                running = ticking.snapshot().sessions[0].last_step_at
                with ticking.introspector.session("inside", agent_name="test"):
                    outer, inner = (row.last_step_at for row in ticking.snapshot().sessions)
            return running, outer - started, inner

    running, outer, inner = virtually(main())
    assert (running, inner) == (None, None)
    assert outer == pytest.approx(0.01, abs=1e-5)


@pytest.mark.parametrize("cpu", ["off", "sampled"])
def test_without_timed_steps_no_last_step_is_known(virtually: Backend, cpu: str) -> None:
    """Samples do not see the ends of steps."""

    async def main() -> Any:
        async with Ticking(virtually, cpu=cpu) as ticking, anyio.create_task_group() as group:

            async def call() -> None:
                with ticking.introspector.session("job-1", agent_name="test"):
                    await anyio.sleep(2)

            group.start_soon(call)
            await anyio.sleep(1)
            return ticking.snapshot().sessions[0].last_step_at

    assert virtually(main()) is None


def test_a_session_that_failed_keeps_its_last_step(virtually: Backend) -> None:
    """It is the one in which it failed."""

    async def main() -> Any:
        async with Ticking(virtually) as ticking:

            async def call() -> None:
                with suppress(KeyError), ticking.introspector.session("job-1", agent_name="test"):
                    await anyio.sleep(2)
                    raise KeyError("menu")

            await in_task(call)
            await anyio.sleep(3)
            snapshot = ticking.snapshot()
            return snapshot.sessions[0].status, snapshot.taken_at - snapshot.sessions[0].last_step_at

    assert virtually(main()) == ("errored", pytest.approx(3.0, abs=1e-3))


def test_reading_consumes_nothing(virtually: Backend) -> None:
    """Two snapshots of one moment have the same totals, which are those of the session's life."""

    async def main() -> Any:
        async with Ticking(virtually) as ticking:
            with ticking.introspector.session("job-1", agent_name="test"):
                for _ in range(3):
                    virtually.block(0.5)
                    await anyio.sleep(1)
                rows = [ticking.snapshot().sessions[0] for _ in range(2)]
                return [(row.cpu_s, row.steps, row.blocks, row.worst_block_ms) for row in rows]

    first, second = virtually(main())
    assert first == second
    assert first[0] == pytest.approx(1.5)
    assert first[2:] == (3, pytest.approx(500.0))


def test_slow_lasts_as_long_as_asked(virtually: Backend) -> None:
    """A session is slow for five seconds after its block by default, then active again."""

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
    """Rows add up to RSS, whatever their number."""

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
