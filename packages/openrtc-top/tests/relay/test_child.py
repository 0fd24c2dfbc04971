"""The commands of `--via`: they and what they started end with this process, however it ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from openrtc_top._relay.child import end_process, signals_wake_main_thread, start_process

InTerminal = Callable[..., Any]  # a FakeTerminal, see conftest.py
LONG_S = 30
STUBBORN = "echo up >&9; trap 'echo asked >&9' TERM; while :; do sleep 0.1; done"
"""It hears neither the end of its input nor SIGTERM, of which it tells."""
HELLO = '{"type":"relay","relay":"1.2","version":"0.1.0"}'
RELAYING = f"""echo '{HELLO}'; echo '{{"type":"workers","workers":[]}}'; {STUBBORN}"""


class Descendants:
    """What runs below a command: all of it holds a pipe open for writing."""

    def __init__(self, fifo: Path) -> None:
        os.mkfifo(fifo)
        self.said = b""
        self._fifo = fifo
        self._read_end = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)

    def words(self, script: str) -> list[str]:
        return ["sh", "-c", f"exec 9>{self._fifo}; {script}"]

    def via(self, script: str) -> str:
        file = self._fifo.with_name("command")
        file.write_text(f"exec 9>{self._fifo}; {script}")
        return f"here=sh {file}"

    def wait_until_said(self, word: bytes) -> None:
        while word not in self.said:
            assert self._read(), f"all have ended, and none has said {word!r}"

    def wait_until_ended(self) -> None:
        while self._read():
            pass
        os.close(self._read_end)

    def _read(self) -> bytes:
        """What is said next; nothing when all have ended."""
        ready, _, _ = select.select([self._read_end], [], [], LONG_S)
        assert ready, f"it said {self.said!r}, and runs on"
        data = os.read(self._read_end, 100)
        self.said += data
        return data


@pytest.fixture
def below(tmp_path: Path) -> Descendants:
    return Descendants(tmp_path / "fifo")


@pytest.mark.anyio
async def test_what_a_command_left_behind_ends_with_it(below: Descendants) -> None:
    """Although the command itself has ended by then."""
    process = await start_process(below.words("sleep 1000 & echo up >&9"), PIPE)
    assert await process.wait() == 0
    below.wait_until_said(b"up")
    await end_process(process)
    below.wait_until_ended()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", [["wait", "--until", "blocked"], ["top", "--json", "--follow"], ["ps"]])
def test_a_signal_ends_commands_too(
    command: list[str], number: signal.Signals, below: Descendants, runtime_dir: Path
) -> None:
    """Those that do not end with their input too, as with `timeout 60 openrtc wait …`."""
    words = [sys.executable, "-m", "openrtc_top", *command, "--via", below.via(STUBBORN)]
    with subprocess.Popen(words, stdout=PIPE, stderr=PIPE, start_new_session=True) as process:
        below.wait_until_said(b"up")
        process.send_signal(number)
        assert process.wait(LONG_S) == -number
    below.wait_until_ended()


def test_a_signal_that_another_thread_gets_ends_the_process_too() -> None:
    """While the main thread waits for a third one."""
    script = (
        "import signal, threading, time\n"
        "from openrtc_top._relay.child import end_with_this_process, signals_wake_main_thread\n"
        "end_with_this_process()\n"
        "other = threading.Thread(target=time.sleep, args=(600,), daemon=True)\n"
        "other.start()\n"
        "threading.Timer(0.2, signal.pthread_kill, (other.ident, signal.SIGHUP)).start()\n"
        "with signals_wake_main_thread():\n"
        "    threading.Event().wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], timeout=2 * LONG_S, check=False)
    assert done.returncode == -signal.SIGHUP


def test_nothing_is_left_of_what_wakes_the_main_thread() -> None:
    """Neither a thread nor the file that signals are written to."""
    before = signal.set_wakeup_fd(-1)
    try:
        with signals_wake_main_thread():
            pass
        assert signal.set_wakeup_fd(-1) == -1
        assert "signals" not in {thread.name for thread in threading.enumerate()}
    finally:
        signal.set_wakeup_fd(before)


def test_an_ignored_signal_stays_ignored(below: Descendants, runtime_dir: Path) -> None:
    """As behind `nohup`."""
    via = below.via("echo up >&9; until read -r line; do sleep 0.1; done")
    script = 'trap "" HUP; exec "$@"'
    words = ["sh", "-c", script, "--", sys.executable, "-m", "openrtc_top", "ps", "--via", via]
    with subprocess.Popen(words, stdout=PIPE, stderr=PIPE, start_new_session=True) as process:
        below.wait_until_said(b"up")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONG_S) == -signal.SIGTERM
    below.wait_until_ended()


def test_a_second_interrupt_of_the_view(below: Descendants, in_terminal: InTerminal) -> None:
    """While commands are being ended: neither they nor a traceback are left behind."""
    terminal = in_terminal("top", "--via", below.via(RELAYING))
    terminal.wait_for(lambda screen: "no worker runs there" in screen)
    terminal.press("q")
    below.wait_until_said(b"asked")
    terminal.wait_for(lambda _: terminal.written.endswith("\x1b[?1049l"))  # it is not kept waiting
    terminal.press("\x03")
    assert terminal.wait_for_end() == 0
    below.wait_until_ended()
    assert "Traceback" not in terminal.written


def test_a_second_interrupt_of_a_recording(below: Descendants, tmp_path: Path, runtime_dir: Path) -> None:
    """As of the view."""
    file = tmp_path / "a.rec"
    words = [sys.executable, "-m", "openrtc_top", "record", str(file), "--via", below.via(RELAYING)]
    with subprocess.Popen(words, stdout=PIPE, stderr=PIPE, text=True, start_new_session=True) as process:
        until = time.monotonic() + LONG_S
        while not (file.exists() and b"no worker runs there" in file.read_bytes()):
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        below.wait_until_said(b"asked")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=LONG_S)
    below.wait_until_ended()
    assert "Traceback" not in said
