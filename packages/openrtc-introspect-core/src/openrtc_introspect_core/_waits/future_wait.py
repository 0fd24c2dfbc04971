"""The wait for a future, by its class and its callbacks.

asyncio's own functions leave behind whom they wait for: shield and the bridge to a thread's future do so in closures,
gather in a list. If user code or a library resolves a future itself, the future does not show it.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterable
from typing import Any

from .._loops.asyncio_names import callbacks_of, is_done, is_task
from .._loops.await_chain import is_future
from .executors import state_of
from .found import Looker, TaskWait
from .future_callbacks import closures
from .tasks_waited import only_wraps, wait_for_task

MAX_DEPTH = 8
"""Futures that are looked through before the rest is unknown."""

MAX_CHILDREN = 32
"""The futures of a gather, or a wait, that are looked at."""

_CALLS = {"thread": "calls in threads", "executor": "calls that are queued for threads"}

_SOCKETS = {"_SyncSocketReaderFuture": "sock_recv", "_SyncSocketWriterFuture": "sock_sendall"}
"""uvloop's futures of a socket."""


def pending(futures: Iterable[Any]) -> list[Any]:
    """Return those of some futures that are not done."""
    return [each for each in tuple(futures) if is_future(each) and not is_done(each)]


def wait_of_futures(futures: list[Any], what: str, looker: Looker) -> TaskWait:
    """Return the wait for several futures, or what a single one stands for.

    futures: those that are not done. what: the function that waits for them.
    """
    if len(futures) == 1:
        alone = futures[0]
        if is_task(alone) and looker.depth < MAX_DEPTH and only_wraps(alone, looker):
            return looker.follow(alone, looker.deeper())
        return wait_of_future(alone, looker.deeper())
    return wait_for_children(futures, what, looker) or _wait_for_alike(futures, what, looker)


def wait_for_children(futures: list[Any], what: str, looker: Looker) -> TaskWait | None:
    """Return the wait for tasks, of which the first one stands for all. None: no task is among them."""
    first = next((each for each in futures if is_task(each)), None)
    return wait_for_task(first, looker, what)._replace(target=None) if first is not None else None


def _wait_for_alike(futures: list[Any], what: str, looker: Looker) -> TaskWait:
    """Return the wait for several futures that are no tasks: for calls in threads if there are some, or all alike."""
    found: dict[str, TaskWait] = {}
    for each in futures[:MAX_CHILDREN]:
        wait = wait_of_future(each, looker.deeper())
        found.setdefault(wait.kind, wait)
    for kind, calls in _CALLS.items():  # as long as one runs, those behind it get on
        if kind in found:
            return TaskWait(kind, None, f"{what} of {calls}")
    alike = next(iter(found.values())) if len(found) == 1 else None
    if alike is None or alike.kind == "unknown":
        return TaskWait("unknown", None, what)
    return TaskWait(alike.kind, None, f"{what} of {alike.what}")


def wait_of_future(future: Any, looker: Looker) -> TaskWait:
    """Return what is waited for in a bare `await` of this future."""
    if looker.depth >= MAX_DEPTH or not is_future(future):
        return TaskWait("unknown", future, "future")
    if is_task(future):
        return wait_for_task(future, looker)
    children = getattr(future, "_children", None) if type(future).__name__ == "_GatheringFuture" else None
    if isinstance(children, list):
        return wait_of_futures(pending(children), "gather", looker)
    if type(future).__name__ in _SOCKETS:
        return TaskWait("socket", None, _SOCKETS[type(future).__name__])
    for name, held in closures(callbacks_of(future)):
        if name == "shield.<locals>._outer_done_callback":
            return wait_of_futures(pending((held.get("inner"),)), "shield", looker)
        if name == "_chain_future.<locals>._call_check_cancel" and _is_of_thread(held.get("source")):
            return wait_of_call(held["source"], looker)
    return TaskWait("unknown", future, "future")


def wait_of_call(source: concurrent.futures.Future[Any], looker: Looker) -> TaskWait:
    """Return what stands behind the future of a call in another thread."""
    for name, held in closures(getattr(source, "_done_callbacks", ())):
        if name == "_chain_future.<locals>._call_check_cancel" and is_task(held.get("source")):
            return wait_for_task(held["source"], looker)  # run_coroutine_threadsafe made it, on another loop
    if state_of(source) == "running":
        return TaskWait("thread", source, "call in a thread")
    return TaskWait("executor", source, "call that is queued for a thread")


def _is_of_thread(future: object) -> bool:
    return issubclass(type(future), concurrent.futures.Future)
