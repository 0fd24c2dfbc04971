"""Event loops that are derived from asyncio's own and do not wait in its selector, on virtual time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any

from openrtc_introspect_testing._loops.fake_clock import FakeClock
from openrtc_introspect_testing._loops.fake_loop import FakeLoop


class _Driven:
    """What makes a class derived from asyncio's own run `_iterate` again and again, instead of its own iterations."""

    _runs = False

    def run_forever(self: Any) -> None:
        self._runs = True
        asyncio._set_running_loop(self)
        try:
            while self._runs:
                self._iterate()
        finally:
            asyncio._set_running_loop(None)

    def is_running(self) -> bool:
        return self._runs

    def stop(self) -> None:
        self._runs = False


class ElsewhereLoop(_Driven, asyncio.SelectorEventLoop):
    """A loop with all attributes of asyncio's own, whose callbacks another queue runs: as those of Qt do."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self._elsewhere: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self.clock()

    def block(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def _iterate(self) -> None:
        when, _, handle = heapq.heappop(self._elsewhere)
        self.clock.advance_to(when)
        if not handle.cancelled():
            handle._run()

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._elsewhere, (when, next(self._numbers), handle))
        return handle

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:  # type: ignore[override]
        return self.call_at(self.time(), callback, *args, context=context)


class OneContextLoop(ElsewhereLoop):
    """A loop that runs each callback in one context, unless it is given another: as Qt's own."""

    def __init__(self) -> None:
        self._all = copy_context()
        super().__init__()

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        run = callback if context is None else context.run
        args = args if context is None else (callback, *args)
        handle = super().call_at(when, run, *args)
        handle._context = self._all  # type: ignore[attr-defined]
        return handle


class PumpedLoop(_Driven, FakeLoop):
    """A loop that another one waits for and calls once for each iteration, as GLib's does."""

    def _iterate(self) -> None:
        due = self._next_due()
        if not self._ready and due is not None:  # type: ignore[attr-defined]
            self.clock.advance_to(due)
        self._dispatch()

    def _dispatch(self) -> None:
        self._run_once()  # type: ignore[attr-defined]


class RewrittenLoop(_Driven, FakeLoop):
    """A loop whose `run_forever` is not asyncio's code, and runs iterations that are: as nest_asyncio's."""

    def run_forever(self) -> None:
        self._runs = True
        asyncio._set_running_loop(self)
        try:
            while self._runs:
                self._run_once()  # type: ignore[attr-defined]
        finally:
            asyncio._set_running_loop(None)


class DerivedLoop(FakeLoop):
    """A loop whose iterations are asyncio's with something around them, as a loop that counts them."""

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]


def run_on(kind: Callable[[], Any], main: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    """Run `main`, with the loop, on a new loop of this kind."""
    loop = kind()
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.close()
