"""Metering tasks that are older than the hook.

A task made before the task factory was ours drives its bare coroutine: the main task of
`asyncio.run`, above all, which is where `async with Introspector()` usually stands. When such a
task opens a session's scope, its steps are still the session's. The loop schedules each step of a
task with `call_soon`, so while the scope is open, `call_soon` on the loop's instance wraps the
steps of the adopted tasks, and hands everything else on.

The step in which the scope is opened is under way already. It is metered from that moment: its end
is a marker callback that is put where it runs right after it (on loops that keep their ready queue
to themselves, after what was ready already: then callbacks in between are charged with it).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any

from ._ledger import Ledger
from ._replaced import replace
from ._sessions import Account


class AdoptedTasks:
    """The older tasks of one loop that have a session's scope open."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ledger: Ledger) -> None:
        self._loop = loop
        self._ledger = ledger
        self._tasks: dict[int, Account] = {}
        """By id(task): the owner of a callback need not be hashable, and the scope keeps its task alive."""
        self._began: float | None = None
        """When the adopted step under way began to be metered; None outside of such a step."""
        self.stepping: asyncio.Task[Any] | None = None
        """Whose step that is: asyncio may have left the task by the time it is booked."""
        self._unwrap: Callable[[], bool] | None = None
        """Gives the loop its `call_soon` back; None: it has it."""

    def adopt_waiting(self, task: asyncio.Task[Any], account: Account) -> None:
        """`task` waits; from its next step on it is metered."""
        self._tasks[id(task)] = account
        if self._unwrap is None:
            self._wrap_call_soon()

    def adopt(self, task: asyncio.Task[Any], account: Account) -> None:
        """`task` is in mid-step, has just opened the scope of a session, this loop's account of which is `account`."""
        self.adopt_waiting(task, account)
        self.begin_step(task, account)
        marker = self._loop.call_soon(self.end_step, context=Context())
        ready = getattr(self._loop, "_ready", None)
        if isinstance(ready, deque) and ready and ready[-1] is marker:
            ready.rotate(1)

    def release(self, task: asyncio.Future[Any], account: Account, *, running: bool) -> bool:
        """The scope that adopted `task` is closed. False: another scope's adoption, or none."""
        if self._tasks.get(id(task)) is not account:
            return False
        del self._tasks[id(task)]
        if not self._tasks:
            self._unwrap_call_soon()
        if running:  # what is left of the step is the task's own, as before the scope
            self.end_step()
        return True

    def clear(self) -> None:
        self._tasks.clear()
        self._began = None
        self._unwrap_call_soon()

    def begin_step(self, task: asyncio.Task[Any], holder: Account) -> None:
        self.end_step()
        self.stepping = task
        _, self._began = self._ledger.begin(holder)

    def end_step(self) -> None:
        """The adopted step under way, if there is one, is over, at the latest now."""
        if self._began is not None:
            began, self._began = self._began, None
            self._ledger.end(None, began)
            self.stepping = None

    def _wrap_call_soon(self) -> None:
        original = self._loop.call_soon
        tasks = self._tasks

        def call_soon(callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
            if id(getattr(callback, "__self__", None)) in tasks:
                callback = AdoptedStep(callback, self)
            return original(callback, *args, context=context)

        self._unwrap = replace(self._loop, "call_soon", call_soon)

    def _unwrap_call_soon(self) -> None:
        if self._unwrap is not None and self._unwrap():
            self._unwrap = None


class AdoptedStep:
    """One step of an adopted task, with the task's own callback inside."""

    __slots__ = ("_adopted", "_callback")

    def __init__(self, callback: Callable[..., Any], adopted: AdoptedTasks) -> None:
        self._callback = callback
        self._adopted = adopted

    @property
    def __self__(self) -> Any:
        """The task: asyncio's debug log names a slow callback by it."""
        return self._callback.__self__  # type: ignore[attr-defined]

    def __call__(self, *args: Any) -> Any:
        ledger = self._adopted._ledger
        self._adopted.begin_step(self.__self__, ledger.bound())
        try:
            return self._callback(*args)
        finally:
            self._adopted.end_step()
