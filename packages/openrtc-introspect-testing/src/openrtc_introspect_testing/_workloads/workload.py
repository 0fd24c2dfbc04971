"""Scripted sessions whose loop time is known.

A report compares it with what an introspector reports.

A script is data: a session and its steps. A run holds the loop for each step's `busy_s` and records the true time by
the loop's own clock. On a FakeLoop the truth is exact to the digit. On a real loop the truth is measured around each
hold; resuming a task costs some 0.05 ms a step, which the introspector reports and the truth does not have. The
snapshot that is compared with the truth is taken while all sessions are live.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from openrtc_introspect_core import Introspector

from .._loops.fake_loop import FakeLoop
from .report import Report, Row
from .run import Run
from .script import Script, random_script


@dataclass(frozen=True, slots=True)
class Workload:
    """Sessions that run at the same time."""

    scripts: tuple[Script, ...]
    seed: int | None = None
    """The seed that `random` made it from. None: it was written by hand."""

    @classmethod
    def random(cls, seed: int | None = None, *, sessions: int = 10, steps: int = 20) -> Workload:
        """Make many small sessions and some large ones.

        They have children, nested tasks and scopes that are entered late.

        seed: the same seed makes the same workload. None: a new seed, which every failure shows.
        """
        if sessions < 1 or steps < 1:
            raise ValueError(f"sessions and steps must be 1 or more, got {sessions!r} and {steps!r}")
        seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
        chooser = random.Random(seed)
        return cls(tuple(random_script(chooser, f"session-{number:03}", steps) for number in range(sessions)), seed)

    def run(self, *, real: bool = False, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> Report:
        """Run it under a new Introspector; compare its report with the truth.

        real: on the wall clock instead of a FakeLoop. loop_factory: makes the real loop; by default asyncio's.
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
        async with Introspector(
            socket_path=False, black_box=False, stall_log=None, stacks=not virtual, clock=clock
        ) as introspector:
            return await self.attend(introspector)

    async def attend(self, introspector: Introspector) -> Report:
        """Run it on the running loop, under a given introspector.

        introspector: attached to the loop, and on the loop's clock.
        """
        others = {row.session_id for row in introspector.snapshot().sessions}
        try:
            truth, snapshot = await Run(self.scripts, introspector).result()
        except BaseException as error:
            if self.seed is not None:
                error.add_note(
                    f"the workload's seed is {self.seed}: Workload.random({self.seed}, ...) is the same again"
                )
            raise
        reported = {row.session_id: row for row in snapshot.sessions}
        rows = []
        for script in self.scripts:
            row = reported.pop(script.session_id, None)
            rows.append(
                Row(script.session_id, truth.get(script.session_id, 0.0), row.cpu_s if row is not None else None)
            )
        return Report(rows, unexpected=[name for name in reported if name not in others], seed=self.seed)
