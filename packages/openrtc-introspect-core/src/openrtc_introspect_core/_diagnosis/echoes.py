"""Groups of waiters that say the same of the same sessions: a task that waits, and those that wait for that task."""

from __future__ import annotations

from collections.abc import Sequence

from ..wire._messages import WaitGroup

_LIBRARIES = ("asyncio/", "anyio/", "trio/")


def is_echo(group: WaitGroup, groups: Sequence[WaitGroup]) -> bool:
    """Return whether another one of these groups says better what the sessions of a group wait for.

    What a task waits for says more than that others of its session wait for the task. But a task that runs nothing but
    a library's function has no line of the user's; then the line at which it is awaited says more.
    """
    mine, own = _sessions(group), group.kind == "own-task"
    for other in groups:
        if (other.kind == "own-task") != own and not mine.isdisjoint(_sessions(other)):
            waits, awaiting = (other, group) if own else (group, other)
            if (_in_library(waits) and not _in_library(awaiting)) != own:
                return True
    return False


def _sessions(group: WaitGroup) -> set[str]:
    return {waiter.session_id for waiter in group.waiters if waiter.session_id is not None}


def _in_library(group: WaitGroup) -> bool:
    return group.location is not None and group.location.file.startswith(_LIBRARIES)
