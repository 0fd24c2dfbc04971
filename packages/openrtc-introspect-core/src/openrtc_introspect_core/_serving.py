"""What every worker that serves has to begin and to end: its socket, and the threads behind it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from . import _log
from .wire._endpoint import file_identity, open_listener

CLOSE_WITHIN_S = 2.0
"""How long whoever closes a worker waits for its threads."""


class OwnSocket:
    """A worker's socket, private from the moment it exists: at `path`, else in the user's directory.

    Raises EndpointError or ArgumentError; then nothing is left behind.
    """

    def __init__(self, name: str, path: Path | None) -> None:
        self.listener, self.path = open_listener(name, path)
        self._file = file_identity(self.path)

    def remove(self) -> None:
        """Takes its file away, unless another worker's has taken its place."""
        if self._file == file_identity(self.path):
            self.path.unlink(missing_ok=True)


class Ending(Protocol):
    """Something of ours on another thread, that was asked to end."""

    def is_alive(self) -> bool: ...

    def join(self, timeout_s: float) -> None: ...


def wait_until_ended(threads: Sequence[Ending]) -> None:
    """Waits for them, and for what was logged until then to be handled: at most two seconds in all."""
    deadline = time.monotonic() + CLOSE_WITHIN_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    _log.flush(max(0.0, deadline - time.monotonic()))


async def until_ended(endings: Sequence[Ending]) -> None:
    """As `wait_until_ended`, without holding the loop meanwhile.

    On a loop that the host has patched so that anyio does not recognise it, it holds the loop.
    """
    began = time.monotonic()

    async def until(pending: Sequence[Ending]) -> None:
        while any(each.is_alive() for each in pending):  # nothing tells a loop of such an end
            waited = time.monotonic() - began
            if waited > CLOSE_WITHIN_S:
                return
            await anyio.sleep(0.0 if waited < 0.001 else 0.001)  # as a rule it is near

    if not any(each.is_alive() for each in (*endings, _log.flushing())):
        return
    import anyio

    try:
        with anyio.CancelScope(shield=True):
            await until(endings)
            await until([_log.flushing()])
    except Exception:
        wait_until_ended(endings)
