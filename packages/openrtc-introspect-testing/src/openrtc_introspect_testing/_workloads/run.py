"""One run of scripted sessions, which records the true loop time of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from openrtc_introspect_core import Introspector, Snapshot, current_session

from .._loops.fake_loop import FakeLoop
from .script import Script, Step


class Run:
    """One run on the running loop.

    It holds the loop for each step's `busy_s`, and adds the time of each hold to the session that is bound then.

    The clock is the loop's own: exact on a FakeLoop, `time.perf_counter` on a real loop.
    """

    def __init__(self, scripts: Sequence[Script], introspector: Introspector) -> None:
        loop: Any = asyncio.get_running_loop()
        virtual = isinstance(loop, FakeLoop)
        self._scripts = scripts
        self._introspector = introspector
        self._clock: Callable[[], float] = loop.clock if virtual else time.perf_counter
        self._block: Callable[[float], None] = loop.block if virtual else _spin
        self._truth: dict[str, float] = {}
        self._at_work = len(scripts)
        self._all_done = asyncio.Event()
        self._over = asyncio.Event()

    async def result(self) -> tuple[dict[str, float], Snapshot]:
        """Run all sessions; return the true seconds of each, and a snapshot.

        The snapshot is taken while all of them are live.
        """
        async with asyncio.TaskGroup() as group:
            for script in self._scripts:
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
        await asyncio.sleep(0)  # an eager task would begin inside of its creator's step without it
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
