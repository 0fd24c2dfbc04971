"""`python -m profiling.sampling` (Python 3.15), which samples another process by reading its memory.

It reads threads' frames, and a metered task's coroutine as one of Python's own. So it shows what runs, and of a task
that waits the name.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.version_info < (3, 15), reason="new in Python 3.15")]

TARGET = """
import asyncio, json, sys
from openrtc_introspect_core import Introspector

def computes():
    total = 0
    for number in range(3_000):
        total += number * number
    return total

async def speaks():
    while True:
        computes()
        await asyncio.sleep(0)

async def waits():
    await asyncio.sleep(600)

async def main():
    async with Introspector(socket_path=False, black_box=False, stall_log=None) as introspector:
        async def in_session(work):
            with introspector.session(work.__name__, agent_name="test"):
                await asyncio.create_task(work(), name=f"task-{work.__name__}")

        async with asyncio.TaskGroup() as group:
            for work in (speaks, waits):
                group.create_task(in_session(work))
            while True:
                await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
                snapshot = introspector.snapshot()
                steps = {row.session_id: row.steps for row in snapshot.sessions}
                shares = {row.session_id: row.cpu_pct for row in snapshot.sessions}
                print(json.dumps([snapshot.worker.meter, snapshot.worker.notes, steps, shares]), flush=True)

asyncio.run(main())
"""


class Target:
    """A process with a session that computes and one that waits."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid
        self.meter = ""

    def read(self) -> tuple[list[str], dict[str, int], dict[str, float]]:
        """Return its notes, and its sessions' steps and shares."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.meter, notes, steps, shares = json.loads(self._process.stdout.readline())
        return notes, steps, shares


@pytest.fixture(scope="module", params=["c", "python"])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    environment = os.environ | {"OPENRTC_INTROSPECT_METER": request.param}
    command = [sys.executable, "-c", TARGET]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True) as process:
        try:
            target = Target(process)
            target.read()
            yield target
        finally:
            process.kill()


def profiler(*arguments: str | Path) -> str:
    """Return what the profiler prints, on this very Python."""
    command = [sys.executable, "-m", "profiling.sampling", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    output = done.stdout + done.stderr
    if re.search(r"PermissionError|Operation not permitted|Permission denied|requires? (elevated|sudo)", output):
        pytest.skip("this user may not read the memory of other processes")
    assert done.returncode == 0, output
    return output


def most_sampled(target: Target, folder: Path, *options: str) -> list[str]:
    """Return the functions and tasks of the stack in `computes` that was sampled most often, outermost first.

    A sample that was taken while the stack changed may mix two.
    """
    file = folder / "stacks"
    profiler("attach", "--duration", "2", "--collapsed", "--output", file, *options, str(target.pid))
    samples: Counter[str] = Counter()
    for line in file.read_text(encoding="utf-8").splitlines():
        frames, _, times = line.rpartition(" ")
        names = [re.sub(r"^(?:.*?:)?(\S+?):\d+$", r"\1", frame) for frame in frames.split(";")]
        if names[-1] == "computes":
            samples[";".join(names)] += int(times)
    return max(samples, key=samples.__getitem__).split(";")


def test_the_profiler_sees_the_stack_of_a_running_task(target: Target, tmp_path: Path) -> None:
    """From the loop on, with one frame of ours if the meter is in Python, and with none if it is in C."""
    stack = most_sampled(target, tmp_path)
    between = ["drive"] if target.meter == "Python" else []
    assert stack[stack.index("Handle._run") :] == ["Handle._run", *between, "speaks", "computes"]


def test_the_profiler_knows_the_task_that_runs(target: Target, tmp_path: Path) -> None:
    """Above its stack is its name, and above that the names of who awaits it."""
    stack = most_sampled(target, tmp_path, "--async-aware")
    assert "task-speaks" in stack[: stack.index("Handle._run")]


def test_the_profiler_dumps_a_waiting_task_without_its_stack(target: Target) -> None:
    """It shows who awaits it."""
    dump = profiler("dump", "--async-aware", str(target.pid))
    (waits,) = [part for part in dump.split("Stack dump") if "in task-waits" in part]
    assert re.search(r"in Task-\d+\n.*in task-waits\n\s*$", waits, re.DOTALL)
    assert "in waits" not in waits


def test_a_profiled_worker_is_measured_as_before(target: Target, tmp_path: Path) -> None:
    """The session that computes has the loop, nobody has steps of the other's, and nothing is switched off."""
    _, before, _ = target.read()
    most_sampled(target, tmp_path)
    notes, after, shares = target.read()
    assert notes == []
    assert after["speaks"] > before["speaks"]
    assert after["waits"] == before["waits"]
    assert shares["waits"] == 0 < shares["speaks"]
