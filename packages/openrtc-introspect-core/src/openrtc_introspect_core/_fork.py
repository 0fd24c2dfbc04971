"""Forked children: they have none of the parent's threads, and its socket is not theirs."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from . import _log


class Attached(Protocol):
    """Something that lets go of everything in a forked child."""

    def abandon_after_fork(self) -> None: ...


shared: list[Attached] = []
"""What the process has once, and those attached make use of."""

attached: weakref.WeakSet[Attached] = weakref.WeakSet()
"""What is attached now."""


def _in_child() -> None:
    _log.abandon_after_fork()  # first: the others may have something to log
    for each in (*shared, *attached):
        each.abandon_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
