"""The sessions that a block of a Trio run delayed.

They are read from the run's own queues, as delays.py reads asyncio's.

Loaded only on Trio.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FrameType
from typing import Any

import trio
from trio._core import _run as trio_run

from .._sessions.session import Binding, Session
from .hook import LoopHook
from .trio_tasks import Task

RUN_LOOP: CodeType = trio_run.unrolled_run.__code__


class TrioDelays:
    """The delayed sessions of one Trio run.

    A task that is scheduled has waited since before the block, or since the block itself scheduled it. The tasks in a
    cancel scope whose deadline is over have waited since the deadline: that is how Trio sleeps. A task that the next
    wait for events schedules has waited for an unknown part of the block.
    """

    def __init__(self, runner: Callable[[], Any], binding: Binding, inner: Iterable[LoopHook] = ()) -> None:
        self._inner = inner
        """The hooks of the asyncio loops inside of the run, which have queues of their own."""
        self._runner = runner
        """A weak reference: None once the run is over."""
        self._binding = binding
        self.available = all(hasattr(runner(), name) for name in ("runq", "deadlines", "clock"))

    def waiting(self, seconds: float) -> dict[Session, float]:
        waits: dict[Session, float] = {}
        for task in (*self.ready_now(), *_rest_of_batch()):
            self._note(waits, task, seconds)
        runner = self._runner()
        if runner is None:
            return waits
        now = runner.clock.current_time()
        for deadline, scope in _overdue(runner.deadlines, now):
            for task in _tasks_in(getattr(scope, "_cancel_status", None)):
                if getattr(task, "_next_send_fn", None) is None and not _running(task):
                    self._note(waits, task, min(seconds, now - deadline))
        for inner in self._inner:
            for session, waited in inner.delays.waiting(seconds).items():
                waits[session] = max(waited, waits.get(session, 0.0))
        return waits

    def ready_now(self) -> set[Task]:
        """Return the tasks that are scheduled to run."""
        runner = self._runner()
        return set(runner.runq) if self.available and runner is not None else set()

    def ready(self, events: set[Task]) -> set[Session]:
        found: dict[Session, float] = {}
        for task in events:
            self._note(found, task, 0.0)
        return set(found)

    def _note(self, waits: dict[Session, float], task: Task, seconds: float) -> None:
        session = task.context.get(self._binding)
        if session is not None and not session.ended:
            waits[session] = max(seconds, waits.get(session, 0.0))


def _rest_of_batch() -> list[Task]:
    """Return the rest of the tasks that Trio has taken from its queue to run now."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not RUN_LOOP:
        frame = frame.f_back
    return list(frame.f_locals.get("batch", ())) if frame is not None else []


def _overdue(deadlines: Any, now: float) -> Iterator[tuple[float, Any]]:
    """Yield (deadline, cancel scope) of each that is over.

    The search goes from the root of Trio's heap down, as far as deadlines are over.
    """
    heap = getattr(deadlines, "_heap", ())
    pending = [0]
    while pending:
        index = pending.pop()
        if index < len(heap) and heap[index][0] <= now:
            deadline, _, scope = heap[index]
            if deadline == getattr(scope, "_registered_deadline", None):
                yield deadline, scope
            pending += (2 * index + 1, 2 * index + 2)


def _tasks_in(status: Any) -> Iterator[Task]:
    if status is not None:
        yield from tuple(getattr(status, "_tasks", ()))
        for child in tuple(getattr(status, "_children", ())):
            if not child._scope.shield:
                yield from _tasks_in(child)


def _running(task: Task) -> bool:
    return trio.lowlevel.in_trio_task() and trio.lowlevel.current_task() is task
