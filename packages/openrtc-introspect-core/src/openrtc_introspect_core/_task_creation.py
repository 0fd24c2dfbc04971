"""Every task that a loop creates drives a metered coroutine.

`create_task` on the loop's instance is ours while attached, so the loop's task factory stays what it is:
whoever asks for it finds what was set, None where nothing was, and whoever sets one later sets it.

One kind of factory is looked through: anyio recognises `asyncio.eager_task_factory` by its code, takes the
constructor out of its closure, and makes tasks with that alone. So where an eager factory is set, the loop is given one
of the same code whose constructor meters, and in the end has its own again. One that is set while attached is seen when
the loop makes its next task, enters a scope or waits. `set_task_factory` is not replaced for it: from 30 attributes on,
CPython 3.13 and later find each attribute of an object more slowly, and a loop has 26 of its own.

A task made by calling `asyncio.Task` itself, as aiohttp does on Python 3.12 and later, is not seen.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import coroutines
from collections.abc import Callable
from contextvars import Context
from types import CodeType, CoroutineType
from typing import Any

from ._ledger import Ledger
from ._meter import Metered, metered
from ._replaced import Replaced

TaskFactory = Callable[..., Any]

_EAGER: CodeType | None = None
if sys.version_info >= (3, 12):
    _EAGER = asyncio.eager_task_factory.__code__  # type: ignore[attr-defined]


class TaskCreation:
    """How one loop makes its tasks, while attached. All but `detach` runs on the loop's thread."""

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
        """Called with each new task and the context it was given, where steps are not metered."""
        self._attached = False
        self._replaced: Replaced | None = None
        self._theirs: TaskFactory | None = None
        self._eager: TaskFactory | None = None
        """What stands in for `_theirs`, an eager factory; None: the factory that is set is no eager one."""
        self.known: TaskFactory | None = None
        """The factory that was set when it was last asked for."""
        self._direct = False
        """Whether `create_task` meters: an eager factory's constructor does so itself."""

    def attach(self) -> None:
        """Raises AttributeError where the loop's methods cannot be replaced."""
        self._attached = True
        self._direct = self._meter
        self.look()
        self._replaced = Replaced(self._loop, "create_task", self._creating)

    def detach(self) -> None:
        """Give back what was touched. What someone has put there since stays, and ours below it does nothing more."""
        self._attached = self._direct = False
        if self._replaced is not None:
            self._replaced.put_back()
        if self._eager is not None and not self._loop.is_closed() and self._loop.get_task_factory() is self._eager:
            theirs: Any = self._theirs
            while (creation := getattr(theirs, "creation", None)) is not None and not creation._attached:
                theirs = creation._theirs  # another introspector's, which came first and went first
            self._loop.set_task_factory(theirs)

    def look(self) -> None:
        """See which factory is set now, and put in the place of an eager one what meters."""
        if not self._attached:
            return
        try:
            factory = self._loop.get_task_factory()
        except NotImplementedError:  # a loop need not have any
            factory = None
        if factory is self.known:
            return
        if not self._meters_in(factory):
            self._eager = self._theirs = None
            if self._meter and _is_eager(factory):
                eager = self._metering(factory)
                self._loop.set_task_factory(eager)
                self._theirs, factory, self._eager = factory, eager, eager
        self.known = factory
        self._direct = self._meter and self._eager is None

    def _meters_in(self, factory: Any) -> bool:
        """Whether it is an eager factory of ours, or of an introspector that has found ours."""
        while (creation := getattr(factory, "creation", None)) is not None and creation is not self:
            factory = creation._theirs
        return creation is self

    def replaced(self) -> bool:
        """Whether another `create_task` was put in place of ours since. It may still call ours. From any thread."""
        return self._replaced is not None and not self._replaced.is_reached()

    # --- the loop's methods ----------------------------------------------------------------------

    def _creating(self, before: Callable[..., Any] | None) -> Callable[..., Any]:
        """The `create_task` to put in place. A closure: every task pays for it."""
        kind, ledger, created = type(self._loop), self._ledger, self._created
        shows = hasattr(self._loop, "_task_factory")  # asyncio's own; others are asked
        binding, untagged, account_of = ledger.binding, ledger.untagged, ledger.account_of
        bound_here = ledger.get

        def create_task(loop: Any, coro: Any, **kwargs: Any) -> Any:
            try:
                if not shows or self.known is not loop._task_factory:
                    self.look()
                if self._direct:
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
            if created is not None or getattr(task, "_source_traceback", None):
                try:
                    self._made(task, kwargs)
                except Exception as error:
                    if ledger.failed(error):
                        raise
            return task

        return create_task

    def _made(self, task: Any, kwargs: dict[str, Any]) -> None:
        if self._created is not None:
            self._created(task, kwargs.get("context"))
        if getattr(task, "_source_traceback", None):  # in debug mode it remembers where it was created: not in here
            task._source_traceback[:] = [frame for frame in task._source_traceback if frame.filename != __file__]

    # --- metering --------------------------------------------------------------------------------

    def _driven(self, coro: Any, kwargs: dict[str, Any]) -> Any:
        """What the task is to drive in place of `coro`; `coro` itself where asyncio will refuse it."""
        if not (self._meter and self._attached) or not coroutines.iscoroutine(coro):
            return coro
        ledger = self._ledger
        context: Context | None = kwargs.get("context")
        session = ledger.get(None) if context is None else context.get(ledger.binding)
        return metered(coro, ledger, ledger.untagged if session is None else ledger.account_of(session))

    def _metering(self, factory: Any) -> Any:
        """An eager factory as `factory` is, whose tasks are metered."""
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
            if getattr(task, "_source_traceback", None):
                self._made(task, kwargs)
            return task

        eager: Any = asyncio.create_eager_task_factory(metering_constructor)  # type: ignore[attr-defined]
        eager.creation = self
        return eager


def _is_eager(factory: Any) -> bool:
    return _EAGER is not None and getattr(factory, "__code__", None) is _EAGER and bool(factory.__closure__)
