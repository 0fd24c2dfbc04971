"""Sixty random blocks: found, blamed on the right session, on no innocent one, of the right length?

They happen in sessions' entry tasks, in their child tasks, in tasks of no session, and in callbacks.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import NamedTuple

from . import _loops
from ._case import SEED, Case, Details, Result, Results, Row, value
from ._figures import quantile
from ._subjects import Core, Subject, make
from ._table import figure
from ._work import Work, now, spin, work

KINDS = ("sleep", "python", "sorted", "json.dumps", "hashlib")
PLACES = ("entry task", "child task", "task of no session", "session's callback", "callback of no session")
SESSIONS = 12
THRESHOLD_S = 0.050


class Span(NamedTuple):
    """A block, as it was or as it was reported. Unix time."""

    session_id: str | None
    start: float
    end: float

    def overlap(self, other: Span) -> float:
        return min(self.end, other.end) - max(self.start, other.start)

    @property
    def length(self) -> float:
        return self.end - self.start


@dataclass(slots=True)
class Block:
    """One to be caused: where, by what, in which session."""

    place: str
    kind: str
    session_id: str | None
    work: Work


def cases(quick: bool) -> list[Case]:
    return [
        Case(
            f"{loop} {subject}",
            measure,
            {"subject": subject, "loop": loop, "blocks": 15 if quick else 60, "seed": SEED},
            needs=_loops.needs(loop, subject),
        )
        for loop in _loops.LOOPS
        for subject in ("exact", "peer")
    ]


def plan(blocks: int, seed: int) -> list[Block]:
    """Each kind and each place equally often, in random order, most of them short."""
    chooser = random.Random(seed)
    found = []
    for number in range(blocks):
        place, kind = PLACES[number % len(PLACES)], KINDS[number // len(PLACES) % len(KINDS)]
        session = None if "of no session" in place else f"session-{chooser.randrange(SESSIONS):02}"
        found.append(Block(place, kind, session, work(kind, chooser.triangular(0.060, 0.300, 0.070))))
    chooser.shuffle(found)
    return found


class Scene:
    """Sessions that work a little, one entry task each, which also take orders."""

    def __init__(self, subject: Subject, seed: int) -> None:
        self._subject = subject
        self._spread = random.Random(seed + 1)
        self._offset = time.time() - now()
        self._orders: dict[str | None, asyncio.Queue[Callable[[], None] | None]] = {}
        self._entries: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        for number in range(SESSIONS):
            name = f"session-{number:02}"
            self._orders[name] = asyncio.Queue()
            self._entries.append(asyncio.create_task(self._entry(name)))
        await asyncio.sleep(0.5)

    async def close(self) -> None:
        for orders in self._orders.values():
            orders.put_nowait(None)
        await asyncio.gather(*self._entries)

    async def _entry(self, name: str) -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._subject.session(name))
            busy = asyncio.create_task(self._work_a_little())
            while (order := await self._orders[name].get()) is not None:
                order()
            busy.cancel()

    async def _work_a_little(self) -> None:
        while True:
            await asyncio.sleep(self._spread.uniform(0.05, 0.15))
            spin(0.001)

    async def cause(self, block: Block) -> Span:
        """The block as it really was."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Span] = loop.create_future()

        def run() -> None:
            start = now()
            block.work()
            end = now()
            done.set_result(Span(block.session_id, start + self._offset, end + self._offset))

        async def task() -> None:
            run()

        def create_task() -> None:
            tasks.append(loop.create_task(task()))

        def call_soon() -> None:
            loop.call_soon(run)

        tasks: list[asyncio.Task[None]] = []
        orders = {"entry task": run, "child task": create_task, "task of no session": create_task}
        order = orders.get(block.place, call_soon)
        if block.session_id is None:
            order()
        else:
            self._orders[block.session_id].put_nowait(order)
        return await done


class Reports(logging.Handler):
    """What a subject says. The peer's only word of a block is its log line."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self._subject = subject
        self._heard: list[Span] = []
        for name in ("openrtc", "openrtc.introspect"):
            logger = logging.getLogger(name)
            logger.propagate = False
            logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if "blocked event loop" in record.msg and isinstance(record.args, tuple) and record.name == "openrtc":
            session_id, milliseconds = record.args
            start = record.created - float(str(milliseconds)) / 1000.0
            self._heard.append(Span(None if session_id is None else str(session_id), start, record.created))

    def all(self) -> list[Span]:
        if isinstance(self._subject, Core):
            return [
                Span(block.session_id, block.started_at, block.started_at + block.duration_ms / 1000.0)
                for block in self._subject.introspector.blocks()
            ]
        return self._heard


def measure(subject: str, loop: str, blocks: int, seed: int) -> Result:
    return _loops.run(loop, _measure(subject, blocks, seed))


async def _measure(subject_name: str, count: int, seed: int) -> Result:
    subject = make(subject_name)
    blocks = plan(count, seed)
    await subject.start()
    reports = Reports(subject)
    scene = Scene(subject, seed)
    await scene.open()
    gaps = random.Random(seed + 2)
    caused: list[tuple[Block, Span]] = []
    for block in blocks:
        caused.append((block, await scene.cause(block)))
        await asyncio.sleep(gaps.uniform(0.04, 0.07))
    await scene.close()
    said = reports.all()
    await subject.close()
    return judge([(block, span) for block, span in caused if span.length > THRESHOLD_S], said)


def judge(caused: list[tuple[Block, Span]], said: list[Span]) -> Result:
    by_place: dict[str, list[int]] = {place: [0, 0, 0] for place in PLACES}
    errors = []
    for block, truth in caused:
        report = max(said, key=truth.overlap, default=None)
        found = report is not None and truth.overlap(report) > truth.length / 2
        right = found and report is not None and report.session_id == truth.session_id
        for place, counts in by_place.items():
            if place == block.place:
                counts[0] += 1
                counts[1] += found
                counts[2] += right
        if found and report is not None:
            errors.append(1000.0 * (report.length - truth.length))
    innocents = 0
    for report in said:
        cause = max((truth for _, truth in caused), key=report.overlap)
        guilty = cause.session_id if report.overlap(cause) > 0 else None
        innocents += report.session_id not in (None, guilty)
    return {
        "blocks": len(caused),
        "found_pct": 100.0 * sum(counts[1] for counts in by_place.values()) / len(caused),
        "right_pct": 100.0 * sum(counts[2] for counts in by_place.values()) / len(caused),
        "innocents": innocents,
        "reports": len(said),
        "error_ms": {"worst": max(map(abs, errors)), "least": min(errors), "most": max(errors)} if errors else None,
        "error_p95_ms": quantile([abs(error) for error in errors], 0.95) if errors else None,
        "by_place": by_place,
    }


def rows(results: Results) -> list[Row]:
    found = []
    for loop in _loops.LOOPS:
        ours, peer = f"{loop} exact", f"{loop} peer"
        for path, what, unit, must, at_least in (
            (("found_pct",), "found", "%", 100.0, True),
            (("right_pct",), "right session", "%", 100.0, True),
            (("innocents",), "innocent sessions blamed", "", 0.0, False),
            (("error_ms", "worst"), "duration, worst error", "ms", 2.0, False),
            (("error_p95_ms",), "duration, error of 95 in 100", "ms", None, False),
        ):
            found.append(
                Row(
                    f"{loop}, {what}",
                    value(results, ours, *path),
                    unit,
                    must,
                    value(results, peer, *path),
                    at_least=at_least,
                )
            )
    return found


def details(results: Results) -> list[Details]:
    lines = []
    for loop in _loops.LOOPS:
        for place in PLACES:
            line = [f"{loop}, {place}"]
            for subject in ("exact", "peer"):
                counts = value(results, f"{loop} {subject}", "by_place", place)
                line += [figure(counts[0]), figure(counts[1]), figure(counts[2])] if counts else ["–"] * 3
            lines.append(line)
    heading = (
        "loop, where it happens",
        "ours: blocks",
        "found",
        "right session",
        "peer: blocks",
        "found",
        "right session",
    )
    return [Details("Blocks by where they happen", heading, lines)]
