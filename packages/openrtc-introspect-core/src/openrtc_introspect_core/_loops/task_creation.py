"""The creation of tasks.

Every task that a loop creates drives a metered coroutine.

While attached, `create_task` on the loop's instance is ours, so the loop's task factory need not change:
`get_task_factory` returns the factory that the host has set, or None, and `set_task_factory` sets one as before.

An eager factory is the exception. anyio recognises `asyncio.eager_task_factory` by its code, takes the constructor out
of its closure, and makes tasks with that constructor alone. So if an eager factory is set, the loop gets a factory of
the same code whose constructor meters, and on detach its own again. An eager factory that is set while attached is
seen when the loop makes its next task, enters a scope or waits. `set_task_factory` is not replaced to see it earlier:
from 30 attributes on, CPython 3.13 and later find each attribute of an object more slowly, and a loop has 26 of its
own.

A factory, or a wrapper of the class's `create_task`, may put a coroutine of its own around the metered one, as
sentry-sdk does. What the outer one does is the task's, too: so once the task is made, it is given a metered coroutine
around both (task_coroutine.py), and the one inside meters no longer.

A task made by calling `asyncio.Task` itself, as aiohttp does on Python 3.12 and later, is not seen.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import coroutines
from collections.abc import Callable
from contextvars import Context
from functools import partial
from types import CodeType, CoroutineType
from typing import TYPE_CHECKING, Any

from .._accounting.ledger import Ledger
from .._accounting.meter import Metered, is_metered, metered
from .._base.replaced_method import Replaced
from .._native import native
from .asyncio_names import coro_of, is_done, is_task
from .coroutine_kinds import note_begin
from .task_coroutine import replace_coro
from .task_starts import Note

Task = asyncio.Task

TaskFactory = Callable[..., Any]

_EAGER: CodeType | None = None
if sys.version_info >= (3, 12):
    _EAGER = asyncio.eager_task_factory.__code__  # type: ignore[attr-defined]


if TYPE_CHECKING:
    from .._native._meter import CreationFields
elif native is not None:
    CreationFields = native.CreationFields
else:

    class CreationFields:
        """The fields that the creation of each task reads: C has a type for them."""


class TaskCreation(CreationFields):
    """The creation of one loop's tasks, while attached.

    All but `detach` and `replaced` runs on the loop's thread.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ledger: Ledger,
        *,
        meter: bool,
        created: Callable[[Any, Context | None], None] | None,
    ) -> None:
        self._loop = loop
        self._ledger = ledger
        self._meter = meter
        self._created = created
        """Called with each new task and the context it was given, if steps are not metered."""
        self._attached = False
        self._replaced: Replaced | None = None
        self._noting: Replaced | None = None
        """A second `create_task` above ours, while creations are noted: else none of it is paid for."""
        self._theirs: TaskFactory | None = None
        """The host's eager factory, while `_eager` replaces it."""
        self._eager: TaskFactory | None = None
        """The factory that replaces `_theirs`; None: the factory that is set is no eager one."""
        self.known_factory: TaskFactory | None = None
        """The factory that was set when the loop was last asked for it."""
        self.direct = False
        """Whether `create_task` meters: an eager factory's constructor does so itself."""

    def attach(self) -> None:
        """Meter new tasks from now on.

        Raise AttributeError if the loop's methods cannot be replaced.
        """
        self._attached = True
        self.direct = self._meter
        self.see_factory()
        self._replaced = Replaced(self._loop, "create_task", self._creating)

    def detach(self) -> None:
        """Restore what was changed.

        A method that someone has put in since stays, and ours below does nothing more.
        """
        self._attached = self.direct = False
        self.note(None)
        if self._replaced is not None:
            self._replaced.put_back()
        if self._eager is not None and not self._loop.is_closed() and self._loop.get_task_factory() is self._eager:
            theirs: Any = self._theirs
            while (creation := getattr(theirs, "creation", None)) is not None and not creation._attached:
                theirs = creation._theirs  # of another introspector, which was attached before and detached before
            self._loop.set_task_factory(theirs)

    def see_factory(self) -> None:
        """Read which factory is set now, and replace an eager one by one that meters."""
        if not self._attached:
            return
        try:
            factory = self._loop.get_task_factory()
        except NotImplementedError:  # a loop need not have any
            factory = None
        if factory is self.known_factory:
            return
        if not self._meters_in(factory):
            self._eager = self._theirs = None
            if self._meter and _is_eager(factory):
                eager = self._metering(factory)
                self._loop.set_task_factory(eager)
                self._theirs, factory, self._eager = factory, eager, eager
        self.known_factory = factory
        self.direct = self._meter and self._eager is None

    def note(self, note: Note | None) -> None:
        """Call `note` with each new task and the frame that creates it from now on. None: no longer.

        From any thread. Nothing is noted unless attached.
        """
        noting, self._noting = self._noting, None
        if noting is not None:
            noting.put_back()
        if note is not None and self._attached:
            self._noting = Replaced(self._loop, "create_task", partial(self._noting_tasks, note))
            if not self._attached:  # it was detached meanwhile, by another thread
                self.note(None)

    def _meters_in(self, factory: Any) -> bool:
        """Return whether the factory is our eager one, or is wrapped around ours."""
        while (creation := getattr(factory, "creation", None)) is not None and creation is not self:
            factory = creation._theirs
        return creation is self

    def replaced(self) -> bool:
        """Return whether someone has replaced our `create_task`. From any thread.

        Theirs may still call ours.
        """
        return self._replaced is not None and not self._replaced.is_reached()

    # --- the loop's methods ----------------------------------------------------------------------

    def _creating(self, before: Callable[..., Any] | None) -> Callable[..., Any]:
        """Return the `create_task` to put in place."""
        slowly = self._creating_in_python(before)
        if native is None or self._created is not None:
            return slowly
        get_factory = None if hasattr(self._loop, "_task_factory") else self._loop.get_task_factory
        kind = type(self._loop)
        creating: Callable[..., Any] = native.CreateTask(self, self._ledger, kind, before, get_factory, slowly)
        return creating

    def _creating_in_python(self, before: Callable[..., Any] | None) -> Callable[..., Any]:
        """Return the `create_task` of the meter in Python. A closure: every task pays for it."""
        kind, ledger, created = type(self._loop), self._ledger, self._created
        shows = hasattr(self._loop, "_task_factory")  # on asyncio's loops; others are asked by `get_task_factory`
        binding, untagged, account_of = ledger.binding, ledger.untagged, ledger.account_of
        bound_here = ledger.get

        def create_task(loop: Any, coro: Any, **kwargs: Any) -> Any:
            given = coro
            try:
                if not shows or self.known_factory is not loop._task_factory:
                    self.see_factory()
                if self.direct:
                    if type(coro) is CoroutineType:  # what `_driven` does, without its call
                        context: Context | None = kwargs.get("context")
                        session = bound_here(None) if context is None else context.get(binding)
                        coro = Metered(coro, ledger, untagged if session is None else account_of(session))
                    else:
                        coro = self._driven(coro, kwargs)
            except Exception as error:
                if ledger.failed(error):
                    raise
            try:
                if before is not None:
                    task = before(coro, **kwargs)
                elif not kwargs:
                    task = kind.create_task(loop, coro)
                elif len(kwargs) == 1 and "name" in kwargs:  # as asyncio.create_task calls it; a dict costs more
                    task = kind.create_task(loop, coro, name=kwargs["name"])
                else:
                    task = kind.create_task(loop, coro, **kwargs)
            except BaseException as error:
                error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # this frame is not theirs
                raise
            try:
                if coro is not given and (type(task) is not Task or task.done() or task.get_coro() is not coro):
                    self.meter_outermost(task, coro)
                if created is not None or getattr(task, "_source_traceback", None):
                    self._made(task, kwargs)
            except Exception as error:
                if ledger.failed(error):
                    raise
            return task

        return create_task

    def _noting_tasks(self, note: Note, before: Callable[..., Any] | None) -> Callable[..., Any]:
        """Return the `create_task` that notes creations."""
        kind = type(self._loop)

        def create_task(loop: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                task = before(*args, **kwargs) if before is not None else kind.create_task(loop, *args, **kwargs)
            except BaseException as error:
                error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # this frame is not theirs
                raise
            note(task, sys._getframe(1))
            return task

        return create_task

    def _made(self, task: Any, kwargs: dict[str, Any]) -> None:
        """Report a new task, and take our frames out of its traceback."""
        if self._created is not None:
            self._created(task, kwargs.get("context"))
        if getattr(task, "_source_traceback", None):  # of debug mode: where the task was created, without our frames
            task._source_traceback[:] = [frame for frame in task._source_traceback if frame.filename != __file__]

    # --- metering --------------------------------------------------------------------------------

    def meter_outermost(self, task: Any, coro: Any) -> None:
        """Meter what a task drives around `coro`, which is metered, in place of `coro`.

        Change nothing if it drives nothing else, if it has begun, as eager tasks have, or if it is no task of
        asyncio's.
        """
        if not is_task(task) or is_done(task) or coro.stepped_at is not None:
            return
        driven = coro_of(task)
        if _inside(driven) is not _inside(coro) and replace_coro(task, driven, metered(driven, self._ledger, coro.tag)):
            coro.unmeter()

    def _driven(self, coro: Any, kwargs: dict[str, Any]) -> Any:
        """Return the metered coroutine for a task to drive.

        `coro` itself if asyncio will refuse `coro`.
        """
        if not (self._meter and self._attached) or not coroutines.iscoroutine(coro):
            return coro
        if type(coro) is not CoroutineType:
            note_begin(coro)
        ledger = self._ledger
        context: Context | None = kwargs.get("context")
        session = ledger.get(None) if context is None else context.get(ledger.binding)
        return metered(coro, ledger, ledger.untagged if session is None else ledger.account_of(session))

    def _metering(self, factory: Any) -> Any:
        """Return an eager factory that makes the same tasks as `factory`, metered."""
        constructor = factory.__closure__[0].cell_contents

        def metering_constructor(coro: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                coro = self._driven(coro, kwargs)
            except Exception as error:
                if self._ledger.failed(error):
                    raise
            try:
                task = constructor(coro, *args, **kwargs)
            except BaseException as error:
                error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # this frame is not theirs
                raise
            try:
                if is_metered(coro):
                    self.meter_outermost(task, coro)
                if getattr(task, "_source_traceback", None):
                    self._made(task, kwargs)
            except Exception as error:
                if self._ledger.failed(error):
                    raise
            return task

        eager: Any = asyncio.create_eager_task_factory(metering_constructor)  # type: ignore[attr-defined]
        eager.creation = self
        return eager


def _inside(coro: Any) -> Any:
    """Return what is inside of a metered coroutine, and of those inside of it that are metered too."""
    while is_metered(coro):
        coro = coro.coro
    return coro


def _is_eager(factory: Any) -> bool:
    return _EAGER is not None and getattr(factory, "__code__", None) is _EAGER and bool(factory.__closure__)
