"""The locks that are known: of asyncio, threading, anyio and Trio, and what each knows of its own owner.

Only attributes of these classes are read. Code of the host, such as a property of a subclass, is not run.
"""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from typing import Any

_RLOCK = type(threading.RLock())
THREAD_LOCK = type(threading.Lock())

_ASYNCIO = (asyncio.Lock, asyncio.Semaphore, asyncio.Condition)
_THREADING = (THREAD_LOCK, _RLOCK, threading._RLock, threading.Semaphore, threading.Condition)
_OF_LIBRARIES = {
    "anyio": ("Lock", "Semaphore", "CapacityLimiter", "Condition"),
    "trio": ("Lock", "StrictFIFOLock", "Semaphore", "CapacityLimiter", "Condition"),
}

_SIMPLE = (*_ASYNCIO[:2], *_THREADING[:4])
"""Locks that have no other lock inside that others may take."""
_INNER = ("_lock", "_internal_lock", "_internal_semaphore", "_internal_limiter")
"""Where a condition, or an adapter of anyio's that was made outside of a loop, has its lock."""
_INNER_OF_ANYIO = ("_Lock__original", "_Semaphore__original", "_CapacityLimiter__original")
"""Where anyio on Trio has Trio's lock."""
_MAX_INNER = 4

_OWNER = re.compile(r" owner=(\d+) ")

_classes: tuple[type, ...] = _ASYNCIO + _THREADING
_loaded = [False for _ in _OF_LIBRARIES]


def lock_classes() -> tuple[type, ...]:
    """Return the classes of locks; those of anyio and Trio if the host has loaded them."""
    global _classes, _loaded
    loaded = [name in sys.modules for name in _OF_LIBRARIES]
    if loaded != _loaded:
        libraries = [name for name in _OF_LIBRARIES if name in sys.modules]
        found = [vars(sys.modules[name]).get(each) for name in libraries for each in _OF_LIBRARIES[name]]
        _classes = _ASYNCIO + _THREADING + tuple(each for each in found if isinstance(each, type))
        if None not in found:  # else it is being imported
            _loaded = loaded
    return _classes


def is_lock(held: object) -> bool:
    """Return whether this is a lock of a known class, or of a class derived from one."""
    return issubclass(type(held), lock_classes())


def is_thread_lock(lock: object) -> bool:
    """Return whether whoever waits for this lock holds its thread."""
    return issubclass(type(lock), _THREADING)


def inner_lock(lock: Any) -> Any:
    """Return the lock that a condition or an adapter takes; of other locks, the lock itself.

    Two conditions on one lock, and a lock and its adapter, have the same one.
    """
    for _ in range(_MAX_INNER):
        if issubclass(type(lock), _SIMPLE):
            break
        names = _INNER_OF_ANYIO if type(lock).__module__ == "anyio._backends._trio" else _INNER
        inner = next((found for name in names if (found := attribute(lock, name)) is not None), None)
        if inner is None or not is_lock(inner):
            break
        lock = inner
    return lock


def owner_of(lock: Any) -> list[Any]:
    """Return the tasks that this lock names as its owners: the owner of a lock, the borrowers of a capacity limiter.

    Empty: nobody holds it, or it does not know who does. asyncio's locks and all semaphores do not know it.
    """
    lock = inner_lock(lock)
    owner = attribute(lock, "_owner_task")
    if owner is None and type(lock).__module__.partition(".")[0] == "trio":
        owner = attribute(lock, "_owner")
    if owner is not None:
        return [owner]
    borrowers = attribute(lock, "_borrowers")
    return list(borrowers) if type(borrowers) is set else []


def owner_thread(lock: Any) -> int | None:
    """Return the identifier of the thread that owns this lock.

    None: no thread does, or the lock does not know it. Only reentrant locks know it.
    """
    lock = inner_lock(lock)
    if type(lock) is _RLOCK:
        match = _OWNER.search(repr(lock))
        return int(match[1]) or None if match is not None else None
    owner = attribute(lock, "_owner") if type(lock) is threading._RLock else None
    return owner if type(owner) is int else None


def name_of_lock(lock: Any) -> str:
    """Return how a lock is called in a description: `threading.Lock`, `asyncio.Semaphore`."""
    known = {THREAD_LOCK: "threading.Lock", _RLOCK: "threading.RLock", threading._RLock: "threading.RLock"}
    kind = type(lock)
    if kind in known:
        return known[kind]
    base = next((each for each in kind.__mro__ if each in lock_classes()), kind)
    return f"{base.__module__.partition('.')[0]}.{base.__name__}"


def attribute(held: object, name: str) -> Any:
    """Return what an object of a known class has under this name. None: nothing."""
    try:
        return object.__getattribute__(held, name)
    except AttributeError:
        return None
