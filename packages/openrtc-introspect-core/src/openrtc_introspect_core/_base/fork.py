"""Cleaning up in forked children.

A child has the parent's objects but not its threads, and must neither serve nor remove the parent's socket.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from . import log


class Attached(Protocol):
    """An object that must release what it has in a forked child."""

    def abandon_after_fork(self) -> None:
        """Forget threads, locks and sockets of the parent.

        Called in the child, before it goes on.
        """


shared: list[Attached] = []
"""The objects that a process has once and those in `attached` use."""

attached: weakref.WeakSet[Attached] = weakref.WeakSet()
"""The objects that are in use now."""


def _in_child() -> None:
    log.abandon_after_fork()  # first, because the others may log
    for each in (*shared, *attached):
        each.abandon_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
