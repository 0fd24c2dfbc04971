"""Well-behaved sessions on a 20 ms cadence, among which blocks are caused, each with what it really was."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from . import _blockers as b
from . import _loops
from ._block_plan import BURST, GIL_WAITING, KINDS, SESSIONS, Planned
from ._helpers import GilHog, HeavyModules
from ._subjects import Subject
from ._work import now, spin

CADENCE_S = 0.020
MOST = 0.5


@dataclass(slots=True)
class Truth:
    """A block as it was, measured around it. Unix time."""

    kind: str
    place: str
    session_id: str | None
    start: float
    end: float
    causes: list[str]
    lines: tuple[int, ...]
    waited_s: float
    """Seconds that the system did not let the loop's thread run, in it and right around it."""

    @property
    def length(self) -> float:
        return self.end - self.start

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Reading:
    """The clock, and the processor time of the calling thread. Neither gives the GIL away."""

    when: float
    cpu_s: float

    @classmethod
    def take(cls) -> Reading:
        return cls(now(), time.thread_time())


def waited() -> float:
    """Seconds that the calling thread was ready to run and was not let, so far. 0 where the system does not tell."""
    try:
        with open("/proc/thread-self/schedstat", "rb", buffering=0) as file:
            return int(file.read(128).split()[1]) / 1e9
    except OSError:
        return 0.0


class Scene:
    """The sessions. Their entry tasks take orders."""

    def __init__(self, subject: Subject, seed: int) -> None:
        self._subject = subject
        self._chooser = random.Random(seed + 1)
        self._offset = time.time() - now()
        self._orders: dict[str, _loops.Orders[Callable[[], None] | None]] = {}
        self._entries: list[_loops.Job] = []
        self._hog = GilHog()
        self._module_s = HeavyModules.install()
        self._modules = 0
        self._burst: list[Callable[[], None]] = []

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
        if block.kind == GIL_WAITING:
            return await self._cause_starved_wait(block)
        blocker, argument = KINDS[block.kind][0], await self._argument(block)
        done: _loops.Orders[tuple[Reading, Reading]] = _loops.Orders()
        tasks: list[_loops.Job] = []

        def run() -> None:
            before = Reading.take()
            blocker(argument)
            done.put_nowait((before, Reading.take()))

        async def task() -> None:
            run()

        def order() -> None:
            if block.place == "entry task":
                run()
            elif "callback" not in block.place:
                tasks.append(_loops.spawn(task()))
            else:
                _loops.call_soon(run, later_s=0.003 if block.later else 0.0)

        waited_before = waited()
        if block.session_id is None:
            order()
        else:
            self._orders[block.session_id].put_nowait(order)
        before, after = await done.get()
        gc.enable()
        if block.kind == "gil":
            self._hog.held.get()  # it measured itself
        return self._truth(block, before, after, waited() - waited_before)

    def _truth(self, block: Planned, before: Reading, after: Reading, waited_s: float) -> Truth:
        length = after.when - before.when
        causes = [block.cause]
        computed = (after.cpu_s - before.cpu_s) / max(1e-9, length - waited_s)
        if block.kind == "fsync" and computed > 0.4 and "callback" not in block.place:
            # What it waits for is in memory here, so that it computes, in the kernel for the most.
            causes = ["cpu", "native"] if computed > 0.6 else ["cpu", "native", "sync-call"]
        if waited_s > 0.4 * length:
            causes = [*causes, "descheduled"] if waited_s < 0.6 * length else ["descheduled"]
        return Truth(
            kind=block.kind,
            place=block.place,
            session_id=None
            if block.cause in ("gc", "gil-contention") or causes == ["descheduled"]
            else block.session_id,
            start=before.when + self._offset,
            end=after.when + self._offset,
            causes=causes,
            lines=block.lines,
            waited_s=waited_s,
        )

    async def _argument(self, block: Planned) -> Any:
        blocker = KINDS[block.kind][0]
        if blocker in b.SIZED:
            return b.size_for(blocker, block.seconds)
        if block.kind == "import":
            self._modules += 1
            return f"{HeavyModules.PREFIX}{max(1, int(block.seconds / self._module_s))}_x{self._modules}"
        if block.kind == "gil":
            size = b.size_for(b.add, block.seconds)
            return lambda: self._hog.hold(size)
        if block.kind == "gc":
            gc.disable()
            await _litter(int(block.seconds / self.collect_s))
            return 0
        return block.seconds

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
        spans: list[tuple[Reading, Reading]] = []
        waiting: list[_loops.Job] = []

        async def take_part(seconds: float) -> None:
            await go.wait()
            before = Reading.take()
            spin(seconds)
            spans.append((before, Reading.take()))

        def join(seconds: float) -> None:
            waiting.append(_loops.spawn(take_part(seconds)))
            if len(waiting) == len(parts):
                ready.set()

        for part in parts:
            name = self._chooser.choice(list(self._orders))
            self._orders[name].put_nowait(partial(join, part))
        await ready.wait()
        await _loops.sleep(0.01)
        waited_before = waited()
        go.set()
        for part_taken in waiting:
            await part_taken.wait()
        return self._truth(block, spans[0][0], spans[-1][1], waited() - waited_before)

    async def _cause_starved_wait(self, block: Planned) -> Truth:
        self._hog.hold(b.size_for(b.add, block.seconds), after_s=0.002)
        while self._hog.held.empty():
            await _loops.sleep(0.005)
        start, end = self._hog.held.get()
        return Truth(
            block.kind, block.place, None, start + self._offset, end + self._offset, [block.cause], (), 0.0
        )  # fmt: skip


async def _litter(count: int) -> None:
    """Makes so many things that only a collection frees, a few milliseconds at a time."""
    for _ in range(count // 5000 + 1):
        for _ in range(5000):
            one: list[Any] = []
            one.append(one)
        await _loops.sleep(0)
