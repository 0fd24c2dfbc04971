"""A session of short steps that contain nothing but their work, which they measure themselves.

A sleep would not do: it runs code of its own in each step, outside of the work. Here another task, of no session,
resumes the worker, and prepares what the worker waits for next. A step is thus a reading of the clock, the work, and a
second reading; outside of the two readings remain the addition of their difference and the wait for the next turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from types import coroutine
from typing import Any

from . import _loops
from ._work import Held, Work, now


class Turns:
    """The turns of a worker, which runs one step in each."""

    def __init__(self) -> None:
        self._trio_task: Any = None
        self._waits = False
        """Whether the task on Trio waits for its turn: it must not be rescheduled twice."""
        self._future: asyncio.Future[None] | None = None

    async def work(self, held: Held, work: Work) -> None:
        """Do `work` in each turn, and add its time to `held`, until cancelled."""
        if _loops.on_trio():
            await self._work_on_trio(held, work)
            return
        loop = asyncio.get_running_loop()
        self._future = loop.create_future()
        while True:
            await self._future
            began = now()
            work()
            held.seconds += now() - began
            held.steps += 1

    async def give(self, period_s: float) -> None:
        """Give the worker a turn once a period, until cancelled."""
        while True:
            await _loops.sleep(period_s)
            if self._trio_task is not None and self._waits:
                self._waits = False
                self._reschedule()
            elif (due := self._future) is not None and not due.done():
                self._future = asyncio.get_running_loop().create_future()
                due.set_result(None)

    async def _work_on_trio(self, held: Held, work: Work) -> None:
        import trio

        waiting = trio.lowlevel.wait_task_rescheduled(self._abort)
        message = waiting.send(None)  # made once: its making takes as long as all else that is not the work
        self._trio_task = trio.lowlevel.current_task()
        while True:
            self._waits = True
            outcome = await _given(message)
            if self._trio_task is None:
                waiting.close()
                outcome.unwrap()  # raises that the task is cancelled
            began = now()
            work()
            held.seconds += now() - began
            held.steps += 1

    def _reschedule(self) -> None:
        import trio

        trio.lowlevel.reschedule(self._trio_task)

    def _abort(self, _: Any) -> Any:
        import trio

        self._trio_task = None
        return trio.lowlevel.Abort.SUCCEEDED


@coroutine
def _given(message: Any) -> Generator[Any, Any, Any]:
    return (yield message)
