"""`openrtc dev` as a user runs it: real processes, signals, and files that change."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openrtc_introspect_core import ConnectionFailed, Snapshot, read_snapshot

pytestmark = pytest.mark.slow

OpenRTC = Callable[..., subprocess.CompletedProcess[str]]
EXAMPLES = Path(__file__).parents[4] / "examples"
WITHIN_S = 60.0

ENDLESS = """
import asyncio

async def entrypoint(session):
    await asyncio.sleep(3600)
"""


class Dev:
    """The command in a process of its own, and what it has said so far."""

    def __init__(self, arguments: tuple[str, ...], cwd: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "openrtc_top", "dev", *arguments],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if not line.startswith("[slow-loop]"):  # a block of no session: the machine was busy
                self.said.append(line.rstrip("\n"))

    def wait_for(self, text: str) -> str:
        """The first line that has it."""
        return until(lambda: next((line for line in self.said if text in line), ""), lambda: "\n".join(self.said))

    def snapshot_when(self, condition: Callable[[Snapshot], object]) -> Snapshot:
        socket = self.wait_for("socket ").removeprefix("socket ")

        def seen() -> Snapshot | None:
            try:
                snapshot = read_snapshot(socket)
            except ConnectionFailed:
                return None
            return snapshot if condition(snapshot) else None

        return until(seen, lambda: "\n".join(self.said))

    def end(self) -> int:
        code = self.process.wait(WITHIN_S)
        self._reader.join(WITHIN_S)
        return code


def until(seen: Callable[[], Any], otherwise: Callable[[], str]) -> Any:
    deadline = time.monotonic() + WITHIN_S
    while not (found := seen()):
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.05)
    return found


@pytest.fixture
def dev(runtime_dir: Path, tmp_path: Path) -> Iterator[Callable[..., Dev]]:
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, cwd: Path = tmp_path) -> Dev:
            running = Dev(arguments, cwd)
            stack.enter_context(running.process)
            stack.callback(running.process.kill)
            return running

        yield start


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    folder = tmp_path / "agents"
    folder.mkdir()
    return folder


def test_the_three_commands_to_try_it(
    dev: Callable[..., Dev], openrtc: OpenRTC, in_terminal: Any, tmp_path: Path
) -> None:
    """`openrtc dev ./agents`, `openrtc top` in another terminal, and `openrtc top --once`, word for word."""
    shutil.copytree(EXAMPLES / "agents", tmp_path / "agents", ignore=shutil.ignore_patterns("__pycache__"))
    running = dev("./agents")
    running.wait_for("Run `openrtc top` in another terminal.")
    assert running.said[:5] == [
        f"worker dev, pid {running.process.pid}: 3 sessions, each a task of one loop",
        "  dental      1 session  agents/dental.py",
        "  restaurant  1 session  agents/restaurant.py",
        "  support     1 session  agents/support.py",
        "  skipped agents/menu.py: no `async def entrypoint(session)`",
    ]
    snapshot = running.snapshot_when(lambda snapshot: any(row.worst_block_ms >= 300 for row in snapshot.sessions))
    assert max(snapshot.sessions, key=lambda row: row.worst_block_ms).agent_name == "restaurant"
    # Wide enough for whole names, whatever else may run on this machine.
    once = openrtc("top", "--once", COLUMNS="240")
    assert once.returncode == 0
    for row in snapshot.sessions:
        assert row.session_id in once.stdout
    top = in_terminal("top", columns=240, lines=100)
    top.wait_for(lambda screen: all(row.session_id in screen for row in snapshot.sessions))
    top.press("q")
    assert top.wait_for_end() == 0


def test_options_reach_the_worker(dev: Callable[..., Dev], openrtc: OpenRTC, agents: Path) -> None:
    """Sessions, tenants, threshold, limit and name are what other commands see."""
    (agents / "one.py").write_text(ENDLESS)
    options = ("--sessions", "3", "--tenant", "acme", "--tenant", "globex", "--name", "mine")
    running = dev("agents", *options, "--slow-session-threshold-ms", "75", "--memory-limit-mb", "5000")
    snapshot = running.snapshot_when(lambda snapshot: len(snapshot.sessions) == 3)
    assert sorted(str(row.tenant) for row in snapshot.sessions) == ["acme", "acme", "globex"]
    worker = snapshot.worker
    assert (worker.name, worker.slow_session_threshold_ms, worker.memory_limit_mb) == ("mine", 75.0, 5000.0)
    workers = [json.loads(line) for line in openrtc("ps", "--json").stdout.splitlines()]
    assert [(document["name"], document["sessions"]) for document in workers if document["pid"] == worker.pid] == [
        ("mine", 3)
    ]
    assert " / 4.9 GB limit" in openrtc("top", "--once", "--worker", "mine").stdout


def test_process_mode_is_shown_by_ps_and_top(dev: Callable[..., Dev], openrtc: OpenRTC, agents: Path) -> None:
    """Each session is a process, which ends with the worker."""
    (agents / "one.py").write_text(ENDLESS)
    running = dev("agents/one.py", "--isolation", "process", "--sessions", "2")
    snapshot = running.snapshot_when(lambda snapshot: sum(row.mem_mb > 0 for row in snapshot.sessions) == 2)
    assert snapshot.worker.isolation == "process"
    assert "2 sessions, each a process of its own" in running.said[0] + running.said[1]
    pid = str(running.process.pid)
    (line,) = [line for line in openrtc("ps").stdout.splitlines() if line.split()[1] == pid]
    assert line.split()[4:7] == ["n/a", "process", "2"]
    once = openrtc("top", "--once", "--worker", pid).stdout
    assert "note: process mode: each session is a process of its own" in once
    for _ in range(2):
        os.kill(running.process.pid, signal.SIGTERM)
        running.wait_for("drains on SIGTERM")
    assert running.end() == 128 + signal.SIGTERM


def test_a_signal_drains_it(dev: Callable[..., Dev], openrtc: OpenRTC, agents: Path, runtime_dir: Path) -> None:
    """Sessions finish, no more are started, and it ends well; meanwhile top says that it drains."""
    (agents / "one.py").write_text("""
import asyncio, os
async def entrypoint(session):
    while not os.path.exists("go"):
        await asyncio.sleep(0.02)
    print("finished", flush=True)
""")
    running = dev("agents", "--respawn")
    running.snapshot_when(lambda snapshot: snapshot.sessions)
    os.kill(running.process.pid, signal.SIGTERM)
    running.snapshot_when(lambda snapshot: snapshot.worker.draining)
    assert "DRAINING" in openrtc("top", "--once", "--worker", str(running.process.pid)).stdout
    (agents.parent / "go").touch()
    assert running.end() == 0
    assert running.said.count("finished") == 1
    assert list(runtime_dir.iterdir()) == []


def test_without_introspection_there_is_nothing_to_see(
    dev: Callable[..., Dev], openrtc: OpenRTC, agents: Path, runtime_dir: Path
) -> None:
    """It says so, and serves no socket."""
    (agents / "one.py").write_text(ENDLESS)
    running = dev("agents", "--no-introspection")
    running.wait_for("not introspected: `openrtc top` does not see it")
    assert list(runtime_dir.iterdir()) == []
    assert str(running.process.pid) not in openrtc("ps").stdout.split()


def test_it_ends_with_its_sessions(dev: Callable[..., Dev], agents: Path) -> None:
    """The exit code is 1 if one has failed."""
    (agents / "good.py").write_text("async def entrypoint(session): ...")
    good = dev("agents")
    assert good.end() == 0
    (agents / "bad.py").write_text("async def entrypoint(session):\n    raise ValueError('mine')")
    bad = dev("agents")
    assert bad.end() == 1
    assert bad.said[-1] == "all sessions have ended: 2 started, 1 failed"
    assert "ValueError: mine" in bad.said


@pytest.mark.parametrize("mode", ["coroutine", "process"])
def test_a_ctrl_c_in_a_terminal_says_that_another_one_ends_it(mode: str, agents: Path, in_terminal: Any) -> None:
    """Its sessions never end; in process mode the terminal must not interrupt them itself."""
    (agents / "one.py").write_text(ENDLESS)
    terminal = in_terminal("dev", str(agents), "--isolation", mode, lines=40, columns=200)
    terminal.wait_for(lambda _: "Run `openrtc top` in another terminal." in terminal.written)
    terminal.press("\x03")
    terminal.wait_for(lambda _: "(Ctrl-C again) cancels what runs" in terminal.written)
    terminal.press("\x03")
    assert terminal.wait_for_end() == 130
    assert "Traceback" not in terminal.written


def test_what_cannot_be_hosted_is_reported_before_anything_starts(
    openrtc: OpenRTC, agents: Path, runtime_dir: Path
) -> None:
    """Each in one line, with file and line; exit code 2."""
    (agents / "good.py").write_text(ENDLESS)
    (agents / "sync.py").write_text("\ndef entrypoint(session): ...\n")
    (agents / "missing.py").write_text("import nowhere\nasync def entrypoint(session): ...\n")
    result = openrtc("dev", str(agents))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        f"error: {agents}/missing.py:1: ModuleNotFoundError: No module named 'nowhere'",
        f"error: {agents}/sync.py:2: entrypoint must be `async def entrypoint(session)`, "
        "it is a function without `async`",
    ]


def test_a_folder_without_agents_is_reported(openrtc: OpenRTC, agents: Path) -> None:
    """With the path that was searched; exit code 2."""
    (agents / "menu.py").write_text("")
    result = openrtc("dev", str(agents))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"error: no agents in '{agents}': a file that defines `async def entrypoint(session)` is one; "
        f"skipped {agents}/menu.py: no `async def entrypoint(session)`\n"
    )


# --- files that change ---------------------------------------------------------------------------

needs_watchfiles = pytest.mark.skipif(importlib.util.find_spec("watchfiles") is None, reason="watchfiles is not there")


@needs_watchfiles
def test_new_code_runs_when_a_file_changes(dev: Callable[..., Dev], agents: Path) -> None:
    """Of that agent only; a version that cannot be imported is reported, and changes nothing."""
    (agents / "stays.py").write_text(ENDLESS)
    file = agents / "one.py"
    file.write_text(ENDLESS)
    running = dev("agents", "--reload")
    before = running.snapshot_when(lambda snapshot: len(snapshot.sessions) == 2)
    (kept,) = [row.session_id for row in before.sessions if row.agent_name == "stays"]

    file.write_text(ENDLESS + "\n1 / 0\n")
    running.wait_for("error: agents/one.py:7: ZeroDivisionError: division by zero; what runs of it stays as it was")

    file.write_text(ENDLESS.replace("session):", 'session):\n    print("new code", flush=True)'))
    running.wait_for("new code")
    after = running.snapshot_when(lambda snapshot: len(snapshot.sessions) == 2)
    assert "one: starts anew, agents/one.py has changed" in running.said
    assert kept in {row.session_id for row in after.sessions}
    assert {row.session_id for row in after.sessions} != {row.session_id for row in before.sessions}
    os.kill(running.process.pid, signal.SIGTERM)
    running.wait_for("drains on SIGTERM: it waits for 2 sessions to end")
    os.kill(running.process.pid, signal.SIGTERM)
    assert running.end() == 143


@needs_watchfiles
def test_with_reload_it_waits_for_a_file_to_be_put_right(dev: Callable[..., Dev], agents: Path) -> None:
    """A folder of nothing but errors is served as well; what is put right starts."""
    file = agents / "one.py"
    file.write_text("def entrypoint(session): ...")
    running = dev("agents", "--reload")
    running.wait_for("error: agents/one.py:1: entrypoint must be")
    running.wait_for("Run `openrtc top`")
    file.write_text(ENDLESS)
    running.snapshot_when(lambda snapshot: len(snapshot.sessions) == 1)


def test_reload_without_watchfiles_names_the_extra(agents: Path, tmp_path: Path) -> None:
    """In one line; exit code 2."""
    code = (
        "import sys, importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'watchfiles' else find(name, *more)\n"
        "from openrtc_top.__main__ import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "dev", str(agents), "--reload"],
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: --reload needs watchfiles: pip install 'openrtc-top[reload]'\n"
