"""Real livekit-agents jobs are sessions with their ids in a program that `openrtc run` runs, without a change of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from openrtc_introspect_core import read_snapshot

pytestmark = pytest.mark.slow

PROGRAM = """
import asyncio, sys
from livekit.agents.ipc.job_thread_executor import ThreadJobExecutor
from runtimes.livekit_jobs import job_info

WITHIN_S = 60.0
calls = []

async def entrypoint(ctx):
    calls.append(asyncio.create_task(asyncio.Event().wait()))

def executor(entrypoint):
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

async def main():
    executors = [executor(entrypoint) for _ in range(2)]
    for number, each in enumerate(executors):
        await each.start()
        await each.initialize()
        await each.launch_job(job_info(number, metadata='{"tenant": "acme"}', agent_name="restaurant", fake=True))
    while len(calls) < 2:
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    for each in executors:
        await each.aclose()

asyncio.run(main())
"""


def test_jobs_are_sessions_without_a_change_of_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have the job's id, agent and tenant, on the loop of their thread."""
    monkeypatch.setenv("OPENRTC_RUNTIME_DIR", str(tmp_path / "rt"))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )
    (tmp_path / "my_worker.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "openrtc_introspect_core", "my_worker.py"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "ready\n" in iter(process.stdout.readline, "")
            (socket,) = (tmp_path / "rt").glob("*.sock")
            rows = {row.session_id: row for row in read_snapshot(socket).sessions}
            process.communicate("\n", timeout=120)
        finally:
            process.kill()
    assert process.returncode == 0
    jobs = [rows["job-0"], rows["job-1"]]
    assert {(row.agent_name, row.tenant) for row in jobs} == {("restaurant", "acme")}
    assert len({row.loop for row in jobs}) == 2
