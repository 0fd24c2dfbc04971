"""The command of `--via` or `--via-each` as a child process: its start, its stderr, and its end.

Each command leads a process group of its own, so that what it starts ends with it. However this process ends, its
commands end too: in order by `end_process`, else by `kill_all`. Only SIGKILL leaves some behind: those that do not end
with their input.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from subprocess import PIPE
from types import FrameType
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from anyio.abc import Process

END_S = 1.0
"""The time that the command has for each step of its end."""
_ENDINGS = frozenset({signal.SIGTERM, signal.SIGHUP})
_HANDLED_WITHIN_S = 0.05
"""The time that the main thread has to handle a signal before it is woken."""
_STDERR_BYTES = 4096
_MAX_PROBLEM_LENGTH = 200
_groups: set[int] = set()
"""The process groups of the commands that have not been ended."""
_starting = 0
"""Commands that are being started, and may run without being in `_groups`."""
_handled: set[int] = set()
"""The signals that the main thread has seen; it does not act on them while a command is being started."""


async def start_process(words: Sequence[str], stdin: int) -> Process:
    """Start the command with pipes for its output. Raises OSError."""
    global _starting
    _starting += 1
    try:
        process = await anyio.open_process(words, stdin=stdin, stdout=PIPE, stderr=PIPE, start_new_session=True)
        _groups.add(process.pid)
    finally:
        _starting -= 1
        for number in tuple(_handled):
            _send_to_main_thread(number)
    return process


class StderrTail:
    """The last line that a process writes to stderr: most likely why it failed."""

    def __init__(self) -> None:
        self.last = ""
        self.closed = anyio.Event()
        """Stderr is at its end."""

    async def listen(self, process: Process) -> None:
        """Read stderr to its end."""
        assert process.stderr is not None
        rest = b""
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                rest = (rest + await process.stderr.receive(_STDERR_BYTES))[-_STDERR_BYTES:]
                lines = [line.strip() for line in rest.decode(errors="replace").splitlines() if line.strip()]
                if lines:
                    self.last = lines[-1][:_MAX_PROBLEM_LENGTH]
        self.closed.set()


async def wait_for_end(process: Process, tail: StderrTail, *, patient: bool) -> None:
    """Wait until the process and its stderr have ended by themselves.

    It waits for a moment, or not at all.
    """
    with anyio.move_on_after(END_S if patient else 0):
        await process.wait()
        await tail.closed.wait()


async def end_process(process: Process) -> None:
    """End the command and what it started: by the end of its input, then by force."""
    if process.stdin is not None:
        with contextlib.suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await process.stdin.aclose()
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None:
            _signal_group(process.pid, number)
        with anyio.move_on_after(END_S):
            await process.wait()
            break
    _signal_group(process.pid, signal.SIGKILL)  # what it started and left behind
    _groups.discard(process.pid)
    with contextlib.suppress(OSError, anyio.BrokenResourceError):
        await process.aclose()


def kill_all() -> None:
    """Kill all commands that have not been ended, and what they started."""
    while _groups:
        _signal_group(_groups.pop(), signal.SIGKILL)


def end_with_this_process() -> None:
    """Have the commands killed when this process ends, by SIGTERM or SIGHUP too. To be called in the main thread.

    A signal that is ignored, as `nohup` does, or has a handler, stays so.
    """
    atexit.register(kill_all)
    for number in _ENDINGS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _kill_all_and_die)


@contextlib.contextmanager
def signals_wake_main_thread() -> Iterator[None]:
    """While the `with` block lasts, have the main thread handle SIGTERM and SIGHUP also if it waits for another thread.

    Python's handlers run there only. A signal that another thread gets, or that comes right before the wait begins,
    does not end the wait. To be used in the main thread.
    """
    near, far = os.pipe()
    os.set_blocking(far, False)
    before = signal.set_wakeup_fd(far, warn_on_full_buffer=False)
    thread = threading.Thread(target=_wake_main_thread, args=(near,), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(far)
        thread.join()
        os.close(near)


def _wake_main_thread(near: int) -> None:
    while came := os.read(near, 64):
        time.sleep(_HANDLED_WITHIN_S)
        for number in _ENDINGS.intersection(came) - _handled:
            if signal.getsignal(number) is _kill_all_and_die:
                _send_to_main_thread(number)  # and it is read again, until it is handled


def _send_to_main_thread(number: int) -> None:
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    signal.pthread_kill(main_thread, number)


def _kill_all_and_die(number: int, frame: FrameType | None) -> None:
    _handled.add(number)
    if _starting:  # who starts the command sees it
        return
    kill_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
