from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._base.log import flush
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_testing._loops.backends import Backend, in_task
from openrtc_introspect_testing._loops.introspection_threads import ours_end

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_a_sample_adds_its_interval_to_the_session_seen_running(virtually: Backend) -> None:
    """CPU seconds are samples times the interval; a task outside of sessions adds to none."""

    async def main() -> Any:
        async with Introspector(
            cpu="sampled", sample_interval_s=1000, socket_path=False, clock=virtually.clock
        ) as introspector:
            sampler = parts_of(introspector).shared.sampler
            assert sampler is not None

            async def work() -> None:
                sampler.sample()
                sampler.sample()

            with introspector.session("job-1", agent_name="test") as session:
                sampler.sample()
                await in_task(work)
                counted = session.tasks
            await in_task(work)
            return session.busy, session.steps, counted

    assert virtually(main()) == (3000, 3, 1)


def test_an_inner_scope_is_seen_and_the_outer_one_after_it(virtually: Backend) -> None:
    """A sample sees the session that is bound now, however old the task is."""

    async def main() -> Any:
        async with Introspector(cpu="sampled", socket_path=False) as introspector:
            hook = parts_of(introspector).loops[0].hook
            seen = []
            with introspector.session("outer", agent_name="test"):
                with introspector.session("inner", agent_name="test"):
                    seen.append(hook.running_session())
                seen.append(hook.running_session())
            return [session.session_id for session in seen if session is not None], hook.running_session()

    assert virtually(main()) == (["inner", "outer"], None)


@pytest.mark.slow
def test_a_blocking_session_is_seen_blocking(on_timed_loops: Backend) -> None:
    """Sampling sees a call that releases the GIL: the block is attributed to its session."""

    async def main() -> Any:
        async with Introspector(cpu="sampled", sample_interval_s=0.002, socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test") as session:
                await anyio.sleep(0.001)
                time.sleep(0.15)
                await anyio.sleep(0.001)
            return session.busy, introspector.blocks()

    busy, blocks = on_timed_loops(main())
    assert busy > 0.01
    assert "job-1" in [block.session_id for block in blocks]


def test_a_failing_sampler_is_switched_off_and_noted_once(
    on_timed_loops: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """The sessions go on; the snapshot says that sampling has ended."""

    async def main() -> Any:
        # What a busy machine does to the loop is no block here, and is not logged.
        options = {"cpu": "sampled", "sample_interval_s": 0.001, "slow_session_threshold_ms": 60_000}
        async with Introspector(socket_path=False, **options) as introspector:
            sampler: Any = parts_of(introspector).shared.sampler

            def broken() -> None:
                raise OSError("no")

            sampler.sample = broken
            with introspector.session("job-1", agent_name="test"):
                while sampler.is_alive():
                    await anyio.sleep(0.001)
            return introspector.snapshot().worker.notes

    (note,) = on_timed_loops(main())
    assert "the sampler is switched off: OSError('no')" in note
    assert flush(60.0)
    assert len(caplog.records) == 1


@pytest.mark.slow
def test_it_sleeps_while_no_session_lives(on_timed_loops: Backend) -> None:
    """The thread takes no samples without sessions, and ends with the introspector."""

    async def main() -> Any:
        async with Introspector(cpu="sampled", sample_interval_s=0.001, socket_path=False) as introspector:
            sampler = parts_of(introspector).shared.sampler
            assert sampler is not None
            await anyio.sleep(0.02)
            return [len(seen) for seen in sampler.seen.values()]

    assert on_timed_loops(main()) == [0]
    assert ours_end()


def test_off_counts_tasks_and_memory_and_says_nothing_of_time(virtually: Backend) -> None:
    """Fields that are not measured are null, not 0."""

    async def main() -> Any:
        async with Introspector(cpu="off", socket_path=False) as introspector:
            with introspector.session("job-1", agent_name="test"):
                async with anyio.create_task_group() as group:
                    group.start_soon(anyio.sleep, 1)
                    await anyio.sleep(0)
                    (row,) = introspector.snapshot().sessions
                await anyio.sleep(0)
                (after,) = introspector.snapshot().sessions
                return row, after

    row, after = virtually(main())
    assert (row.cpu_s, row.cpu_pct, row.steps) == (None, None, None)
    assert row.mem_mb > 0
    assert (row.tasks, after.tasks) == (2, 1)
