"""The wait of a thread in the call that it is in: for a lock, a future, another thread, a queue, a process.

Python's own modules wait in functions of Python that are known by name; their variables have what is waited for. A
`threading.Lock` waits in C: then the names in the caller's source say which lock it is.
"""

from __future__ import annotations

from collections.abc import Collection
from types import CodeType, FrameType
from typing import Any, NamedTuple

from .._os.stacks import MAX_FRAMES
from .._os.variables import variables_of
from .expressions import Names, enters_with, path_at, uses_of
from .locks import THREAD_LOCK, attribute, inner_lock, is_lock, is_thread_lock, name_of_lock

LOCK, FUTURE, THREAD, PROCESS, OTHER = "lock", "future", "thread", "process", "other"

_WAITS: dict[tuple[str, str], tuple[str, str]] = {
    ("concurrent.futures._base", "Future.result"): (FUTURE, "a future"),
    ("concurrent.futures._base", "Future.exception"): (FUTURE, "a future"),
    ("concurrent.futures._base", "wait"): (OTHER, "several futures"),
    ("concurrent.futures._base", "as_completed"): (OTHER, "several futures"),
    ("queue", "Queue.get"): (OTHER, "an entry of a queue.Queue"),
    ("queue", "Queue.put"): (OTHER, "room in a queue.Queue"),
    ("queue", "Queue.join"): (OTHER, "the last `task_done` of a queue.Queue"),
    ("subprocess", "Popen.wait"): (PROCESS, "the end of process"),
    ("subprocess", "Popen.communicate"): (PROCESS, "the output of process"),
    ("threading", "Barrier.wait"): (OTHER, "others at a threading.Barrier"),
    ("threading", "Condition.wait"): (OTHER, "a threading.Condition"),
    ("threading", "Condition.wait_for"): (OTHER, "a threading.Condition"),
    ("threading", "Event.wait"): (OTHER, "a threading.Event"),
    ("threading", "Semaphore.acquire"): (LOCK, ""),
    ("threading", "Semaphore.__enter__"): (LOCK, ""),
    ("threading", "Thread.join"): (THREAD, "the end of thread"),
}
"""By module and function: what is waited for, which is the function's `self`."""

_OF_PYTHON = frozenset({"concurrent.futures._base", "concurrent.futures.thread", "logging", "queue", "selectors"}) | {
    "subprocess",
    "threading",
}
"""Modules in whose functions the wait may be, called by the ones above."""

_TAKE = frozenset({"acquire", "__enter__"})
_METHODS = _TAKE | {"get"}


class ThreadWait(NamedTuple):
    """What a thread waits for."""

    kind: str
    """LOCK, FUTURE, THREAD, PROCESS or OTHER."""
    target: Any
    """The object: of a lock, the lock inside. None: it is not known."""
    what: str
    """In English: `threading.Lock (self.lock)`, `the end of thread reader`."""


def thread_wait(frame: FrameType | None, ends: Collection[CodeType] = ()) -> ThreadWait | None:
    """Return what a thread waits for, from its innermost frame outwards to the code in `ends`.

    None: it waits for nothing, or that is not known. From any thread, with the GIL.
    """
    innermost, found = frame, None
    for _ in range(MAX_FRAMES):
        if frame is None or frame.f_code in ends:
            break
        module = str(frame.f_globals.get("__name__"))
        if (known := _WAITS.get((module, frame.f_code.co_qualname))) is not None:
            found = *known, frame
        elif module not in _OF_PYTHON:
            break
        frame = frame.f_back
    if found is None:
        return _taken_in_c(innermost, frame) if innermost is not None else None
    kind, what, waiting = found
    target = (variables_of(waiting) or {}).get("self")
    if kind == LOCK:
        return _of_lock(target, _text(frame, target)) if target is not None else None
    if kind == THREAD:
        what = f"{what} {attribute(target, '_name') or '?'}"
    elif kind == PROCESS:
        what = f"{what} {attribute(target, 'pid') or '?'}"
    return ThreadWait(kind, target, what)


def _taken_in_c(frame: FrameType, caller: FrameType | None) -> ThreadWait | None:
    """Return the lock, or the queue, that the innermost frame waits for in a call of C code.

    caller: the innermost frame that is not in a module of Python's own.
    """
    code = frame.f_code
    if _METHODS.isdisjoint(code.co_names) and not enters_with(code, frame.f_lasti):
        return None
    uses_of(code)  # it may give the GIL away: where the frame is then, is read afterwards
    path = path_at(code, frame.f_lasti)
    if path is None or len(path) < 2 or path[-1] not in _METHODS:
        return None
    names = Names(frame)
    if not path[0]:
        return _only_one(names) if path[-1] in _TAKE else None
    value = names.value(path[:-1])
    if value is None:
        return None
    if is_thread_lock(value):
        text = ".".join(path[:-1]) if caller is frame else _text(caller, value)
        return _of_lock(value, text) if path[-1] in _TAKE else None
    if type(value).__name__ == "SimpleQueue":
        return ThreadWait(OTHER, value, "an entry of a queue.SimpleQueue")
    return None


def _only_one(names: Names) -> ThreadWait | None:
    """Return the only lock that is taken of those that the code may name, as in `locks[key].acquire()`."""
    locks = {id(each): each for each in names.reachable() if is_thread_lock(each) and _is_taken(each)}
    return _of_lock(next(iter(locks.values())), "") if len(locks) == 1 else None


def _is_taken(lock: Any) -> bool:
    return bool(type(lock) is THREAD_LOCK and lock.locked())


def _text(frame: FrameType | None, lock: Any) -> str:
    """Return how the source of a frame calls the lock that it waits for. Empty: that is not known."""
    if frame is None or lock is None:
        return ""
    path, names = path_at(frame.f_code, frame.f_lasti) or (), Names(frame)
    while path:
        value = names.value(path)
        if value is not None and is_lock(value) and inner_lock(value) is inner_lock(lock):
            return ".".join(path)
        path = path[:-1]
    return ""


def _of_lock(lock: Any, text: str) -> ThreadWait:
    return ThreadWait(LOCK, inner_lock(lock), f"{name_of_lock(lock)}{f' ({text})' if text else ''}")
