"""Scripted sessions whose use of the event loop is known, and what an introspector makes of it.

A script is data: sessions, and the steps of each. Whoever runs it holds the loop for each step's
`busy_s` and writes down for whom, by the loop's own clock: on a FakeLoop that is exact to the digit,
on a real one it is what was measured around each hold; what resuming a task costs, some 0.05 ms a step, is then in
what is told and not in the truth. The snapshot that is compared with it is taken
while all sessions still live.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from openrtc_introspect_core import Introspector, Snapshot, current_session

from ._attribution import Report, Row
from ._loop import FakeLoop


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of a task: it holds the loop, starts others, and waits."""

    busy_s: float
    wait_s: float = 0.0
    children: tuple[Step, ...] = ()
    """Done by a task each, which is awaited in the end; they run while this one waits."""
    nested: tuple[Step, ...] = ()
    """The same, but begun inside of this step where the loop's task factory is an eager one (Python 3.12)."""


@dataclass(frozen=True, slots=True)
class Script:
    """One session."""

    session_id: str
    steps: tuple[Step, ...]
    late: int = 0
    """How many of its steps come before the session's scope is entered: those are no session's. The last of them only
    holds the loop, and the scope is entered in the middle of that step, as where an entrypoint learns its job's id."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Sessions that run at the same time."""

    scripts: tuple[Script, ...]
    seed: int | None = None
    """What `random` made it from. None: it was written by hand."""

    @classmethod
    def random(cls, seed: int | None = None, *, sessions: int = 10, steps: int = 20) -> Workload:
        """Many little sessions and some large ones, with children, nested tasks and scopes entered late.

        seed: the same makes the same. None: a new one, which is told wherever something goes wrong.
        """
        if sessions < 1 or steps < 1:
            raise ValueError(f"sessions and steps must be 1 or more, got {sessions!r} and {steps!r}")
        seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
        chooser = random.Random(seed)
        return cls(tuple(_script(chooser, f"session-{number:03}", steps) for number in range(sessions)), seed)

    def run(self, *, real: bool = False, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> Report:
        """Runs it under an Introspector of its own, and returns what that told against what was true.

        real: on the wall clock instead of a FakeLoop. loop_factory: makes the real loop; asyncio's by default.
        An exception on the way carries the seed in a note.
        """
        if loop_factory is not None and not real:
            raise ValueError("loop_factory makes a real loop: pass real=True with it")
        factory = FakeLoop if not real else loop_factory or asyncio.SelectorEventLoop
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(self._run())

    async def _run(self) -> Report:
        loop: Any = asyncio.get_running_loop()
        if sys.version_info >= (3, 12) and isinstance(loop, asyncio.BaseEventLoop):  # uvloop takes no such factory
            loop.set_task_factory(asyncio.eager_task_factory)  # before the introspector, which calls it
        virtual = isinstance(loop, FakeLoop)
        clock: Callable[[], float] = loop.clock if virtual else time.perf_counter
        async with Introspector(socket_path=False, stacks=not virtual, clock=clock) as introspector:
            return await self.attend(introspector)

    async def attend(self, introspector: Introspector) -> Report:
        """Runs it on the running loop, under that introspector, which is attached to it and shares its clock."""
        others = {row.session_id for row in introspector.snapshot().sessions}
        try:
            truth, snapshot = await _Run(self, introspector).result()
        except BaseException as error:
            if self.seed is not None:
                error.add_note(
                    f"the workload's seed is {self.seed}: Workload.random({self.seed}, ...) is the same again"
                )
            raise
        told = {row.session_id: row for row in snapshot.sessions}
        rows = []
        for script in self.scripts:
            row = told.pop(script.session_id, None)
            rows.append(
                Row(script.session_id, truth.get(script.session_id, 0.0), row.cpu_s if row is not None else None)
            )
        return Report(rows, unexpected=[name for name in told if name not in others], seed=self.seed)


class _Run:
    def __init__(self, workload: Workload, introspector: Introspector) -> None:
        loop: Any = asyncio.get_running_loop()
        virtual = isinstance(loop, FakeLoop)
        self._workload = workload
        self._introspector = introspector
        self._clock: Callable[[], float] = loop.clock if virtual else time.perf_counter
        self._block: Callable[[float], None] = loop.block if virtual else _spin
        self._truth: dict[str, float] = {}
        self._at_work = len(workload.scripts)
        self._all_done = asyncio.Event()
        self._over = asyncio.Event()

    async def result(self) -> tuple[dict[str, float], Snapshot]:
        async with asyncio.TaskGroup() as group:
            for script in self._workload.scripts:
                group.create_task(self._session(script))
            await self._all_done.wait()
            snapshot = self._introspector.snapshot()
            self._over.set()
        return self._truth, snapshot

    async def _session(self, script: Script) -> None:
        for step in script.steps[: max(0, script.late - 1)]:
            await self._take(step)
        if script.late:
            self._hold(script.steps[script.late - 1].busy_s)
        with self._introspector.session(script.session_id, agent_name="workload"):
            for step in script.steps[script.late :]:
                await self._take(step)
            self._at_work -= 1
            if not self._at_work:
                self._all_done.set()
            await self._over.wait()

    async def _take(self, step: Step) -> None:
        self._hold(step.busy_s / 2)
        tasks = [asyncio.create_task(self._later(child)) for child in step.children]
        tasks += [asyncio.create_task(self._take(nested)) for nested in step.nested]
        self._hold(step.busy_s / 2)
        await asyncio.sleep(step.wait_s)
        for task in tasks:
            await task

    async def _later(self, step: Step) -> None:
        await asyncio.sleep(0)  # an eager task would else begin inside of its creator's step
        await self._take(step)

    def _hold(self, seconds: float) -> None:
        session = current_session()
        began = self._clock()
        self._block(seconds)
        if session is not None:
            self._truth[session.session_id] = self._truth.get(session.session_id, 0.0) + self._clock() - began


def _spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def _script(chooser: random.Random, name: str, count: int) -> Script:
    size = 10 ** chooser.uniform(-3.0, -1.7)  # from 1 ms to 20 ms a step: most sessions are small, some large
    steps = tuple(_step(chooser, size, depth=2) for _ in range(count))
    late = chooser.randrange(count) if chooser.random() < 0.3 else 0
    return Script(name, steps, late)


def _step(chooser: random.Random, size: float, depth: int) -> Step:
    def some() -> tuple[Step, ...]:
        often = depth and chooser.random() < 0.3
        return tuple(_step(chooser, size / 2, depth - 1) for _ in range(chooser.randint(1, 3))) if often else ()

    # Of binary fractions, so that sums on a virtual clock are exact.
    busy, wait = (
        round(4096 * seconds) / 4096 for seconds in (size * chooser.uniform(0.5, 1.5), chooser.uniform(0, 0.1))
    )
    return Step(max(busy, 1 / 2048), wait, some(), some())
