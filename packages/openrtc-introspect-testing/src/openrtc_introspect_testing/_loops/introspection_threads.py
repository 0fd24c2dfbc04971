"""The threads that introspection runs in this process, known by their names.

A FakeLoop does not wait for them, the pytest plugin attaches to none of their loops, and a test may wait until they
have ended.
"""

from __future__ import annotations

import threading
import time

_PREFIX = "openrtc-introspect"
_POLL_S = 0.01


def is_ours(thread: threading.Thread) -> bool:
    """Return whether the thread is one of introspection's."""
    return thread.name.startswith(_PREFIX)


def ours() -> list[str]:
    """Return the names of introspection's threads that run now."""
    return [thread.name for thread in threading.enumerate() if is_ours(thread)]


def ours_end(within_s: float = 30.0) -> bool:
    """Wait until introspection's threads have ended by themselves.

    Returns whether all of them have.
    """
    deadline = time.monotonic() + within_s
    while ours() and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return not ours()
