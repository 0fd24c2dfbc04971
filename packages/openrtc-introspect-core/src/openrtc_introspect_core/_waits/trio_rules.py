"""The rules of Trio's functions, and of trio-asyncio's.

A task of Trio waits on no future: its await chain alone says for what.
"""

from __future__ import annotations

from typing import Any

from .anyio_rules import in_thread
from .found import Looker, TaskWait
from .future_wait import pending, wait_of_futures
from .rules import TRANSPARENT, Rule, Table

_SOCKET = {
    "wait_readable": Rule("socket", "data to read"),
    "wait_writable": Rule("socket", "room to write"),
    "_epoll_wait": TRANSPARENT,
    "_wait_common": TRANSPARENT,
    "wait_kevent": Rule("process", "end of a process"),
}


def _for_asyncio(variables: list[Any], inner: TaskWait | None, looker: Looker) -> TaskWait | None:
    """Return what a task of Trio's waits for by trio-asyncio: an asyncio task, or what that one waits for itself."""
    futures = pending(variables[:1])
    return wait_of_futures(futures, "aio_as_trio", looker) if futures else None


def _socket_rules(manager: str) -> dict[str, Rule]:
    return {f"{manager}.{name}": rule for name, rule in _SOCKET.items()}


TRIO: Table = {
    "trio/_core/_traps.py": {
        "_async_yield": TRANSPARENT,
        "_real_async_yield": TRANSPARENT,
        "wait_task_rescheduled": TRANSPARENT,
    },
    "trio/_core/_parking_lot.py": {"ParkingLot.park": Rule("event", owner="ParkingLot")},
    "trio/_core/_run.py": {"Nursery._nested_child_finished": Rule("own-task", "nursery")},
    "trio/_core/_io_epoll.py": _socket_rules("EpollIOManager"),
    "trio/_core/_io_kqueue.py": _socket_rules("KqueueIOManager"),
    "trio/_core/_generated_io_epoll.py": {"wait_readable": TRANSPARENT, "wait_writable": TRANSPARENT},
    "trio/_core/_generated_io_kqueue.py": {"wait_readable": TRANSPARENT, "wait_writable": TRANSPARENT},
    "trio/_sync.py": {
        "_LockImpl.acquire": Rule("lock", owner="_LockImpl", refines=("event",)),
        "Semaphore.acquire": Rule("semaphore", owner="Semaphore", refines=("event",)),
        "CapacityLimiter.acquire": TRANSPARENT,
        "CapacityLimiter.acquire_on_behalf_of": Rule("semaphore", owner="CapacityLimiter", refines=("event",)),
        "Condition.wait": Rule("condition", owner="Condition", refines=("event",)),
        "Condition.acquire": TRANSPARENT,
        "Event.wait": Rule("event", owner="Event"),
        "AsyncContextManagerMixin.__aenter__": TRANSPARENT,
    },
    "trio/_channel.py": {
        "MemoryReceiveChannel.receive": Rule(
            "queue", "memory channel, empty", owner="MemoryReceiveChannel", state="_state"
        ),
        "MemorySendChannel.send": Rule("queue", "memory channel, full", owner="MemorySendChannel", state="_state"),
    },
    "trio/_timeouts.py": {"sleep_forever": Rule("timer", "sleep"), "sleep_until": TRANSPARENT, "sleep": TRANSPARENT},
    "trio/_threads.py": {"to_thread_run_sync": Rule("thread", reading=in_thread, refines=("semaphore", "unknown"))},
    "trio/_subprocess.py": {"Process.wait": Rule("process", "end of a process", refines=("event", "thread", "socket"))},
    "trio/_subprocess_platform/waitid.py": {"wait_child_exiting": TRANSPARENT},
    "trio/_subprocess_platform/kqueue.py": {"wait_child_exiting": TRANSPARENT},
    "trio_asyncio/_util.py": {"run_aio_future": Rule(reading=_for_asyncio)},
}
