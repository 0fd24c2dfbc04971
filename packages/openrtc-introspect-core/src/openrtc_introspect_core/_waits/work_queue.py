"""The calls in the queue of a ThreadPoolExecutor, which its threads have not taken so far.

The queue does not show its items. The garbage collector does: it asks the queue for what it refers to.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.thread import _WorkItem
from queue import Queue, SimpleQueue
from typing import Any

from .._base.gil import has_gil, yield_gil
from .locks import attribute

_PER_YIELD = 500
"""Items after which another thread may have the GIL."""


def queued_functions(executor: ThreadPoolExecutor) -> Iterator[Any]:
    """Yield the functions of the calls that wait, without those that were cancelled. From any thread.

    Yields nothing without a GIL, or if the queue is of an unknown kind.
    """
    for count, item in enumerate(_items(attribute(executor, "_work_queue")), start=1):
        parts = vars(item) if type(item) is _WorkItem else {}
        future = parts.get("future")
        if isinstance(future, Future) and vars(future).get("_state") == "PENDING":
            task = parts.get("task")  # 3.14
            yield task[0] if type(task) is tuple and task else parts.get("fn")
        if count % _PER_YIELD == 0:
            yield_gil()


def queued_count(executor: ThreadPoolExecutor) -> int:
    """Return the number of items in the queue, those that were cancelled included."""
    queue = attribute(executor, "_work_queue")
    return queue.qsize() if isinstance(queue, SimpleQueue | Queue) else 0


def _items(queue: Any) -> list[Any]:
    if isinstance(queue, Queue):
        items = vars(queue).get("queue")
        return list(items) if isinstance(items, deque | list) else []
    if type(queue) is not SimpleQueue or not has_gil():
        return []
    found = gc.get_referents(queue)
    lists = [each for each in found if type(each) is list]  # 3.11, 3.12: the queue has its items in a list
    return [item for each in (found, *lists) for item in tuple(each)]
