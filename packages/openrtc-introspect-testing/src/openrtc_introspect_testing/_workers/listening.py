"""A worker's socket for as long as a test needs it."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from openrtc_introspect_core.wire._endpoint import open_listener


@contextlib.contextmanager
def listening(name: str, path: Path | None = None) -> Iterator[tuple[socket.socket, Path]]:
    """Listen at `path`, by default in a private directory of its own.

    Nothing is left afterwards.

    Yields the listening socket and its path. Raises EndpointError if a worker cannot serve there.
    """
    with contextlib.ExitStack() as stack:
        if path is None:
            # Not in $TMPDIR: it may be too long for a socket's path.
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="openrtc-fake-", dir="/tmp"))
            path = Path(directory) / f"{name}-{os.getpid()}.sock"
        listener, path = open_listener(name, path)
        stack.callback(path.unlink, missing_ok=True)
        with listener:
            yield listener, path
