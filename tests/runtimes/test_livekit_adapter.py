"""Real livekit-agents jobs in threads with loops of their own are sessions of one worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from livekit.agents.ipc.job_thread_executor import ThreadJobExecutor
from livekit.agents.job import JobContext
from runtimes.livekit_jobs import job_info

from openrtc_introspect_core import Snapshot, connect
from openrtc_introspect_core.adapters.livekit import introspected

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

WITHIN_S = 60.0
BLOCK_S = 0.3


def executor(entrypoint: Any) -> ThreadJobExecutor:
    return ThreadJobExecutor(
        initialize_process_fnc=lambda process: None,
        job_entrypoint_fnc=entrypoint,
        session_end_fnc=None,
        simulation_end_fnc=None,
        inference_executor=None,
        initialize_timeout=WITHIN_S,
        close_timeout=WITHIN_S,
        session_end_timeout=WITHIN_S,
        ping_interval=WITHIN_S,
        high_ping_threshold=WITHIN_S,
        http_proxy=None,
        loop=asyncio.get_running_loop(),
    )


def blocks_of(session_id: str, snapshot: Snapshot) -> int:
    return sum(row.blocks for row in snapshot.sessions if row.session_id == session_id)


async def snapshot_when(path: Path, condition: Callable[[Snapshot], bool]) -> Snapshot:
    deadline = time.monotonic() + WITHIN_S
    while True:
        if path.exists():
            async with connect(path) as client:
                snapshot = await client.snapshot()
            if condition(snapshot):
                return snapshot
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_each_jobs_loop_is_measured(tmp_path_factory: pytest.TempPathFactory) -> None:
    """There are three jobs on three loops. One blocks and delays no session: the others have other loops."""
    folder = tmp_path_factory.mktemp("rt")
    folder.chmod(0o700)
    path = folder / "w.sock"

    @introspected(name="threads", socket_path=path)
    async def entrypoint(ctx: JobContext) -> None:
        calls.append(asyncio.create_task(call(ctx.job.id)))

    async def call(job_id: str) -> None:
        while True:
            await asyncio.sleep(0.02)
            if job_id == "job-1":
                time.sleep(BLOCK_S)

    calls: list[asyncio.Task[None]] = []
    executors = [executor(entrypoint) for _ in range(3)]
    for number, each in enumerate(executors):
        await each.start()
        await each.initialize()
        await each.launch_job(job_info(number, metadata='{"tenant": "acme"}', agent_name="restaurant", fake=True))
    try:
        seen = await snapshot_when(path, lambda s: blocks_of("job-1", s) >= 2 and len(s.sessions) == 3)
        async with connect(path) as client:
            blocks = (await client.blocks()).blocks
    finally:
        for each in executors:
            await each.aclose()
    rows = {row.session_id: row for row in seen.sessions}
    assert {(row.agent_name, row.tenant) for row in rows.values()} == {("restaurant", "acme")}
    assert len({row.loop for row in rows.values()}) == 3
    assert rows["job-1"].worst_block_ms >= 1000 * BLOCK_S
    assert next(block.delayed for block in blocks if block.session_id == "job-1" and block.cause == "sync-call") == []
    after = await snapshot_when(path, lambda s: not s.sessions)
    assert after.worker.started == 3
