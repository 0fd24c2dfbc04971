"""Every task that a loop creates drives a metered coroutine.

`create_task` on the loop's instance is ours while attached, so the loop's task factory stays what it is:
whoever asks for it finds what was set, None where nothing was, and whoever sets one later sets it.

One kind of factory is looked through: anyio recognises `asyncio.eager_task_factory` by its code, takes the
constructor out of its closure, and makes tasks with that alone. So where an eager factory is set, before or while
attached, the loop has one of the same code whose constructor meters; it is given back as it was.

A task made by calling `asyncio.Task` itself, as aiohttp does on Python 3.12 and later, is not seen.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import coroutines
from collections.abc import Callable
from contextlib import suppress
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
        self._replaced: list[Replaced] = []
        self._theirs: TaskFactory | None = None
        self._eager: TaskFactory | None = None
        """What stands in for `_theirs`, an eager factory; None: the factory that is set is no eager one."""
        self._direct = False
        """Whether `create_task` meters: an eager factory's constructor does so itself."""

    def attach(self) -> None:
        """Raises AttributeError where the loop's methods cannot be replaced."""
        self._attached = True
        with suppress(NotImplementedError):  # a loop need not have any
            self._set(self._loop.get_task_factory(), self._set_in_class, anew=False)
        self._direct = self._meter and self._eager is None
        for name, make in (("create_task", self._creating), ("set_task_factory", self._setting)):
            self._replaced.append(Replaced(self._loop, name, make))

    def detach(self) -> None:
        """Give back what was touched. What someone has put there since stays, and ours below it does nothing more."""
        self._attached = self._direct = False
        for each in self._replaced:
            each.put_back()
        self._replaced.clear()
        if self._eager is not None and not self._loop.is_closed() and self._loop.get_task_factory() is self._eager:
            theirs: Any = self._theirs
            while (creation := getattr(theirs, "creation", None)) is not None and not creation._attached:
                theirs = creation._theirs  # another introspector's, which came first and went first
            self._set_in_class(theirs)

    def replaced(self) -> bool:
        """Whether another `create_task` was put in place of ours since. It may still call ours. From any thread."""
        return not all(each.is_reached() for each in tuple(self._replaced) if each.name == "create_task")

    # --- the loop's methods ----------------------------------------------------------------------

    def _creating(self, before: Callable[..., Any] | None) -> Callable[..., Any]:
        """The `create_task` to put in place. A closure: every task pays for it."""
        kind, ledger, created = type(self._loop), self._ledger, self._created
        binding, untagged, account_of = ledger.binding, ledger.untagged, ledger.account_of
        bound_here = ledger.get

        def create_task(loop: Any, coro: Any, **kwargs: Any) -> Any:
            try:
                if self._direct:
                    if type(coro) is CoroutineType:  # what `_driven` does, without its call
                        context: Context | None = kwargs.get("context")
                        session = bound_here(None) if context is None else context.get(binding)
                        coro = Metered(coro, ledger, untagged if session is None else account_of(session))
                    else:
                        coro = self._driven(coro, kwargs)
            except Exception as error:
                ledger.failed(error)
            try:
                task = kind.create_task(loop, coro, **kwargs) if before is None else before(coro, **kwargs)
            except BaseException as error:
                error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # this frame is not theirs
                raise
            try:
                if created is not None:
                    created(task, kwargs.get("context"))
                if getattr(task, "_source_traceback", None):
                    _hide_our_frames(task)
            except Exception as error:
                ledger.failed(error)
            return task

        return create_task

    def _setting(self, before: Callable[..., Any] | None) -> Callable[..., Any]:
        kind = type(self._loop)

        def set_task_factory(loop: Any, /, *args: Any, **kwargs: Any) -> None:
            def their_way(*given: Any) -> Any:
                return kind.set_task_factory(loop, *given, **kwargs) if before is None else before(*given, **kwargs)

            if self._attached and len(args) == 1 and not kwargs:
                self._set(args[0], their_way, anew=True)
            else:
                their_way(*args)

        return set_task_factory

    def _set_in_class(self, factory: TaskFactory | None) -> None:
        """Past what stands on the instance, which may be another introspector's."""
        type(self._loop).set_task_factory(self._loop, factory)

    def _set(self, factory: TaskFactory | None, their_way: Callable[[Any], None], *, anew: bool) -> None:
        """Set the factory, or where it is an eager one, one like it that meters. anew: it is not set already."""
        eager = None
        if self._meter:
            try:
                eager = self._metering(factory) if _is_eager(factory) else None
            except Exception as error:
                self._ledger.failed(error)
        if eager is not None or anew:
            their_way(eager or factory)
        self._theirs, self._eager = (factory, eager) if eager is not None else (None, None)
        self._direct = self._meter and eager is None

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
                self._ledger.failed(error)
            try:
                task = constructor(coro, *args, **kwargs)
            except BaseException as error:
                error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # this frame is not theirs
                raise
            if getattr(task, "_source_traceback", None):
                _hide_our_frames(task)
            return task

        eager: Any = asyncio.create_eager_task_factory(metering_constructor)  # type: ignore[attr-defined]
        eager.creation = self
        return eager


def _is_eager(factory: Any) -> bool:
    return _EAGER is not None and getattr(factory, "__code__", None) is _EAGER and bool(factory.__closure__)


def _hide_our_frames(task: Any) -> None:
    """In debug mode a task remembers where it was created: not in here."""
    task._source_traceback[:] = [frame for frame in task._source_traceback if frame.filename != __file__]
