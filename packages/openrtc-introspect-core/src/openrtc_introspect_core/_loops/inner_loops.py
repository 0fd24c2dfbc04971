"""The asyncio loops that run inside of a Trio run: trio-asyncio's. Loaded only if the host has loaded trio-asyncio.

Such a loop is one task of Trio's: each callback of the loop, a step of an asyncio task included, runs in a step of that
task, and the callbacks of files run in tasks of Trio's as well, one a file. So the steps of these hosting tasks are not
metered. What runs in them is metered as on a loop of asyncio's own: the steps of asyncio tasks are charged to their
sessions, in the ledger of the run, and a callback is a callback.

All but what says otherwise runs on the run's thread.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from types import CoroutineType
from typing import Any

from .._accounting.ledger import Ledger
from .._base.gil import copied
from .._base.interrupts import is_interrupt
from .._sessions.session import Binding, Session
from .asyncio_hook import AsyncioHook
from .delays import AsyncioDelays, overdue
from .iterations import Fault, Iterations
from .task_starts import Note

LIBRARY = "trio_asyncio"
_LOOP = ("_main_loop", "__trio_main")
"""The methods of a loop that are its own task: in a run of the host's; and in a run that the loop makes, as those do
that `asyncio.run` makes in a process that has loaded trio-asyncio."""
_HOSTING = (*_LOOP, "_io_task")
"""The methods of a loop that run its callbacks. The last one runs those of a file, in a task for each file."""


def base_class() -> Any:
    """Return the class that trio-asyncio's loops are derived from. None: the host has not loaded it."""
    return getattr(sys.modules.get(LIBRARY), "BaseTrioEventLoop", None)


def token_around(loop: Any) -> Any:
    """Return the token of the Trio run that a loop of trio-asyncio's runs in. None: it runs in none."""
    base = base_class()
    return getattr(loop, "_token", None) if base is not None and issubclass(type(loop), base) else None


class InnerDelays(AsyncioDelays):
    """The delayed sessions of one such loop: it has queues of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, binding: Binding) -> None:
        super().__init__(loop, binding)
        queue: Any = getattr(getattr(getattr(loop, "_q_recv", None), "_state", None), "data", None)
        self.available = type(queue) is deque and type(getattr(loop, "_timers", None)) is list
        self._queue: deque[Any] = queue

    def waiting(self, seconds: float) -> dict[Session, float]:
        waits: dict[Session, float] = {}
        if not self.available or getattr(self._loop, "_task", None) is None:  # it does not run any more
            return waits
        now = self._loop.time()
        timers = overdue(self._loop._timers, now)  # type: ignore[attr-defined]
        for handle in (*copied(self._queue), *timers):
            when = getattr(handle, "_when", None)
            if when is None:
                self._note(waits, handle, seconds)
            elif when <= now:
                self._note(waits, handle, min(seconds, now - when))
        return waits


class InnerLoop(AsyncioHook):
    """Meters the tasks of one such loop into the ledger of the run around it, which shows the iterations."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, ledger: Ledger, iterations: Iterations, *, meter: bool, on_fault: Fault
    ) -> None:
        super().__init__(loop, ledger, meter=meter, on_stall=_no_stall, on_fault=on_fault, iterations=iterations)
        self.delays = InnerDelays(loop, ledger.binding)

    def end_open_steps(self) -> None:
        """End the steps that are open although the loop has given its thread back: their scopes were opened in them."""
        self._adopted.end_steps()

    def runs_here(self) -> bool:
        return asyncio.current_task(self.loop) is not None


class InnerLoops:
    """The loops of one Trio run, and the tasks of Trio's that run their callbacks."""

    def __init__(self, ledger: Ledger, iterations: Iterations, *, meter: bool, on_fault: Fault) -> None:
        self._ledger = ledger
        self._iterations = iterations
        self._meter = meter
        self._on_fault = on_fault
        self._note: Note | None = None
        self._by_task: dict[Any, InnerLoop] = {}
        """The loops by the task of Trio's that each of them is."""
        self.hosting: dict[Any, InnerLoop] = {}
        """By each task of Trio's that runs callbacks."""

    def __iter__(self) -> Iterator[InnerLoop]:
        """Yield the loops. From any thread."""
        return iter(tuple(self._by_task.values()))

    def of(self, loop: Any) -> InnerLoop | None:
        """Return what meters a loop. None: it is not one of this run's. From any thread."""
        return next((inner for inner in self if inner.loop is loop), None)

    def here(self, stepping: Any) -> InnerLoop | None:
        """Return the loop whose code runs, in a step of this task of Trio's. None: the task's own code runs.

        A loop that is being closed runs its last callbacks in the task that has opened it.
        """
        return self.hosting.get(stepping) or next((inner for inner in self if inner.runs_here()), None)

    def find(self, tasks: Iterable[Any]) -> None:
        """Take note of the tasks of Trio's that live already."""
        living = list(tasks)
        for task in (*living, *living):  # a loop's own task may come behind those of its files
            self.spawned(task)

    def spawned(self, task: Any) -> None:
        """Take note of a task of Trio's.

        A fault of ours is noted: then the asyncio tasks of this loop are not metered.
        """
        try:
            loop = _loop_of(task.coro)
            if loop is None or task in self.hosting:
                return
            if task.coro.cr_code.co_name in _LOOP and not loop.is_closed():
                inner = InnerLoop(loop, self._ledger, self._iterations, meter=self._meter, on_fault=self._on_fault)
                inner.attach()
                inner.note_tasks(self._note)
                self._by_task[task] = self.hosting[task] = inner
            elif (known := self.of(loop)) is not None:
                self.hosting[task] = known
        except Exception as error:
            if is_interrupt(error):
                raise
            self._on_fault(f"asyncio tasks of a loop of trio-asyncio are not metered: {error!r}", error)

    def exited(self, task: Any) -> None:
        """Take note that a task of Trio's has ended."""
        self.hosting.pop(task, None)
        inner = self._by_task.pop(task, None)
        if inner is not None:
            inner.detach()

    def note_tasks(self, note: Note | None) -> None:
        """Call `note` with each new asyncio task from now on. None: no longer. From any thread."""
        self._note = note
        for inner in self:
            inner.note_tasks(note)

    def end_open_steps(self) -> None:
        """End the steps of asyncio tasks that are open although the thread is Trio's again."""
        for inner in self:
            inner.end_open_steps()
        self._ledger.suspend(self._ledger.clock())

    def detach(self) -> None:
        """Restore the loops and forget them."""
        loops = list(self)
        self._by_task.clear()
        self.hosting.clear()
        with ExitStack() as parts:  # each is restored, whatever the others raise
            for inner in loops:
                parts.callback(inner.detach)


def _loop_of(coro: Any) -> Any:
    """Return the loop of trio-asyncio's that this coroutine runs callbacks of. None: it runs none."""
    if type(coro) is not CoroutineType or coro.cr_code.co_name not in _HOSTING or coro.cr_frame is None:
        return None
    loop = coro.cr_frame.f_locals.get("self")
    return loop if issubclass(type(loop), base_class() or ()) else None


def _no_stall(since: float, until: float) -> None:
    """Do nothing: the iterations are those of the run around the loop."""
