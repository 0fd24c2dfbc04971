"""The rules of anyio's functions on asyncio. On Trio most of them await Trio's own, which trio_rules has."""

from __future__ import annotations

from typing import Any

from .asyncio_rules import grouped
from .found import Looker, TaskWait
from .rules import TRANSPARENT, Rule, Table


def in_thread(values: list[Any], inner: TaskWait | None, looker: Looker) -> TaskWait | None:
    """A call in a thread: anyio's, and Trio's. The limiter first lets it have one."""
    if inner is not None and inner.kind == "semaphore":
        return inner._replace(kind="executor", what=f"call that is queued for a thread of {inner.what}")
    return TaskWait("thread", None, "call in a thread")


_SOCKETS = {
    name: Rule("socket", what, refines=("event", "unknown"))
    for what, names in {
        "stream, read": (
            "SocketStream.receive", "UNIXSocketStream.receive", "UNIXSocketStream.receive_fds", "UDPSocket.receive",
            "ConnectedUDPSocket.receive", "UNIXDatagramSocket.receive", "ConnectedUNIXDatagramSocket.receive",
            "AsyncIOBackend.wait_readable",
        ),
        "stream, send": (
            "SocketStream.send", "UNIXSocketStream.send", "UNIXSocketStream.send_fds", "UDPSocket.send",
            "ConnectedUDPSocket.send", "UNIXDatagramSocket.send", "ConnectedUNIXDatagramSocket.send",
            "AsyncIOBackend.wait_writable",
        ),
        "server": ("TCPSocketListener.accept", "UNIXSocketListener.accept"),
    }.items()
    for name in names
}  # fmt: skip

_ON_TRIO = dict.fromkeys(
    (
        "Event.wait", "Lock.acquire", "Semaphore.acquire", "CapacityLimiter.acquire",
        "CapacityLimiter.acquire_on_behalf_of", "CapacityLimiter.__aenter__",
    ),
    TRANSPARENT,
)  # fmt: skip

ANYIO: Table = {
    "anyio/_backends/_asyncio.py": {
        "Lock.acquire": Rule("lock", owner="Lock"),
        "Semaphore.acquire": Rule("semaphore", owner="Semaphore"),
        "CapacityLimiter.acquire_on_behalf_of": Rule("semaphore", owner="CapacityLimiter", refines=("event",)),
        "CapacityLimiter.acquire": TRANSPARENT,
        "CapacityLimiter.__aenter__": TRANSPARENT,
        "Event.wait": Rule("event", owner="Event", refines=("event",)),
        "TaskGroup.__aexit__": Rule("own-task", reading=grouped),
        "AsyncIOBackend.sleep": TRANSPARENT,
        "AsyncIOBackend.run_sync_in_worker_thread": Rule(
            "thread", reading=in_thread, refines=("semaphore", "unknown")
        ),
        "Process.wait": TRANSPARENT,
        **_SOCKETS,
    },
    "anyio/_backends/_trio.py": _ON_TRIO,
    "anyio/_core/_synchronization.py": {
        "Lock.__aenter__": TRANSPARENT,
        "LockAdapter.acquire": TRANSPARENT,
        "LockAdapter.__aenter__": TRANSPARENT,
        "Semaphore.__aenter__": TRANSPARENT,
        "SemaphoreAdapter.acquire": TRANSPARENT,
        "EventAdapter.wait": TRANSPARENT,
        "Condition.acquire": TRANSPARENT,
        "Condition.__aenter__": TRANSPARENT,
        "Condition.wait": Rule("condition", owner="Condition", refines=("event",)),
        "Condition.wait_for": Rule("condition", owner="Condition", refines=("condition",)),
        "CapacityLimiterAdapter.__aenter__": TRANSPARENT,
        "CapacityLimiterAdapter.acquire": TRANSPARENT,
        "CapacityLimiterAdapter.acquire_on_behalf_of": TRANSPARENT,
    },
    "anyio/streams/memory.py": {
        "MemoryObjectReceiveStream.receive": Rule(
            "queue", "memory object stream, empty", owner="MemoryObjectReceiveStream", state="_state",
            refines=("event", "unknown"),
        ),
        "MemoryObjectSendStream.send": Rule(
            "queue", "memory object stream, full", owner="MemoryObjectSendStream", state="_state",
            refines=("event", "unknown"),
        ),
    },
    "anyio/to_process.py": {
        "run_sync": Rule("process", "call in a process", refines=("socket", "process", "event")),
        "run_sync.<locals>.send_raw_command": TRANSPARENT,
    },
}  # fmt: skip
