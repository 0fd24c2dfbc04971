"""One test on several event loops: asyncio's, uvloop's and Trio's.

A test runs in real time, and on asyncio's and Trio's loops in virtual time as well.

A test that is written with anyio runs on each of them unchanged. uvloop and Trio are loaded only when a test asks for
them, so a suite without them can use the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import anyio

from .fake_clock import FakeClock
from .fake_loop import FakeLoop

REAL = ("asyncio", "uvloop", "trio")
VIRTUAL = ("virtual asyncio", "virtual trio")

Returned = TypeVar("Returned")


class Backend:
    """A kind of loop: `backend(main())` runs the coroutine on a new loop."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_trio = name.endswith("trio")
        self.is_virtual = name in VIRTUAL

    def __repr__(self) -> str:
        return self.name

    def __call__(self, coro: Coroutine[Any, Any, Returned]) -> Returned:
        if not self.is_trio:
            with asyncio.Runner(loop_factory=self._factory()) as runner:
                return runner.run(coro)
        import trio
        from trio.testing import MockClock

        async def main() -> Returned:
            return await coro

        return trio.run(main, clock=MockClock(autojump_threshold=0.0) if self.is_virtual else None)

    def _factory(self) -> Callable[[], asyncio.AbstractEventLoop]:
        if self.is_virtual:
            return FakeLoop
        if self.name == "uvloop":
            import uvloop

            return uvloop.new_event_loop
        return asyncio.SelectorEventLoop

    @property
    def clock(self) -> Callable[[], float]:
        """The clock of the running loop, as `Introspector(clock=…)` takes it.

        It is virtual if the loop is.
        """
        if not self.is_virtual:
            return time.perf_counter
        if not self.is_trio:
            loop: Any = asyncio.get_running_loop()
            clock: FakeClock = loop.clock
            return clock
        import trio

        return trio.lowlevel.current_clock().current_time

    def block(self, seconds: float) -> None:
        """Hold the running loop for `seconds`, as a blocking call would."""
        if not self.is_virtual:
            time.sleep(seconds)
        elif not self.is_trio:
            loop: Any = asyncio.get_running_loop()
            loop.block(seconds)
        else:
            import trio
            from trio.testing import MockClock

            clock = trio.lowlevel.current_clock()
            assert isinstance(clock, MockClock)
            clock.jump(seconds)


async def in_task(function: Callable[..., Awaitable[Returned]], *arguments: Any, name: str | None = None) -> Returned:
    """Run `function` in a task of its own, and return what it returns."""
    results: list[Returned] = []

    async def run() -> None:
        results.append(await function(*arguments))

    async with anyio.create_task_group() as group:
        group.start_soon(run, name=name)
    return results[0]
