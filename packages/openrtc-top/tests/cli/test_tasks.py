"""`openrtc tasks`: the tree of a real session's tasks, and the errors if there is none."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from openrtc_introspect_core.wire import SessionRow, Snapshot, TaskInfo, Tasks, WallTime
from openrtc_introspect_testing import FakeWorker
from openrtc_top._cli.app import app

OpenRTC = Callable[..., subprocess.CompletedProcess[str]]

# The entrypoint waits for two tasks of its own; a third one waits for itself to be asked.
WORKER = """
import asyncio, sys
from openrtc_introspect_core import Introspector

async def listen():
    await asyncio.sleep(3600)

async def speak(lines):
    await lines.get()

async def entrypoint(introspector, job):
    with introspector.session(job, agent_name="restaurant"):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(listen(), name="listen")
            tasks.create_task(speak(asyncio.Queue()), name="speak")

async def main():
    async with Introspector(name=sys.argv[1], slow_session_threshold_ms=60_000) as introspector:
        calls = [asyncio.create_task(entrypoint(introspector, f"job-{n}"), name=f"call-{n}") for n in range(2)]
        await asyncio.sleep(0.05)
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        for task in calls:
            task.cancel()

asyncio.run(main())
"""


@pytest.fixture
def lonely(make_snapshot: Callable[..., Snapshot], make_session: Callable[..., SessionRow]) -> Iterator[FakeWorker]:
    """A worker with three sessions."""
    ids = ("job-c1d550", "job-c1d551", "call-9f")
    with FakeWorker([make_snapshot(*(make_session(each) for each in ids))]) as fake:
        yield fake


def test_tree(start_worker: Callable[..., Any], openrtc: OpenRTC) -> None:
    """Whoever waits stands above what it waits for; each task has its line."""
    start_worker("tree", code=WORKER)
    result = openrtc("tasks", "job-1", "--worker", "tree")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert re.match(r" call-1 +waiting  .*:\d+ in entrypoint", lines[0])
    assert re.match(r" ├─ listen +waiting  .*:\d+ in listen › .*sleep", lines[1])
    assert re.match(r" └─ speak +waiting  .*:\d+ in speak › ", lines[2])
    assert re.match(r" time +of \d+:\d\d: running ", lines[3])
    assert len(lines) == 4
    document = json.loads(CliRunner().invoke(app, ["tasks", "job-1", "--worker", "tree", "--json"]).stdout)
    assert (document["type"], document["session_id"]) == ("tasks", "job-1")
    assert {task["name"] for task in document["tasks"]} == {"call-1", "listen", "speak"}


def test_through_a_relay(start_worker: Callable[..., Any]) -> None:
    """The same of another host."""
    start_worker("far-tree", code=WORKER)
    via = f"voice-3={sys.executable} -m openrtc_top relay --worker far-tree"
    result = CliRunner().invoke(app, ["tasks", "job-0", "--via", via])
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(result.stdout.splitlines()) == 4


@pytest.mark.parametrize(
    ("session", "said"),
    [
        ("c1d", "no session 'c1d'; near it: job-c1d550, job-c1d551"),
        ("job-c1d559", "no session 'job-c1d559'; near it: job-c1d550, job-c1d551"),
        ("\x1b[2J", "no session '\\x1b[2J', of 3 that live"),
    ],
)
def test_no_such_session(session: str, said: str, lonely: FakeWorker) -> None:
    """One line with similar ones; exit code 1."""
    result = CliRunner().invoke(app, ["tasks", session, "--socket", str(lonely.path)])
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"error: {said}\n")


def test_a_worker_that_lists_no_tasks_is_not_asked(
    make_snapshot: Callable[..., Snapshot], make_session: Callable[..., SessionRow]
) -> None:
    """One line says so: it is of an older version, or in process mode."""
    with FakeWorker([make_snapshot(make_session("job-1"))], misbehave="older-minor") as worker:
        result = CliRunner().invoke(app, ["tasks", "job-1", "--socket", str(worker.path)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: worker 'fake' answers no tasks requests: it is too old, or ")


def test_what_the_time_went_to(make_snapshot: Callable[..., Snapshot], make_session: Callable[..., SessionRow]) -> None:
    """It stands below the tasks, and is in the JSON."""
    time = WallTime(total_s=60.0, running_s=6.0, in_threads_s=54.0)
    answer = Tasks(id=0, session_id="job-1", tasks=[TaskInfo(id=1, name="call")], wall_time=time)
    with FakeWorker([make_snapshot(make_session("job-1"))], tasks={"job-1": answer}) as worker:
        result = CliRunner().invoke(app, ["tasks", "job-1", "--socket", str(worker.path)])
        document = json.loads(
            CliRunner().invoke(app, ["tasks", "job-1", "--json", "--socket", str(worker.path)]).stdout
        )
    assert result.stdout.splitlines() == [" call  waiting", " time      of 1:00: running 10 %, in threads ~90 %"]
    assert document["wall_time"]["in_threads_s"] == 54.0


def test_no_session_at_all(make_snapshot: Callable[..., Snapshot]) -> None:
    """There is none to be near to."""
    with FakeWorker([make_snapshot()]) as worker:
        result = CliRunner().invoke(app, ["tasks", "x", "--socket", str(worker.path)])
    assert (result.exit_code, result.stderr) == (1, "error: no session 'x'; none lives\n")


def test_a_worker_that_does_not_answer() -> None:
    """Is an error, and so is an argument that is missing."""
    result = CliRunner().invoke(app, ["tasks", "x", "--socket", "/nowhere/x.sock"])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no worker answers at '/nowhere/x.sock'")
    assert result.stderr.count("\n") == 1
    assert CliRunner().invoke(app, ["tasks"]).exit_code == 2
