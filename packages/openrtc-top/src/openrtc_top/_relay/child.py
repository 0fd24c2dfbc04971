"""The command of `--via` or `--via-each` as a child process: its stderr, and its end."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from anyio.abc import Process

END_S = 1.0
"""The time that the command has for each step of its end."""
_STDERR_BYTES = 4096
_MAX_PROBLEM_LENGTH = 200


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
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
        with anyio.move_on_after(END_S):
            await process.wait()
            break
    with contextlib.suppress(OSError, anyio.BrokenResourceError):
        await process.aclose()
