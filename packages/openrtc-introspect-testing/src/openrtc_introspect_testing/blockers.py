"""Calls that hold an event loop, one for each kind, each of a given length and aware of what it was.

    from openrtc_introspect_testing import blockers

    culprit = blockers.http(0.12).block()               # in an agent: a request to a slow server
    (block,) = introspector.blocks()
    assert culprit.matches(block) == []                 # else a sentence for each thing that is wrong

Blockers of `burst`, `callback` and `gil_idle` are awaited instead: `await blockers.burst(0.12)`.
"""

from ._blockers._blocker import AsyncBlocker, Blocker
from ._blockers._expected import Expected
from ._blockers._kinds import (
    all_kinds,
    burst,
    callback,
    deepcopy,
    fsync,
    gc,
    gil,
    gil_idle,
    hashing,
    http,
    import_,
    json,
    lock,
    pipe,
    regex,
    sleep,
    socket,
    sorted,
    spin,
    sqlite,
    subprocess,
    sum,
    zlib,
)

__all__ = [
    "AsyncBlocker",
    "Blocker",
    "Expected",
    "all_kinds",
    "burst",
    "callback",
    "deepcopy",
    "fsync",
    "gc",
    "gil",
    "gil_idle",
    "hashing",
    "http",
    "import_",
    "json",
    "lock",
    "pipe",
    "regex",
    "sleep",
    "socket",
    "sorted",
    "spin",
    "sqlite",
    "subprocess",
    "sum",
    "zlib",
]
