"""An asyncio event loop on a virtual clock: waiting takes no time, and the order is always the same.

The loop asks its selector to wait until the next timer is due. This one's selector looks once
whether real I/O is ready and else moves the clock on, so hours pass in milliseconds. Code that
would hold a real loop is written as `loop.block(seconds)`. While a thread of `to_thread` works,
the clock stands still: its work is real.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

from ._clock import FakeClock

_REAL_WAIT_S = 5.0


class FakeLoop(asyncio.SelectorEventLoop):
    """`asyncio.Runner(loop_factory=FakeLoop)`; `loop.clock` is its FakeClock.

    Where nothing is scheduled, real I/O or a thread of one's own may still wake it: it waits for
    that for five real seconds and then raises RuntimeError.
    """

    def __init__(self) -> None:
        self.clock = FakeClock()
        self._threads_at_work = 0
        super().__init__(_VirtualSelector(self.clock, lambda: self._threads_at_work > 0))

    def time(self) -> float:
        return self.clock()

    def block(self, seconds: float) -> None:
        """Holds the loop for `seconds` of virtual time, as a blocking call would."""
        self.clock.advance(seconds)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        self._threads_at_work += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: object) -> None:
        self._threads_at_work -= 1

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        self._threads_at_work += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._threads_at_work -= 1


class _VirtualSelector(selectors.DefaultSelector):
    def __init__(self, clock: FakeClock, threads_at_work: Callable[[], bool]) -> None:
        super().__init__()
        self._clock = clock
        self._threads_at_work = threads_at_work

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or (timeout > 0 and self._threads_at_work()):
            ready = super().select(_REAL_WAIT_S)
            if not ready:
                raise RuntimeError(
                    f"nothing is scheduled, and nothing happened for {_REAL_WAIT_S:g} s: tasks wait for each other"
                )
            return ready
        ready = super().select(0)
        if not ready:
            self._clock.advance(max(0.0, timeout))
        return ready
