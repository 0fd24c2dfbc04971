"""A worker's socket, and the wait for its threads at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from .._base import log
from ..wire._endpoint import file_identity, open_listener

CLOSE_WITHIN_S = 2.0
"""Seconds for which closing a worker waits for its threads."""


class OwnSocket:
    """A worker's socket, private from the moment it exists.

    It is at `path`, or for None in the user's directory.

    Raises EndpointError or ArgumentError, and leaves nothing behind then.
    """

    def __init__(self, name: str, path: Path | None) -> None:
        self.listener, self.path = open_listener(name, path)
        self._file = file_identity(self.path)

    def remove(self) -> None:
        """Remove the socket's file, unless it is another worker's by now."""
        if self._file == file_identity(self.path):
            self.path.unlink(missing_ok=True)


class Ending(Protocol):
    """A part of introspection on another thread that was asked to end."""

    def is_alive(self) -> bool: ...

    def join(self, timeout_s: float) -> None: ...


def wait_until_ended(threads: Sequence[Ending]) -> None:
    """Wait for the threads, and until the records logged so far are handled.

    At most two seconds in all.
    """
    deadline = time.monotonic() + CLOSE_WITHIN_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    log.flush(max(0.0, deadline - time.monotonic()))


async def until_ended(endings: Sequence[Ending]) -> None:
    """Wait as `wait_until_ended` does, without holding the loop.

    On a loop that the host has patched so that anyio does not recognise it, the wait holds the loop.
    """
    began = time.monotonic()

    async def until(pending: Sequence[Ending]) -> None:
        while any(each.is_alive() for each in pending):  # polled: nothing reports such an end to a loop
            waited = time.monotonic() - began
            if waited > CLOSE_WITHIN_S:
                return
            await anyio.sleep(0.0 if waited < 0.001 else 0.001)  # the end is usually near

    if not any(each.is_alive() for each in (*endings, log.flushing())):
        return
    import anyio

    try:
        with anyio.CancelScope(shield=True):
            await until(endings)
            await until([log.flushing()])
    except Exception:
        wait_until_ended(endings)
