"""Calls that hold an event loop, and know the truth about their block.

    from openrtc_introspect_testing import blockers

    culprit = blockers.http(0.12).block()               # in an agent: a request to a slow server
    (block,) = introspector.blocks()
    assert culprit.matches(block) == []                 # else a sentence for each difference

Await the blockers of `burst`, `callback` and `gil_idle` instead: `await blockers.burst(0.12)`.
"""

from ._blockers.blocker import AsyncBlocker, Blocker
from ._blockers.expected import Expected
from ._blockers.kinds import (
    all_kinds,
    burst,
    callback,
    deepcopy,
    explicit_gc,
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
    signal,
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
    "explicit_gc",
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
    "signal",
    "sleep",
    "socket",
    "sorted",
    "spin",
    "sqlite",
    "subprocess",
    "sum",
    "zlib",
]
