"""Metering tasks that are older than the hook.

A task made before the hook was there drives its bare coroutine: the main task of `asyncio.run`, above
all, which is where `async with Introspector()` usually stands. When such a task opens a session's
scope, its steps are still the session's. The loop schedules each step of a task as a callback that
belongs to the task, so while the scope is open, the callbacks that the loop is about to run are looked
through at each of its waits, and those of adopted tasks are wrapped. On loops that keep their ready
queue to themselves, `call_soon` on the loop's instance wraps them instead.

The step in which the scope is opened is under way already. It is metered from that moment until the
next callback that is ready begins, or the loop waits. On loops that keep their ready queue to
themselves a callback of ours marks the end, after what was ready already: then callbacks in between
are charged with the step. A mark that an iteration inside of the step meets comes too early, and the
loop's next wait ends the step.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any
from weakref import ref

from ._ledger import Ledger, Suspended
from ._replaced import Replaced
from ._sessions import Account


class OpenStep:
    """A step of an adopted task that is under way."""

    __slots__ = ("began", "holder", "inside_of", "outside", "task")

    def __init__(self, task: asyncio.Task[Any], holder: Account, inside_of: OpenStep | None) -> None:
        self.task = task
        self.holder = holder
        self.inside_of = inside_of
        """The adopted step that runs the iteration which this one is a part of; None: no other's."""
        self.outside: Account | None = None
        self.began: float | None = None
        """When it began to be metered; None once its end is booked."""


class AdoptedTasks:
    """The older tasks of one loop that have a session's scope open."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ledger: Ledger) -> None:
        self._loop = loop
        self._ledger = ledger
        self._ready: deque[Any] | None = getattr(loop, "_ready", None)
        """What the loop runs next; None: it does not show that."""
        self.tasks: dict[int, Account] = {}
        """By id(task), since the owner of a callback need not be hashable; as long as the task lives."""
        self._living: dict[int, ref[asyncio.Future[Any]]] = {}
        self._step: OpenStep | None = None
        self._call_soon: Replaced | None = None
        """None: the loop has its own, and shows its ready queue or has no adopted tasks."""

    @property
    def stepping(self) -> asyncio.Task[Any] | None:
        """Whose step is under way: asyncio may have left the task by the time it is booked."""
        step = self._step
        return step.task if step is not None else None

    def adopt_waiting(self, task: asyncio.Task[Any], account: Account) -> None:
        """`task` waits; from its next step on it is metered."""
        key = id(task)
        self.tasks[key] = account
        self._living[key] = ref(task, lambda _: self._forget(key))
        if self._call_soon is None and self._ready is None:
            self._call_soon = Replaced(self._loop, "call_soon", self._wrapping_steps)

    def adopt(self, task: asyncio.Task[Any], account: Account) -> None:
        """`task` is in mid-step, has just opened the scope of a session, this loop's account of which is `account`."""
        self.adopt_waiting(task, account)
        step = self.begin_step(task, account)
        if self._ready is None:
            self._loop.call_soon(FollowingCallback(None, self, step), context=Context())
            return
        # One more callback in the queue would put off the last that this iteration runs: the next one tells.
        following = next((handle for handle in self._ready if not handle.cancelled()), None)
        if following is not None:
            following._callback = FollowingCallback(following._callback, self, step)

    def see_ready(self) -> None:
        """The loop is about to run what is ready: steps of adopted tasks are metered."""
        for handle in self._ready or ():
            callback = handle._callback
            if id(getattr(callback, "__self__", None)) in self.tasks and not self._has_wrapped(callback):
                handle._callback = AdoptedStep(callback, self)

    def _has_wrapped(self, callback: Any) -> bool:
        """Whether it is wrapped already: iterations inside of a step see what is ready once more."""
        while isinstance(callback, AdoptedStep | FollowingCallback):
            if callback._adopted is self and type(callback) is AdoptedStep:
                return True
            callback = callback._callback
        return False

    def release(self, task: asyncio.Future[Any], account: Account, *, running: bool) -> bool:
        """The scope that adopted `task` is closed. False: another scope's adoption, or none."""
        if self.tasks.get(id(task)) is not account:
            return False
        self._forget(id(task))
        if running and self._step is not None:  # what is left of the step is the task's own, as before the scope
            self.end_step(self._step)
        return True

    def _forget(self, key: int) -> None:
        self._living.pop(key, None)
        if self.tasks.pop(key, None) is not None and not self.tasks:
            self._unwrap_call_soon()

    def clear(self) -> None:
        self.tasks.clear()
        self._living.clear()
        self._step = None
        self._unwrap_call_soon()

    def begin_step(self, task: asyncio.Task[Any], holder: Account) -> OpenStep:
        """A step of an adopted task is metered from now on."""
        if type(self._ledger.running) is not Suspended:  # the marker of one before comes late: that step is over
            self.end_steps()
        step = OpenStep(task, holder, self._step)
        step.outside, step.began = self._ledger.begin(holder)
        self._step = step
        return step

    def end_step(self, step: OpenStep) -> None:
        """It is over, at the latest now."""
        try:
            if step.began is not None:
                began, step.began = step.began, None
                self._ledger.end(step.outside, began, step.holder)
        finally:
            if self._step is step:
                self._step = step.inside_of

    def end_steps(self) -> None:
        """None is under way: the loop waits."""
        while self._step is not None:
            self.end_step(self._step)

    def _marked(self, step: OpenStep) -> None:
        """Another callback begins: the step is over."""
        if type(self._ledger.running) is not Suspended:  # otherwise this iteration is a part of the step
            self.end_step(step)

    def _wrapping_steps(self, before: Callable[..., Any] | None) -> Callable[..., Any]:
        tasks = self.tasks
        below = before or self._loop.call_soon

        def call_soon(loop: Any, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
            try:
                if id(getattr(callback, "__self__", None)) in tasks:
                    callback = AdoptedStep(callback, self)
            except Exception as error:
                if self._ledger.failed(error):
                    raise
            return below(callback, *args, context=context)

        return call_soon

    def _unwrap_call_soon(self) -> None:
        if self._call_soon is not None and self._call_soon.put_back():
            self._call_soon = None


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

    def __call__(self, *args: Any) -> None:
        adopted = self._adopted
        step = interrupt = None
        try:
            step = adopted.begin_step(self.__self__, adopted._ledger.bound())
        except Exception as error:
            if adopted._ledger.failed(error):
                interrupt = error  # the step is not lost for it
        try:
            self._callback(*args)
        except BaseException as error:
            error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # this frame is not theirs
            raise
        finally:
            if step is not None:
                try:
                    adopted.end_step(step)
                except Exception as error:
                    if adopted._ledger.failed(error):
                        interrupt = error
        if interrupt is not None:
            raise interrupt


class FollowingCallback:
    """The callback that runs right after a step which was adopted in its middle."""

    __slots__ = ("_adopted", "_callback", "_step")

    def __init__(self, callback: Callable[..., Any] | None, adopted: AdoptedTasks, step: OpenStep) -> None:
        self._callback = callback
        """None: it is there for the step's end alone."""
        self._adopted = adopted
        self._step = step

    @property
    def __self__(self) -> Any:
        """Whose it is: a task, where the callback is its step or its wake-up."""
        return self._callback.__self__  # type: ignore[union-attr]

    def __call__(self, *args: Any) -> None:
        interrupt = None
        try:
            self._adopted._marked(self._step)
        except Exception as error:
            if self._adopted._ledger.failed(error):
                interrupt = error
        try:
            if self._callback is not None:
                self._callback(*args)
        except BaseException as error:
            error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # this frame is not theirs
            raise
        if interrupt is not None:
            raise interrupt
