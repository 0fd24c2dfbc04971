"""Well-behaved sessions on a 20 ms cadence, among which blocks are caused, each with what it really was."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from openrtc_introspect_testing import blockers

from . import _loops
from ._block_plan import BURST, NOBODYS, SESSIONS, Planned
from ._subjects import Subject
from ._work import now, spin

CADENCE_S = 0.020


@dataclass(frozen=True, slots=True)
class Truth:
    """A block as it was, and where it happened."""

    place: str
    expected: blockers.Expected

    @property
    def start(self) -> float:
        return self.expected.started_at

    @property
    def end(self) -> float:
        return self.expected.ended_at

    @property
    def length(self) -> float:
        return self.expected.duration_s

    def as_json(self) -> dict[str, Any]:
        one = self.expected
        told: dict[str, Any] = {
            "kind": one.kind,
            "place": self.place,
            "session_id": one.session_id,
            "start": self.start,
        }
        told |= {"end": self.end, "causes": one.causes, "locations": [str(place) for place in one.locations]}
        return told | {"waited_s": one.waited_s}


class Scene:
    """The sessions. Their entry tasks take orders."""

    def __init__(self, subject: Subject, seed: int) -> None:
        self._subject = subject
        self._chooser = random.Random(seed + 1)
        self._orders: dict[str, _loops.Orders[Callable[[], None] | None]] = {}
        self._entries: list[_loops.Job] = []

    async def open(self) -> None:
        for number in range(SESSIONS):
            name = f"session-{number:02}"
            self._orders[name] = _loops.Orders()
            self._entries.append(_loops.spawn(self._entry(name), name=name))
        await _loops.sleep(0.5)

    async def close(self) -> None:
        for orders in self._orders.values():
            orders.put_nowait(None)
        for entry in self._entries:
            await entry.wait()

    async def _entry(self, name: str) -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._subject.session(name))
            well_behaved = _loops.spawn(self._keep_cadence())
            while (order := await self._orders[name].get()) is not None:
                order()
            well_behaved.cancel()
            await well_behaved.wait()

    async def _keep_cadence(self) -> None:
        await _loops.sleep(self._chooser.random() * CADENCE_S)
        while True:
            await _loops.sleep(CADENCE_S)
            spin(0.0001)

    # --- blocks ----------------------------------------------------------------------------------

    async def cause(self, block: Planned) -> Truth:
        if block.kind == BURST:
            return await self._cause_burst(block)
        blocker = blockers.all_kinds()[block.kind](block.seconds)
        if isinstance(blocker, blockers.AsyncBlocker):
            return Truth(block.place, (await blocker.block()).expected)
        if block.kind == "gc":  # one long collection instead of many
            gc.disable()
            await _litter(int(block.seconds / self.collect_s))
        done = _loops.event()
        tasks: list[_loops.Job] = []

        def run() -> None:
            blocker.block()
            done.set()

        async def task() -> None:
            run()

        def order() -> None:
            if block.place == "entry task":
                run()
            elif "callback" not in block.place:
                tasks.append(_loops.spawn(task()))
            else:
                _loops.call_soon(run, later_s=0.003 if block.later else 0.0)

        if block.session_id is None:
            order()
        else:
            self._orders[block.session_id].put_nowait(order)
        await done.wait()
        gc.enable()
        return Truth(block.place, self._whose(blocker.expected, block))

    def _whose(self, expected: blockers.Expected, block: Planned) -> blockers.Expected:
        """The session as this scene knows it, whoever binds it."""
        nobodys = block.kind in NOBODYS or expected.causes == ("descheduled",)
        unknown = "callback" in block.place and not _loops.tells_callbacks()
        return replace(expected, session_id=None if nobodys or unknown else block.session_id)

    async def calibrate(self) -> None:
        """How long a collection takes for each thing collected."""
        gc.collect()
        gc.freeze()
        gc.disable()
        await _litter(100_000)
        began = now()
        gc.collect()
        self.collect_s = (now() - began) / 100_000
        gc.enable()

    async def _cause_burst(self, block: Planned) -> Truth:
        """Steps of 8–25 ms each, of several sessions, in one iteration."""
        gone, parts = 0.0, []
        while gone < block.seconds:
            parts.append(min(self._chooser.uniform(0.008, 0.025), block.seconds - gone))
            gone += parts[-1]
        go, ready = _loops.event(), _loops.event()
        steps: list[blockers.Expected] = []
        waiting: list[_loops.Job] = []

        async def take_part(seconds: float) -> None:
            await go.wait()
            steps.append(blockers.spin(seconds).block().expected)

        def join(seconds: float) -> None:
            waiting.append(_loops.spawn(take_part(seconds)))
            if len(waiting) == len(parts):
                ready.set()

        for part in parts:
            name = self._chooser.choice(list(self._orders))
            self._orders[name].put_nowait(partial(join, part))
        await ready.wait()
        await _loops.sleep(0.01)
        go.set()
        for part_taken in waiting:
            await part_taken.wait()
        started_at = steps[0].started_at
        length, waited = steps[-1].ended_at - started_at, sum(step.waited_s for step in steps)
        causes = ("burst",) if waited < 0.4 * length else ("burst", "descheduled")
        return Truth(block.place, blockers.Expected(BURST, started_at, length, causes, None, (), waited))


async def _litter(count: int) -> None:
    """Makes so many things that only a collection frees, a few milliseconds at a time."""
    for _ in range(count // 5000 + 1):
        for _ in range(5000):
            one: list[Any] = []
            one.append(one)
        await _loops.sleep(0)
