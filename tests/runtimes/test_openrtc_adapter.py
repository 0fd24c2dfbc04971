"""A real session in the coroutine mode of the openrtc package shows its tasks, its blocks and its end."""

from __future__ import annotations

import asyncio
import importlib
import pickle
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import openrtc
import pytest
from livekit.agents.ipc.mock_room import create_mock_room
from livekit.agents.job import JobContext, JobExecutorType, JobProcess, RunningJobInfo
from openrtc.core.wiring import run_session, run_session_end
from openrtc.runtime.coroutine_runtime import CoroutineJobExecutor
from openrtc.runtime.resources import PrewarmResources
from runtimes.livekit_jobs import job_info

from openrtc_introspect_core import Introspector, SessionRow
from openrtc_introspect_core.adapters.openrtc import Observer

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
example: Any = importlib.import_module("livekit_sessions")
"""The LiveKit example, with its agents and its scripted language model."""

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

WITHIN_S = 60.0
BLOCK_S = 0.2


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Blocking(example.Dental):  # type: ignore[misc]
    async def on_enter(self) -> None:
        await asyncio.sleep(0.3)
        time.sleep(BLOCK_S)


def connected(info: RunningJobInfo) -> JobContext:
    """Return a job's context with a room that needs no network."""
    process = JobProcess(executor_type=JobExecutorType.THREAD, user_arguments=None, http_proxy=None)
    PrewarmResources(vad=None, turn_detection_factory=None).store(process)
    context = JobContext(
        proc=process,
        info=info,
        room=create_mock_room(),
        on_connect=lambda: None,
        on_shutdown=lambda reason: None,
        inference_executor=None,
    )
    context._connected = True
    return context


async def row_when(observer: Observer, condition: Any) -> SessionRow | None:
    """Return the session's row when it meets the condition. The row is None if there is no session."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        introspector: Introspector | None = observer.process.introspector
        rows = introspector.snapshot().sessions if introspector is not None else []
        row = rows[0] if rows else None
        if condition(row):
            return row
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_session_is_observed() -> None:
    """It has the pool's names of agent and tenant, and the tasks that are older than its scope."""
    observer = Observer(name="openrtc", socket_path=False)
    pool = openrtc.AgentPool(
        agents={"dental": Blocking},
        default_llm=example.ScriptedLLM(example.SCRIPTS["dental"]),
        enable_introspection=False,
        observers=[observer],
    )
    executor = CoroutineJobExecutor(
        entrypoint_fnc=partial(run_session, pool._runtime_state),
        session_end_fnc=run_session_end,
        context_factory=connected,
    )
    await executor.start()
    await executor.launch_job(job_info(1, metadata='{"tenant": "acme", "agent": "dental"}'))
    row = await row_when(observer, lambda row: row is not None and row.blocks)
    assert row is not None
    assert (row.session_id, row.agent_name, row.tenant) == ("job-1", "dental", "acme")
    assert row.tasks is not None
    assert row.tasks > 5
    introspector = observer.process.introspector
    assert introspector is not None
    (block,) = [block for block in introspector.blocks() if block.session_id == "job-1" and block.cause == "sync-call"]
    assert block.location is not None
    assert block.location.function == "Blocking.on_enter"
    tasks = await asyncio.to_thread(introspector.tasks, "job-1")
    assert "CoroutineJobExecutor._run_entrypoint" in {task.coroutine for task in tasks}
    await executor.aclose()
    assert await row_when(observer, lambda row: row is None) is None
    introspector.close()


def test_an_observer_can_be_pickled() -> None:
    """The pool's process mode sends it to other processes."""
    observer = pickle.loads(pickle.dumps(Observer(name="openrtc", slow_session_threshold_ms=80)))
    assert isinstance(observer, openrtc.SessionObserver)
