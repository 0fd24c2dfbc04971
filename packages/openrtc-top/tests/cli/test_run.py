"""`openrtc run`: the program takes the command's place, whatever Python it needs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from openrtc_introspect_core import read_snapshot

pytestmark = pytest.mark.slow

WITHIN_S = 120.0
OPENRTC = [sys.executable, "-m", "openrtc_top"]

WORKER = """
import asyncio, sys

async def call():
    await asyncio.Event().wait()

async def main():
    task = asyncio.create_task(call())
    print(sys.argv, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    task.cancel()

asyncio.run(main())
sys.exit(9)
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that shows its arguments, waits for a line, and exits with 9."""
    monkeypatch.setenv("OPENRTC_RUNTIME_DIR", str(tmp_path / "rt"))
    file = tmp_path / "my_worker.py"
    file.write_text(WORKER)
    return file


def test_the_program_has_the_process_of_the_command(worker: Path, tmp_path: Path) -> None:
    """Its sessions are served by that process, its stdin and exit code are its own."""
    options = ("--name", "voice-a", "--slow-session-threshold-ms", "80")
    command = [*OPENRTC, "run", *options, "--", sys.executable, "-u", str(worker), "--name", "x", "--"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{[str(worker), '--name', 'x', '--']}\n"
            (socket,) = (tmp_path / "rt").glob("*.sock")
            assert socket.name == f"voice-a-{process.pid}.sock"
            snapshot = read_snapshot(socket)
            assert {row.session_id for row in snapshot.sessions} == {"main", "call"}
            assert snapshot.worker.slow_session_threshold_ms == 80
            _, errors = process.communicate("\n", timeout=WITHIN_S)
        finally:
            process.kill()
    assert (process.returncode, errors) == (9, "")


def test_a_signal_ends_the_program_as_without_the_command(worker: Path) -> None:
    """No process stands in between."""
    command = [*OPENRTC, "run", sys.executable, str(worker)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(WITHIN_S) == -signal.SIGTERM
        finally:
            process.kill()


def ended(*command: str) -> tuple[int, str, str]:
    """Run the command with these words after `run`; return its exit code, output and errors."""
    done = subprocess.run(
        [*OPENRTC, "run", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_modules_code_and_installed_scripts_are_run(tmp_path: Path) -> None:
    """A script by the Python that its first line names."""
    text = "import sys; print(sys.argv, 'openrtc_introspect_core' in sys.modules, __name__); sys.exit(4)"
    script = tmp_path / "tool"
    script.write_text(f"#!{sys.executable}\n{text}\n")
    script.chmod(0o755)
    assert ended("--", sys.executable, "-c", text, "a") == (4, "['-c', 'a'] True __main__\n", "")
    assert ended("--", str(script), "-b") == (4, f"['{script}', '-b'] True __main__\n", "")
    code, out, _ = ended("--", sys.executable, "-m", "this")
    assert (code, out.splitlines()[0]) == (0, "The Zen of Python, by Tim Peters")


def test_a_python_without_the_package_is_told_what_to_install(tmp_path: Path) -> None:
    """In one line, and nothing is run. The command's own Python may be another one."""
    bare = tmp_path / "python3"
    bare.write_text(f'#!/bin/sh\nexec "{sys._base_executable}" -S "$@"\n')
    bare.chmod(0o755)
    code, out, errors = ended(str(bare), "-c", "print('ran')")
    assert (code, out) == (2, "")
    install = f"{bare} -m pip install openrtc-introspect-core"
    assert errors == f"error: '{bare}' has no openrtc-introspect-core, or an older one: {install}\n"


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ([], "missing argument 'COMMAND'"),
        (["/bin/ls"], "'/bin/ls' is no Python program"),
        (["no-such-command"], "no such command: 'no-such-command'"),
        ([sys.executable], "from stdin"),
        (["--name", "\n", "--", sys.executable, "-c", "pass"], "name must be at most 64 printable characters"),
        (["--colour", sys.executable], "no such option: --colour"),
    ],
)
def test_a_wrong_command_is_one_line_and_exit_code_2(command: list[str], problem: str) -> None:
    """Nothing is run."""
    code, out, errors = ended(*command)
    assert (code, out, errors.count("\n")) == (2, "", 1), errors
    assert problem in errors
