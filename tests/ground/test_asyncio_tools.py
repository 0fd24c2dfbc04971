"""Tools that show a process's tasks from outside, and profilers that know of coroutines.

`python -m asyncio ps` and `pstree` read a task's coroutine in another process's memory, as if it was one of Python's
own. A metered task's is not. They show the task, its name and who awaits it, without its stack.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TARGET = """
import asyncio, sys
from openrtc_introspect_core import Introspector

async def waits():
    await asyncio.sleep(600)

async def agent():
    async with asyncio.TaskGroup() as group:
        for name in "AB":
            group.create_task(waits(), name=name)

async def main():
    async with Introspector(socket_path=False, black_box=False, stall_log=None) as introspector:
        async def in_session(number):
            with introspector.session(f"s{number}", agent_name="test"):
                await asyncio.create_task(agent(), name=f"agent-{number}")

        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(in_session(number), name=f"session-{number}")
            await asyncio.sleep(0.2)
            print("ready", flush=True)

asyncio.run(main())
"""


@pytest.fixture(scope="module", params=["c", "python"])
def target(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run a process with metered tasks, and return its number."""
    environment = os.environ | {"OPENRTC_INTROSPECT_METER": request.param}
    command = [sys.executable, "-c", TARGET]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process.pid
        finally:
            process.kill()


def shown_by(tool: str, pid: int) -> str:
    """Return what a tool of asyncio prints of a process, on this very Python."""
    command = [sys.executable, "-m", "asyncio", tool, str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    output = done.stdout + done.stderr
    if re.search(r"PermissionError|Operation not permitted|Permission denied|requires? (elevated|sudo)", output):
        pytest.skip("this user may not read the memory of other processes")
    assert done.returncode == 0, output
    return output


@pytest.mark.skipif(sys.version_info < (3, 14), reason="new in Python 3.14")
def test_the_table_has_each_task_without_its_stack(target: int) -> None:
    """With its name, and the task that awaits it."""
    lines = shown_by("ps", target).splitlines()
    rows = {match[1]: match[2].split() for line in lines if (match := re.match(r"\d+ +0x\w+ +(\S+) +(.*?) *$", line))}
    assert len(rows) == 1 + 20 * 2 + 2  # A and B are several
    awaiter, address = rows["A"][-2:]
    assert (awaiter[:6], address[:2], rows["A"][:-2]) == ("agent-", "0x", [])
    assert rows["agent-7"][-2] == "session-7"


@pytest.mark.skipif(sys.version_info < (3, 14), reason="new in Python 3.14")
def test_the_tree_has_each_task_below_the_one_that_awaits_it(target: int) -> None:
    """The tree is whole, though the lines of the metered tasks are missing."""
    tree = shown_by("pstree", target)
    names = re.findall(r"\(T\) (\S+)", tree)
    assert names[0] == "Task-1"
    assert (names.count("A"), names.count("B"), len(names)) == (20, 20, 81)
    at = names.index("session-7")
    assert names[at : at + 2] == ["session-7", "agent-7"]
    assert sorted(names[at + 2 : at + 4]) == ["A", "B"]
    assert Path(__file__).name not in tree


PROFILED = """
import asyncio
from pyinstrument import Profiler
from openrtc_introspect_core import Introspector

async def waits():
    await asyncio.sleep(0.3)

async def session(introspector):
    with introspector.session("one", agent_name="test"):
        profiler = Profiler(async_mode="enabled")
        profiler.start()
        await asyncio.sleep(0)
        sum(range(WORK))
        await waits()
        profiler.stop()
        return profiler

async def main():
    async with Introspector(socket_path=False, black_box=False, stall_log=None) as introspector:
        profiler = await asyncio.create_task(session(introspector))
    print(profiler.output_text(show_all=True))

asyncio.run(main())
"""


def profile(meter: str, work: int) -> str:
    """Return pyinstrument's report of a session that computes, and then waits for 0.3 s."""
    pytest.importorskip("pyinstrument")
    environment = os.environ | {"OPENRTC_INTROSPECT_METER": meter}
    command = [sys.executable, "-c", PROFILED.replace("WORK", str(work))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("work", [0, 200_000])
def test_pyinstrument_shows_what_a_task_awaits_with_the_meter_in_c(work: int) -> None:
    """After a short step, and after one that leaves a span."""
    assert re.search(r"waits .*\n.*sleep .*\n.*\[await\]", profile("c", work))


def test_pyinstrument_shows_the_selector_instead_with_the_meter_in_python() -> None:
    """It takes a frame that is no coroutine's, as the meter's, for the end of what awaits."""
    report = profile("python", 0)
    assert "[await]" not in report
    assert "select" in report
