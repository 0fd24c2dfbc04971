"""Asyncio loops, each in a thread of its own, under one introspector, and a thread that takes snapshots meanwhile."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from ._work import Held, now, observed

LOOPS = 4
LIMIT_S = 60.0
SETTLE_S = 0.2
Main = Callable[[Any, int, "Stages"], Awaitable[None]]
"""What one loop runs: with the introspector, the loop's number, and the stages."""


class Stages:
    """The points at which all loops and the caller wait for each other."""

    def __init__(self, loops: int) -> None:
        self._barrier = threading.Barrier(loops + 1)

    def wait(self) -> None:
        self._barrier.wait(LIMIT_S)

    async def reached(self) -> None:
        """Wait without holding the loop."""
        await asyncio.get_running_loop().run_in_executor(None, self.wait)


class LoopThreads:
    """Loops in as many threads, attached to one introspector."""

    def __init__(self, introspector: Any, main: Main, count: int) -> None:
        self._introspector = introspector
        self._main = main
        self.stages = Stages(count)
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"loop-{number}") for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._attached(number))

    async def _attached(self, number: int) -> None:
        self._introspector.attach()
        await self._main(self._introspector, number, self.stages)

    def numbers(self) -> dict[str, int]:
        """Return the loops' numbers, by the names that the introspector has for them."""
        return {info.name: int(info.thread[5:]) for info in self._introspector.snapshot().worker.loops}

    def join(self) -> None:
        for thread in self._threads:
            thread.join(LIMIT_S)


class Reader:
    """A thread that takes snapshots one after the other, and compares each with the one before."""

    def __init__(self, introspector: Any) -> None:
        self._introspector = introspector
        self._done = threading.Event()
        self.snapshots = 0
        self.beyond = 0
        """Shares of less than nothing, or of more than all loops."""
        self.falls_ms: list[float] = []
        """By how much a total of loop time was lower than in the snapshot before."""
        self.lost_steps = 0
        """The same of totals of steps: how often."""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        before: dict[str, tuple[float, int]] = {}
        while not self._done.wait(0.002):
            snapshot = self._introspector.snapshot()
            rows = {row.session_id: (row.cpu_s, row.steps) for row in snapshot.sessions}
            loops = len(snapshot.worker.loops)
            self.beyond += sum(not 0.0 <= row.cpu_pct <= 100.0 * loops for row in snapshot.sessions)
            for name in rows.keys() & before.keys():
                if rows[name][0] < before[name][0] - 1e-9:
                    self.falls_ms.append(1000.0 * (before[name][0] - rows[name][0]))
                self.lost_steps += rows[name][1] < before[name][1]
            before = rows
            self.snapshots += 1

    def stop(self) -> None:
        self._done.set()
        self._thread.join(LIMIT_S)


class Worker:
    """A session's task that begins and ends on demand, so that each of its steps is between two snapshots."""

    def __init__(self, context: contextvars.Context, work: Callable[[], Any]) -> None:
        self.held = Held()
        self._work = work
        self._begin, self._end = asyncio.Event(), asyncio.Event()
        self.ended = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run(), context=context)

    async def _run(self) -> None:
        await self._begin.wait()
        await observed(self._work(), self.held)
        self.ended.set()
        await self._end.wait()

    def begin(self) -> None:
        self._begin.set()

    async def close(self) -> None:
        self._end.set()
        await self._task


def totals(introspector: Any) -> dict[str, tuple[float, int]]:
    """Return the seconds and steps of each session so far."""
    return {row.session_id: (row.cpu_s, row.steps) for row in introspector.snapshot().sessions}


async def work_until(end: float, work: Callable[[], None], period_s: float) -> None:
    """Do `work` once per period."""
    while (began := now()) < end:
        work()
        await asyncio.sleep(max(0.0, period_s - (now() - began)))
