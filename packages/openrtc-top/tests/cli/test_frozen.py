"""The commands of a worker that does not answer: what its black box says, with the exit codes as ever."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from openrtc_introspect_core._native import native
from openrtc_introspect_core.wire import Block
from openrtc_top._cli import complete
from openrtc_top._cli.app import app
from openrtc_top._client import query
from openrtc_top._client.black_boxes import read_live_box
from openrtc_top._client.targets import find
from openrtc_top._model.box_reading import BoxReading

Frozen = Callable[..., Any]  # makes a FrozenWorker, see conftest.py
InTerminal = Callable[..., Any]  # a FakeTerminal, see conftest.py
OpenRTC = Callable[..., subprocess.CompletedProcess[str]]
RELAY = f"{sys.executable} -m openrtc_top relay --worker voice-a"
"""Others may run workers on this machine."""
NOTE = (
    r"note: voice-a pid 41213 does not answer: job-c1d550 has held the loop for \d+\.\d s at agents/menu.py:42 in "
    r"lookup_menu \(native\); the rest is as of \d+ s ago\n"
)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def test_top_once(frozen: Frozen) -> None:
    """The table as it was, with the session that is BLOCKED now, and how old the rest is."""
    frozen()
    result = run("top", "--once")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert re.search(r" · as of \d+ s ago · ", lines[0])
    pattern = r" BLOCKED \d+\.\d s  job-c1d550  restaurant  agents/menu.py:42 in lookup_menu  \(native\)"
    assert any(re.fullmatch(pattern, line) for line in lines)
    assert re.search(r"job-c1d550 .* BLOCKED ", result.stdout)
    assert re.search(r"job-77ab02 .* active ", result.stdout)


def test_top_json(frozen: Frozen) -> None:
    """The wire's own form, as of the last record, with the block in progress."""
    frozen()
    result = run("top", "--json")
    assert result.exit_code == 0
    assert re.fullmatch(NOTE, result.stderr)
    (block,) = json.loads(result.stdout)["blocks_in_progress"]
    assert (block["session_id"], block["cause"], block["duration_ms"] >= 8000.0) == ("job-c1d550", "native", True)


def test_ps(frozen: Frozen) -> None:
    """It is listed as it was, and a line says what holds it."""
    worker = frozen()
    result = run("ps")
    assert (result.exit_code, result.stderr) == (0, "")
    _, row, line = result.stdout.splitlines()
    assert row.split()[:2] == ["voice-a", "41213"]
    assert row.endswith(str(worker.path))
    assert re.fullmatch(NOTE.removeprefix("note: "), f"{line}\n")
    document = json.loads(run("ps", "--json").stdout)
    assert document["name"] == "voice-a"
    assert document["as_of"] > 1e9


def test_ps_of_a_worker_that_answers(frozen: Frozen) -> None:
    """It is as of now, which is not said."""
    frozen().thawed.set()
    assert json.loads(run("ps", "--json").stdout)["as_of"] is None
    assert len(run("ps").stdout.splitlines()) == 2


def test_blocks(frozen: Frozen) -> None:
    """Those of its box, and the one in progress at the end."""
    frozen(blocks=[Block(seq=1, session_id="job-77ab02", duration_ms=71.0), Block(seq=2, session_id="job-9")])
    result = run("blocks", "--since", "1", "--stacks")
    assert result.exit_code == 0
    assert re.fullmatch(NOTE, result.stderr)
    _, first, _, last, *stack = result.stdout.splitlines()
    assert "job-9" in first
    assert re.search(r" \d+\.\d s…  job-c1d550 .* native +agents/menu.py:42 in lookup_menu", last)
    assert [call.strip() for call in stack] == ["agents/call.py:18 in entrypoint", "agents/menu.py:42 in lookup_menu"]


def test_diagnose(frozen: Frozen) -> None:
    """It is a finding at once: who holds the loop at which line, since when."""
    frozen()
    result = run("diagnose", "--seconds", "60")
    assert result.exit_code == 3
    assert re.fullmatch(NOTE, result.stderr)
    heading, title, seen, *_ = result.stdout.splitlines()
    assert re.fullmatch(r"voice-a · pid 41213 · 2 sessions · frozen since \d\d:\d\d:\d\d · as of \d+ s ago", heading)
    pattern = r" CRITICAL blocked-now: job-c1d550 \(restaurant\) has been holding the loop for \d+\.\d s"
    assert re.fullmatch(pattern, title)
    assert "agents/menu.py:42 in lookup_menu" in seen
    document = json.loads(run("diagnose", "--json").stdout)
    assert [finding["code"] for finding in document["findings"]] == ["blocked-now"]
    assert document["as_of"] > 1e9


def test_diagnose_a_worker_that_answers_nothing(frozen: Frozen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loop is free, by its box: there is no finding, and no answer."""
    monkeypatch.setattr(query, "READ_TIMEOUT_S", 0.5)
    frozen(held_s=None)
    result = run("diagnose")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: no worker answers at ")


def test_tasks(frozen: Frozen) -> None:
    """The box has none: the stack of the session, why there are no more, and the exit code of no answer."""
    frozen()
    result = run("tasks", "job-c1d550")
    assert result.exit_code == 1
    assert result.stdout.split("\n")[1].strip() == "agents/menu.py:42 in lookup_menu"
    held = r"error: voice-a is frozen, {} has held its loop for \d+\.\d s: its tasks cannot be had until .*\n"
    assert re.fullmatch(held.format("this session"), result.stderr)
    other = run("tasks", "job-77ab02")
    assert (other.exit_code, other.stdout) == (1, "")
    assert re.fullmatch(held.format("job-c1d550"), other.stderr)
    assert run("tasks", "job-c1d550", "--json").stdout == ""


def test_tasks_of_a_worker_that_stands_still(frozen: Frozen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known to hold its loop, and still there are no tasks."""
    monkeypatch.setattr(query, "PATIENCE_S", (0.01,))
    frozen(held_s=None, at=1.7e9)
    result = run("tasks", "job-c1d550")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: voice-a does not answer, and its black box holds no tasks: try again\n"


def test_no_such_session(frozen: Frozen) -> None:
    """Those of the box are named."""
    frozen()
    assert run("tasks", "job-c1").stderr == "error: no session 'job-c1'; near it: job-c1d550\n"


def test_completion(frozen: Frozen) -> None:
    """The sessions of the box are offered."""
    frozen()
    assert complete.session("job-c") == ["job-c1d550"]


def test_blocks_are_followed_through_a_freeze(frozen: Frozen, tmp_path: Path) -> None:
    """It is said once, and that it is over; the block is printed when it has ended."""
    worker = frozen()
    command = [sys.executable, "-m", "openrtc_top", "blocks", "--follow", "--worker", "voice-a"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as following:
        try:
            assert following.stderr is not None
            assert re.fullmatch(NOTE, following.stderr.readline())
            assert re.fullmatch(NOTE.removeprefix("note: "), following.stderr.readline())
            worker.thawed.set()
            assert following.stderr.readline() == "voice-a: answers again\n"
        finally:
            following.kill()


def test_through_a_relay(frozen: Frozen) -> None:
    """The other side reads the box there."""
    frozen()
    result = run("ps", "--via", f"voice-3={RELAY}")
    assert (result.exit_code, result.stderr) == (0, "")
    line = result.stdout.splitlines()[2]
    assert re.fullmatch(NOTE.replace("note: ", "voice-3:"), f"{line}\n")
    table = run("top", "--once", "--via", f"voice-3={RELAY}").stdout
    assert re.search(r" BLOCKED \d+\.\d s +job-c1d550 ", table)
    assert run("tasks", "job-c1d550", "--via", RELAY).exit_code == 1
    assert run("diagnose", "--via", RELAY).exit_code == 3


def test_live(frozen: Frozen, in_terminal: InTerminal) -> None:
    """BLOCKED for longer and longer, with the age of the rest; live again as soon as it answers."""
    worker = frozen()
    terminal = in_terminal("top", "--worker", "voice-a")
    lasted = re.compile(
        r"^ BLOCKED (\d+\.\d) s  job-c1d550  restaurant  agents/menu.py:42 in lookup_menu", re.MULTILINE
    )
    first = float(lasted.search(terminal.wait_for(lasted.search))[1])
    terminal.wait_for(lambda screen: (held := lasted.search(screen)) and float(held[1]) > first)
    terminal.wait_for(lambda screen: re.search(r"· as of \d+ s ago ·", screen))
    terminal.press("w")
    terminal.wait_for(lambda screen: re.search(r"does not answer, as of \d+ s ago", screen))
    terminal.press("w")
    terminal.press("\x1b[H\r")
    terminal.wait_for(lambda screen: re.search(r"· as of \d+ s ago .*\n", screen) and "cannot tell them now" in screen)
    terminal.press("\x1b")
    worker.thawed.set()
    terminal.wait_for(lambda screen: "BLOCKED" not in screen and "as of" not in screen and "job-77ab02" in screen)
    terminal.press("q")
    assert terminal.wait_for_end() == 0


# --- a real freeze -------------------------------------------------------------------------------

# Each line that comes in is a number of seconds for which C code keeps the GIL.
FREEZING = """
import asyncio, ctypes, sys
from openrtc_introspect_core import Introspector

def lookup_menu(seconds):
    ctypes.PyDLL(None).usleep(int(1e6 * min(seconds, 100.0)))

async def main():
    async with Introspector(name=sys.argv[1]) as introspector:
        with introspector.session("job-culprit", agent_name="restaurant", metadata={"tenant": "acme"}):
            await asyncio.sleep(1.2)
            print("ready", flush=True)
            while line := await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
                lookup_menu(float(line))
                print("over", flush=True)

asyncio.run(main())
"""


@pytest.fixture
def freeze(start_worker: Callable[..., subprocess.Popen[bytes]]) -> Callable[[float], subprocess.Popen[bytes]]:
    """Start a worker and freeze it for so many seconds; frozen when this returns, killed at the test's end."""
    if sys.platform != "linux" or not hasattr(native, "samples_without_gil"):
        pytest.skip("nothing samples without the GIL here")

    def start(seconds: float) -> subprocess.Popen[bytes]:
        worker = start_worker("freezing", code=FREEZING)
        assert worker.stdin is not None
        worker.stdin.write(f"{seconds}\n".encode())
        worker.stdin.flush()
        (found,) = find(["freezing"])
        deadline = time.monotonic() + 60.0
        while not (isinstance(told := read_live_box(found), BoxReading) and told.held and told.held.stack):
            assert time.monotonic() < deadline, f"its box says {told}"
            time.sleep(0.05)
        return worker

    return start


@pytest.mark.slow
def test_a_real_freeze(freeze: Callable[[float], subprocess.Popen[bytes]], openrtc: OpenRTC) -> None:
    """C code keeps the GIL: the session, the line and the cause are there while it lasts."""
    worker = freeze(100.0)
    once = openrtc("top", "--once", "--worker", "freezing").stdout
    assert re.search(r" BLOCKED [\d.]+ m?s +job-culprit .*<string>:\d+ in lookup_menu +\(native\)", once)
    diagnosis = openrtc("diagnose", "--worker", "freezing")
    assert diagnosis.returncode == 3
    assert "blocked-now: job-culprit (restaurant) has been holding the loop for" in diagnosis.stdout
    assert "in lookup_menu" in openrtc("tasks", "job-culprit", "--worker", "freezing").stdout
    assert worker.poll() is None


@pytest.mark.slow
def test_a_real_death(freeze: Callable[[float], subprocess.Popen[bytes]], openrtc: OpenRTC) -> None:
    """Killed while it is frozen, as a liveness probe does: the post-mortem has the session and the line."""
    worker = freeze(100.0)
    worker.kill()
    worker.wait()
    result = openrtc("postmortem", str(worker.pid))
    assert result.returncode == 0
    assert re.search(r"held by +job-culprit \(restaurant, acme\) for .*<string>:\d+ in lookup_menu", result.stdout)
    assert "1 died with it; by loop time: job-culprit" in result.stdout
    assert openrtc("postmortem", str(worker.pid)).returncode == 1, "it is shown once"
