"""A scene of well-behaved sessions, in which blocks are caused and measured."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from openrtc_introspect_testing import blockers

from . import _loops
from ._block_plan import BURST, SESSIONS, UNATTRIBUTED, Planned
from ._subjects import Subject
from ._work import spin

CADENCE_S = 0.020


@dataclass(frozen=True, slots=True)
class Truth:
    """A block as it measured itself, and the place where it happened."""

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
        found: dict[str, Any] = {
            "kind": one.kind,
            "place": self.place,
            "session_id": one.session_id,
            "start": self.start,
        }
        found |= {"end": self.end, "causes": one.causes, "locations": [str(place) for place in one.locations]}
        return found | {"waited_s": one.waited_s}


class Scene:
    """The sessions. Each entry task runs what it is sent."""

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
        return Truth(block.place, self._with_session(blocker.expected, block))

    def _with_session(self, expected: blockers.Expected, block: Planned) -> blockers.Expected:
        """Return `expected` with the session that this scene planned.

        The subject that opens the session's scope makes no difference.
        """
        unattributed = block.kind in UNATTRIBUTED or expected.causes == ("descheduled",)
        unknown = "callback" in block.place and block.kind != "explicit-gc" and not _loops.knows_callbacks()
        return replace(expected, session_id=None if unattributed or unknown else block.session_id)

    async def _cause_burst(self, block: Planned) -> Truth:
        """Cause a burst: steps of 8–25 ms of several sessions in one iteration."""
        planned, parts = 0.0, []
        while planned < block.seconds:
            parts.append(min(self._chooser.uniform(0.008, 0.025), block.seconds - planned))
            planned += parts[-1]
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
