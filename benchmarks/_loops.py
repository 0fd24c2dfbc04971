"""The event loops that are measured, and what cases that run on all of them need of one.

On asyncio and uvloop these are asyncio's own calls and cost nothing but a function more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

LOOPS = ("asyncio", "uvloop")
WITH_TRIO = (*LOOPS, "trio")
Returned = TypeVar("Returned")
Item = TypeVar("Item")

_nursery: Any = None
"""That of the Trio run; None on asyncio's loops."""


def run(loop: str, main: Coroutine[Any, Any, Returned]) -> Returned:
    """asyncio.run, or trio.run, on the loop of this name."""
    if loop == "trio":
        return _run_trio(main)
    factory: Any = asyncio.SelectorEventLoop
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


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
    """The modules without which this combination cannot be measured."""
    return ((loop,) if loop in ("uvloop", "trio") else ()) + (("openrtc",) if subject == "peer" else ())


def exists(loop: str, subject: str) -> bool:
    """Whether this subject runs on this loop at all."""
    return loop != "trio" or subject != "peer"


def on_trio() -> bool:
    return _nursery is not None


async def sleep(seconds: float) -> None:
    if _nursery is None:
        await asyncio.sleep(seconds)
    else:
        import trio

        await trio.sleep(seconds)


def event() -> Any:
    """With `set()` and `await wait()`."""
    if _nursery is None:
        return asyncio.Event()
    import trio

    return trio.Event()


class Job:
    """A task, of which only its end and its cancellation are asked."""

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
        """Until it has ended. Raises what it did, unless that was its cancellation."""
        if self._task is None:
            await self._ended.wait()
            return
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()


def spawn(coro: Coroutine[Any, Any, None], name: str | None = None) -> Job:
    """Runs `coro` in a task of its own, in a copy of the context that this is called in."""
    return Job(coro, name)


def call_soon(callback: Callable[[], None], later_s: float = 0.0) -> None:
    """Outside of every task, where the loop has such a place; on Trio in its own."""
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
