"""Metering tasks that are older than the hook.

A task that was made before the hook drives its bare coroutine. The main task of `asyncio.run` is the usual one:
`async with Introspector()` stands in it. When such a task opens a session's scope, its steps belong to the session.
The loop schedules each step of a task as a callback whose owner is the task. So while the scope is open, the hook
searches the callbacks that the loop is about to run, at each of the loop's waits, and wraps those of adopted tasks.
On loops that do not show their ready queue, `call_soon` on the loop's instance wraps them instead.

The step that opens the scope is under way already. It is metered from that moment until the next ready callback
begins or the loop waits. On loops that do not show their ready queue, a callback of the hook marks the end, behind
what was ready already: callbacks in between are charged with the step. If an iteration inside of the step runs this
callback, it is too early, and the loop's next wait ends the step.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any
from weakref import ref

from .._accounting.account import Account
from .._accounting.ledger import Ledger
from .._accounting.suspended_step import SuspendedStep
from .._base.gil import copied
from .._base.replaced_method import Replaced


class OpenStep:
    """The step of an adopted task that is under way."""

    __slots__ = ("began", "holder", "inside_of", "outside", "task")

    def __init__(self, task: asyncio.Task[Any], holder: Account, inside_of: OpenStep | None) -> None:
        self.task = task
        self.holder = holder
        self.inside_of = inside_of
        """The adopted step that runs the iteration this step is a part of; None: no adopted step does."""
        self.outside: Account | None = None
        """The account that held the loop when the step began."""
        self.began: float | None = None
        """When metering of the step began; None once its end is charged."""


class AdoptedTasks:
    """The older tasks of one loop that have a session's scope open."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ledger: Ledger) -> None:
        self._loop = loop
        self._ledger = ledger
        ready = getattr(loop, "_ready", None)
        self._ready: deque[Any] | None = ready if isinstance(ready, deque) else None
        """The callbacks that the loop runs next; None: the loop does not show its queue."""
        self.tasks: dict[int, Account] = {}
        """By id(task), as long as the task lives; the owner of a callback need not be hashable."""
        self._living: dict[int, ref[asyncio.Future[Any]]] = {}
        self._step: OpenStep | None = None
        self._call_soon: Replaced | None = None
        """None: the loop's own is in place, since the loop shows its ready queue or has no adopted tasks."""

    @property
    def stepping(self) -> asyncio.Task[Any] | None:
        """Return the task whose step is under way.

        asyncio itself may have left the task before the step is charged.
        """
        step = self._step
        return step.task if step is not None else None

    def adopt_waiting(self, task: asyncio.Task[Any], account: Account) -> None:
        """Meter `task`, which waits now, from its next step on."""
        key = id(task)
        self.tasks[key] = account
        self._living[key] = ref(task, lambda _: self._forget(key))
        self._wrap_call_soon()

    def hide_queue(self) -> None:
        """Take note that the loop does not use the ready queue that it has, if any."""
        self._ready = None
        self._wrap_call_soon()

    def _wrap_call_soon(self) -> None:
        if self._call_soon is None and self._ready is None and self.tasks:
            self._call_soon = Replaced(self._loop, "call_soon", self._wrapping_steps)

    def adopt(self, task: asyncio.Task[Any], account: Account) -> None:
        """Meter `task` from now on, in the middle of its step.

        account: its session's account on this loop.
        """
        self.adopt_waiting(task, account)
        step = self.begin_step(task, account)
        if self._ready is None:
            self._loop.call_soon(FollowingCallback(None, self, step), context=Context())
            return
        # One more callback in the queue would delay the last one of this iteration: so the next callback is wrapped.
        following = next((handle for handle in copied(self._ready) if not handle.cancelled()), None)
        if following is not None:
            following._callback = FollowingCallback(following._callback, self, step)

    def see_ready(self) -> None:
        """Wrap the steps of adopted tasks among the callbacks that are ready."""
        for handle in copied(self._ready) if self._ready else ():  # other threads may add to it meanwhile
            callback = handle._callback
            if id(getattr(callback, "__self__", None)) in self.tasks and not self._has_wrapped(callback):
                handle._callback = AdoptedStep(callback, self)

    def _has_wrapped(self, callback: Any) -> bool:
        """Return whether a callback is wrapped already.

        Iterations inside of a step see the same queue once more.
        """
        while isinstance(callback, AdoptedStep | FollowingCallback):
            if callback._adopted is self and type(callback) is AdoptedStep:
                return True
            callback = callback._callback
        return False

    def release(self, task: asyncio.Future[Any], account: Account, *, running: bool) -> bool:
        """Meter `task` no longer: the scope that adopted it is closed.

        Return False if `account` did not adopt it.
        """
        if self.tasks.get(id(task)) is not account:
            return False
        self._forget(id(task))
        if running and self._step is not None:  # the rest of the step is the task's own, as before the scope
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
        """Meter a step of an adopted task from now on."""
        if type(self._ledger.holder) is not SuspendedStep:  # an earlier step whose mark is late is over
            self.end_steps()
        step = OpenStep(task, holder, self._step)
        step.outside, step.began = self._ledger.begin(holder)
        self._step = step
        return step

    def end_step(self, step: OpenStep) -> None:
        """End the step now, unless it has ended before."""
        try:
            if step.began is not None:
                began, step.began = step.began, None
                self._ledger.end(step.outside, began, step.holder)
        finally:
            if self._step is step:
                self._step = step.inside_of

    def end_steps(self) -> None:
        """End all steps: the loop waits."""
        while self._step is not None:
            self.end_step(self._step)

    def _marked(self, step: OpenStep) -> None:
        """End the step, because another callback begins.

        Not so if this iteration is a part of the step.
        """
        if type(self._ledger.holder) is not SuspendedStep:
            self.end_step(step)

    def _wrapping_steps(self, before: Callable[..., Any] | None) -> Callable[..., Any]:
        """Return the `call_soon` to put in place."""
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
    """One step of an adopted task: the task's own callback, metered."""

    __slots__ = ("_adopted", "_callback")

    def __init__(self, callback: Callable[..., Any], adopted: AdoptedTasks) -> None:
        self._callback = callback
        self._adopted = adopted

    @property
    def __self__(self) -> Any:
        """Return the task: asyncio's debug log names a slow callback by it."""
        return self._callback.__self__  # type: ignore[attr-defined]

    def __call__(self, *args: Any) -> None:
        adopted = self._adopted
        step = interrupt = None
        try:
            step = adopted.begin_step(self.__self__, adopted._ledger.bound())
        except Exception as error:
            if adopted._ledger.failed(error):
                interrupt = error  # raised after the step, which must run
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
    """The callback that runs right after a step that was adopted in its middle."""

    __slots__ = ("_adopted", "_callback", "_step")

    def __init__(self, callback: Callable[..., Any] | None, adopted: AdoptedTasks, step: OpenStep) -> None:
        self._callback = callback
        """None: this one only marks the step's end."""
        self._adopted = adopted
        self._step = step

    @property
    def __self__(self) -> Any:
        """Return the callback's owner: a task if the callback is its step or its wake-up."""
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
