"""The table of the kinds of things that tasks wait for.

The wire's `kind` and `waits` are these names. docs/waits.md explains them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WaitKind:
    """A kind of thing to wait for."""

    name: str
    """As the wire has it."""
    noun: str
    """As it stands behind "waits for"."""
    meaning: str
    """What the task waits for, as the documentation has it."""
    idle: bool = False
    """Whether a healthy session may wait so for any time: what it waits for comes from outside of the worker."""
    short: bool = False
    """Whether others in the worker must end such a wait, so that it is short in a healthy worker."""


_TABLE = (
    WaitKind("timer", "a timer", "a time: `asyncio.sleep`, a timeout alone", idle=True),
    WaitKind("socket", "a socket", "data from a connection, or room to send", idle=True),
    WaitKind("process", "a process", "the end, or the output, of a subprocess", idle=True),
    WaitKind("thread", "a call in a thread", "a call that runs in a thread", short=True),
    WaitKind("executor", "a free thread", "a thread for a call that is queued", short=True),
    WaitKind("lock", "a lock", "a lock that another holds", short=True),
    WaitKind(
        "semaphore",
        "a semaphore",
        "a slot of a semaphore or of a capacity limiter, or a connection of a pool",
        short=True,
    ),
    WaitKind("condition", "a condition", "a condition"),
    WaitKind("event", "an event", "an event that nobody has set"),
    WaitKind("queue", "a queue", "an entry of a queue or a stream in memory, or room in it"),
    WaitKind("barrier", "a barrier", "others at a barrier", short=True),
    WaitKind("own-task", "tasks of its own", "tasks of its own session"),
    WaitKind("other-task", "tasks of another session", "tasks of another session", short=True),
    WaitKind("shared-task", "tasks of no session", "tasks of no session", short=True),
    WaitKind("ready", "its turn on the loop", "the loop: it could run, and others do"),
    WaitKind("unknown", "something unknown", "something that is not known: a future that no known code made"),
)

WAIT_KINDS: dict[str, WaitKind] = {kind.name: kind for kind in _TABLE}
"""By name, in the order in which docs and commands list them."""


_WITHOUT_A_NAME = {"own-task", "other-task", "shared-task", "ready", "unknown"}
"""Kinds whose description is only the function that waits: `gather`, `wait`."""


def noun(kind: str) -> str:
    """Return a kind of wait as it stands behind "waits for"; the name itself if the table does not have it."""
    return WAIT_KINDS[kind].noun if kind in WAIT_KINDS else kind


def awaited(kind: str, what: str) -> str:
    """Return what several tasks wait for: its description if it has one, or the kind of wait."""
    if what and kind not in _WITHOUT_A_NAME:
        return what
    several = noun(kind).replace("its ", "their ")
    return several + (f" ({what})" if what else "")
