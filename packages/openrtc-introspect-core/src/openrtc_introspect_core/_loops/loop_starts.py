"""Every event loop of the process, seen before it runs: for who attaches to loops that others make.

Two classes have all the ways in which an asyncio loop comes to run: `asyncio.Runner` (behind asyncio.run, uvloop.run,
anyio and pytest-asyncio) and the loops' own base class. Replacements of their methods call `starts` first, so that even
the loop's first task is seen. No event loop policy is touched. uvloop and Trio are seen as soon as someone imports
them. At the end all methods are the original ones again.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

from .._base.import_hook import WhenImported
from .._base.own_loop import OwnLoop
from .._base.replaced_method import Replaced
from .running_loop import Loop

_RUNS = ("run_until_complete", "run_forever")


class LoopStarts:
    """A context manager: each loop that begins to run inside of it is reported, on the thread that runs it.

    starts: called before a loop runs. Returns whether it has changed the loop's methods. It raises nothing. A loop that
        runs inside of another one's step is not reported, and none of introspection's own.
    closes: called before a loop is closed. None: nobody wants to know.
    guarded: makes a context manager that keeps an error from the host. Its argument says what could not be seen.
    """

    def __init__(
        self,
        starts: Callable[[Loop], bool],
        closes: Callable[[asyncio.AbstractEventLoop], None] | None,
        guarded: Callable[[str], contextlib.AbstractContextManager[None]],
    ) -> None:
        self._starts = starts
        self._closes = closes
        self._guarded = guarded
        self._replaced: list[Replaced] = []
        self._when_imported = (WhenImported("uvloop", self._see_uvloop), WhenImported("trio", self._see_trio))

    def __enter__(self) -> LoopStarts:
        with contextlib.ExitStack() as undo:
            undo.push(self.__exit__)
            self._replace(asyncio.Runner, "get_loop", self._after)
            self._replace(asyncio.Runner, "run", self._before)
            for name in _RUNS:
                self._replace(asyncio.BaseEventLoop, name, self._before)
            # asyncio's base closes only the last part of a loop.
            self._see_closing(asyncio.SelectorEventLoop)
            for each in self._when_imported:
                each.__enter__()
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.ExitStack() as parts:  # each part ends, whatever the others raise
            while self._replaced:
                parts.callback(self._replaced.pop(0).put_back)
            for each in self._when_imported:
                parts.callback(each.__exit__)

    # --- other loops than asyncio's own ------------------------------------------------------------

    def _see_uvloop(self) -> None:
        with self._guarded("uvloop"):
            kind = sys.modules["uvloop"].Loop
            for name in _RUNS:
                self._replace(kind, name, self._before)
            self._see_closing(kind)

    def _see_trio(self) -> None:
        with self._guarded("Trio"):  # another version of Trio may have these functions elsewhere
            from .trio_runs import see_runs

            self._replaced += see_runs(self._starts)

    def _report(self, loop: Any) -> bool:
        """Report a loop, unless it is introspection's own, or cannot begin to run."""
        return not (isinstance(loop, OwnLoop) or loop.is_closed() or loop.is_running()) and self._starts(loop)

    # --- replacements ------------------------------------------------------------------------------

    def _replace(self, owner: Any, name: str, make: Callable[[str, Any], Callable[..., Any]]) -> None:
        self._replaced.append(Replaced(owner, name, lambda below: make(name, below)))

    def _see_closing(self, kind: Any) -> None:
        if self._closes is not None:
            self._replace(kind, "close", self._closing)

    def _before(self, name: str, below: Any) -> Callable[..., Any]:
        """Return the method that reports the loop before it calls `below`."""

        def started(this: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            changed = False
            if asyncio._get_running_loop() is None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: the call itself says so
                    changed = self._report(this.get_loop() if isinstance(this, asyncio.Runner) else this)
            try:
                if changed and name in vars(this):  # the introspector times this method on the loop itself
                    return getattr(this, name)(*args, **kwargs)
                return below(this, *args, **kwargs)
            except BaseException as error:
                error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # this frame is not theirs
                raise

        return started

    def _after(self, name: str, below: Any) -> Callable[..., Any]:
        """Return the method that reports the loop that `below` returns."""

        def made(this: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            try:
                loop = below(this, *args, **kwargs)
            except BaseException as error:
                error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # this frame is not theirs
                raise
            self._report(loop)
            return loop

        return made

    def _closing(self, name: str, below: Any) -> Callable[..., Any]:
        """Return the method that reports the loop, unless it runs, before it calls `below`."""
        closes = self._closes
        assert closes is not None

        def closing(loop: Any) -> None:
            if not loop.is_running():
                with self._guarded("a loop that is closed"):
                    closes(loop)
            try:
                below(loop)
            except BaseException as error:
                error.__traceback__ = error.__traceback__.tb_next  # type: ignore[union-attr]  # this frame is not theirs
                raise

        return closing
