"""The event loops that are measured, behind one interface.

On asyncio and uvloop the functions call asyncio's own and add one function call.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

LOOPS = ("asyncio", "uvloop")
WITH_TRIO = (*LOOPS, "trio")
OTHERS = ("rloop", "zuvloop", "qasync")
"""Other loops of asyncio's interface, on which only accuracy is measured."""
EVERY = (*WITH_TRIO, *OTHERS)
Returned = TypeVar("Returned")
Item = TypeVar("Item")

_nursery: Any = None
"""The nursery of the Trio run; None on asyncio's loops."""


def run(loop: str, main: Coroutine[Any, Any, Returned]) -> Returned:
    """Run `main` on the loop of this name, as asyncio.run or trio.run does."""
    if loop == "trio":
        return _run_trio(main)
    factory: Any = asyncio.SelectorEventLoop
    if loop == "qasync":
        factory = _qt_loop
    elif loop != "asyncio":
        factory = importlib.import_module(loop).new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def _qt_loop() -> Any:
    """Return a new loop of qasync's, on the one Qt application of this process."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    application = importlib.import_module("PySide6.QtCore").QCoreApplication
    return importlib.import_module("qasync").QEventLoop(application.instance() or application([]))


def _run_trio(main: Coroutine[Any, Any, Returned]) -> Returned:
    import trio

    async def in_nursery() -> Returned:
        global _nursery
        async with trio.open_nursery() as _nursery:
            result = await main
            _nursery.cancel_scope.cancel()
        _nursery = None
        return result

    return trio.run(in_nursery)


def needs(loop: str, subject: str = "") -> tuple[str, ...]:
    """Return the modules that this combination needs."""
    packages = {"asyncio": (), "qasync": ("PySide6", "qasync")}.get(loop, (loop,))
    return (*packages, *(("openrtc",) if subject == "peer" else ()))


def exists(loop: str, subject: str) -> bool:
    """Return whether this subject can run on this loop."""
    return loop in LOOPS or subject != "peer"


def on_trio() -> bool:
    return _nursery is not None


def knows_callbacks() -> bool:
    """Return whether the loop shows whose callback runs.

    Those that are not written in Python do not; Trio has no callbacks and runs their equivalent in tasks of no session.
    """
    return not on_trio() and isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)


async def sleep(seconds: float) -> None:
    if _nursery is None:
        await asyncio.sleep(seconds)
    else:
        import trio

        await trio.sleep(seconds)


def event() -> Any:
    """Return an event with `set()` and `await wait()`."""
    if _nursery is None:
        return asyncio.Event()
    import trio

    return trio.Event()


class Job:
    """A task that can be cancelled and waited for."""

    def __init__(self, coro: Coroutine[Any, Any, None], name: str | None) -> None:
        self._task: asyncio.Task[None] | None = None
        if _nursery is None:
            self._task = asyncio.create_task(coro, name=name)
            return
        import trio

        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        _nursery.start_soon(self._run, coro, name=name)

    async def _run(self, coro: Coroutine[Any, Any, None]) -> None:
        with self._scope:
            await coro
        self._ended.set()

    def cancel(self) -> None:
        (self._task or self._scope).cancel()

    async def wait(self) -> None:
        """Wait for the end. Raise the task's exception, unless it is the cancellation."""
        if self._task is None:
            await self._ended.wait()
            return
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()


def spawn(coro: Coroutine[Any, Any, None], name: str | None = None) -> Job:
    """Run `coro` in a task of its own, in a copy of the caller's context."""
    return Job(coro, name)


def call_soon(callback: Callable[[], None], later_s: float = 0.0) -> None:
    """Schedule a callback outside of every task.

    Trio has no callbacks; there a system task runs it.
    """
    if _nursery is not None:
        import trio

        token = trio.lowlevel.current_trio_token()
        if later_s == 0.0:
            token.run_sync_soon(callback)
        else:
            trio.lowlevel.spawn_system_task(_after, later_s, callback)
    elif later_s == 0.0:
        asyncio.get_running_loop().call_soon(callback)
    else:
        asyncio.get_running_loop().call_later(later_s, callback)


async def _after(seconds: float, callback: Callable[[], None]) -> None:
    await sleep(seconds)
    callback()


class Orders(Generic[Item]):
    """A queue between tasks."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._put = event()

    def put_nowait(self, item: Item) -> None:
        self._items.append(item)
        self._put.set()

    async def get(self) -> Item:
        while not self._items:
            self._put = event()
            await self._put.wait()
        return self._items.popleft()
