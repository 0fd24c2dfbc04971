"""One test on several event loops: asyncio's, uvloop and Trio, on real time and on virtual time.

What is written with anyio runs on each of them as it stands. uvloop and Trio are loaded where they
are asked for, so a suite that does not have them can use the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import anyio

from ._clock import FakeClock
from ._loop import FakeLoop

REAL = ("asyncio", "uvloop", "trio")
VIRTUAL = ("virtual asyncio", "virtual trio")

Returned = TypeVar("Returned")


class Backend:
    """Runs coroutines on a loop of one of these kinds: `backend(main())`. A new loop each time."""

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
        """What `Introspector(clock=…)` takes on the loop that runs: virtual where it is."""
        if not self.is_virtual:
            return time.perf_counter
        if not self.is_trio:
            loop: Any = asyncio.get_running_loop()
            clock: FakeClock = loop.clock
            return clock
        import trio

        return trio.lowlevel.current_clock().current_time

    def block(self, seconds: float) -> None:
        """Holds the loop that runs for so long, as a blocking call would."""
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
    """What `function` returns, run in a task of its own."""
    results: list[Returned] = []

    async def run() -> None:
        results.append(await function(*arguments))

    async with anyio.create_task_group() as group:
        group.start_soon(run, name=name)
    return results[0]
