from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
import trio
from ticking import Ticking

from openrtc_introspect_core._service.loop_statistics import sum_of
from openrtc_introspect_testing._loops.backends import Backend, in_task

Run = Callable[[Coroutine[Any, Any, Any]], Any]


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


def test_iterations_a_second_are_those_of_the_last_one_to_two_seconds(virtually: Backend) -> None:
    """Not those before."""

    async def main() -> Any:
        async with Ticking(virtually) as ticking:
            rates = [ticking.snapshot().worker.iterations_per_s]
            for _ in range(100):
                await anyio.sleep(0.01)
            rates.append(ticking.snapshot().worker.iterations_per_s)
            for _ in range(2):
                ticking.tick()
                await anyio.sleep(1.01)
            rates.append(ticking.snapshot().worker.iterations_per_s)
            return rates

    first, fast, slow = virtually(main())
    assert first is None
    assert fast == pytest.approx(200, abs=6)  # `anyio.sleep` yields first
    assert slow == pytest.approx(2, abs=2)


def test_on_uvloop_iterations_are_not_counted() -> None:
    """Nobody sees them."""

    async def main() -> Any:
        async with Ticking(Backend("uvloop")) as ticking:
            await anyio.sleep(0.01)
            return ticking.snapshot().worker.iterations_per_s

    assert Backend("uvloop")(main()) is None


@pytest.mark.parametrize(("rates", "total"), [([1.0, 2.0], 3.0), ([1.0, None], None), ([], None)])
def test_the_iterations_of_several_loops_add_up(rates: list[float | None], total: float | None) -> None:
    """If those of one are not known, neither is the sum."""
    assert sum_of(rates) == total
