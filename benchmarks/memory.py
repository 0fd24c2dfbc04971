"""The accuracy of a session's own memory, and the cost of reading it."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import time
from collections.abc import Awaitable, Callable
from typing import Any

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._accounting.heap import Heap
from openrtc_introspect_core._accounting.heap_methods import heap_for
from openrtc_introspect_core._base.units import MIB

from ._case import Case, Details, Result, Results, Row, value

METHODS = ("heap", "traced")
FREE_CHUNKS = (0, 1_000, 10_000, 100_000)
"""Made by freeing every other one of twice as many buffers."""

Pattern = Callable[[], Awaitable[Any]]


async def at_once() -> list[bytearray]:
    return [bytearray(64 * 1024) for _ in range(20 * 16)]


async def little_by_little() -> list[bytearray]:
    kept = []
    for _ in range(48):
        kept.append(bytearray(MIB // 4))
        await asyncio.sleep(0.001)
    return kept


async def in_a_ring() -> collections.deque[bytearray]:
    ring: collections.deque[bytearray] = collections.deque(maxlen=64)
    for _ in range(300):
        ring.append(bytearray(128 * 1024))
        await asyncio.sleep(0.001)
    return ring


async def in_child_tasks() -> list[bytearray]:
    async def child() -> bytearray:
        await asyncio.sleep(0.001)
        return bytearray(MIB)

    return await asyncio.gather(*(child() for _ in range(10)))


async def in_threads() -> list[bytearray]:
    return [await asyncio.to_thread(bytearray, MIB) for _ in range(10)]


async def large_after_churning() -> bytearray:
    for _ in range(200):
        passing = [bytearray(50_000) for _ in range(20)]
        await asyncio.sleep(0.001)
        del passing
    return bytearray(50 * MIB)


HELD_MIB: dict[Pattern, int] = {
    at_once: 20, little_by_little: 12, in_a_ring: 8, in_child_tasks: 10, in_threads: 10, large_after_churning: 50,
}  # fmt: skip


LEFT_MIB = 20
BUSY = 20
"""The number of sessions that churn beside the one that has ended."""

Keep = list[Any]


async def leaked(keep: Keep) -> None:
    keep.append([bytearray(64 * 1024) for _ in range(16 * LEFT_MIB)])


async def leaked_by_a_task(keep: Keep) -> None:
    async def child() -> list[bytearray]:
        return [bytearray(64 * 1024) for _ in range(16 * LEFT_MIB)]

    keep.append(asyncio.create_task(child()))
    await keep[0]


async def freed_by_another_step(keep: Keep) -> None:
    await leaked(keep)
    asyncio.get_running_loop().call_later(0.3, keep.clear)


async def freed_by_a_collection(keep: Keep) -> None:
    cycle: Keep = []
    await leaked(cycle)
    cycle.append(cycle)
    asyncio.get_running_loop().call_later(0.3, gc.collect)


ENDS: dict[Callable[[Keep], Awaitable[None]], int] = {
    leaked: LEFT_MIB, leaked_by_a_task: LEFT_MIB, freed_by_another_step: 0, freed_by_a_collection: 0,
}  # fmt: skip
"""Ways in which a session ends, and how much of its memory is held one second later, in units of MIB."""


def cases(quick: bool) -> list[Case]:
    accuracy = [Case(method, accuracy_of, {"method": method}) for method in METHODS]
    ended = [
        Case(f"ended, {method}, {load}", ended_of, {"method": method, "busy": busy})
        for method in METHODS
        for load, busy in (("quiet", 0), ("busy", BUSY))
    ]
    return [*accuracy, *ended, Case("cost", cost, {"max_chunks": FREE_CHUNKS[2 if quick else 3]})]


def accuracy_of(method: str) -> Result:
    return asyncio.run(_accuracy_of(method))


async def _accuracy_of(method: Any) -> Result:
    Heap.adjust_sampling = lambda self, now: None  # type: ignore[method-assign]  # accuracy is measured here, not cost
    reported: dict[str, float] = {}
    async with Introspector(memory=method, socket_path=False, slow_session_threshold_ms=60_000) as introspector:
        all_hold, done = asyncio.Barrier(len(HELD_MIB) + 1), asyncio.Event()

        async def session(pattern: Pattern) -> None:
            with introspector.session(pattern.__name__, agent_name="bench"):
                kept = await pattern()
                await all_hold.wait()
                await done.wait()
                del kept

        tasks = [asyncio.create_task(session(pattern)) for pattern in HELD_MIB]
        await all_hold.wait()
        rows = introspector.snapshot().sessions
        reported = {row.session_id: row.heap_mb or 0.0 for row in rows}
        shares = {row.mem_mb for row in rows}
        done.set()
        await asyncio.gather(*tasks)
    errors = {p.__name__: 100.0 * (reported[p.__name__] - mib) / mib for p, mib in HELD_MIB.items()}
    return {"reported": reported, "errors": errors, "equal_shares": len(shares) == 1}


def ended_of(method: str, busy: int) -> Result:
    return {"reported": {end.__name__: asyncio.run(_ended_of(method, end, busy)) for end in ENDS}}


async def _ended_of(method: Any, end: Callable[[Keep], Awaitable[None]], busy: int) -> dict[str, Any]:
    """Return what is reported of a session one second after its end."""
    Heap.adjust_sampling = lambda self, now: None  # type: ignore[method-assign]
    keep: Keep = []
    async with Introspector(memory=method, socket_path=False, slow_session_threshold_ms=60_000) as introspector:

        async def session() -> None:
            with introspector.session("ended", agent_name="bench"):
                await end(keep)

        async def churning(number: int) -> None:
            with introspector.session(f"churning-{number}", agent_name="bench"):
                while True:
                    kept = [bytearray(8192) for _ in range(20)]
                    await asyncio.sleep(0.01)
                    del kept  # in another step than the one that allocated it
                    await asyncio.sleep(0.01)

        others = [asyncio.create_task(churning(number)) for number in range(busy)]
        await asyncio.create_task(session())
        await asyncio.sleep(1.0)
        (left,) = introspector.snapshot().worker.left_behind
        for other in others:
            other.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await other
        keep.clear()
    return {"charged": left.heap_mb, "at_least": left.at_least_mb, "referenced": left.referenced}


def cost(max_chunks: int) -> Result:
    """Measure the seconds of one reading, by the number of free chunks."""
    readers: dict[str, Heap] = {method: heap for method in METHODS if (heap := heap_for(method)) is not None}  # type: ignore[arg-type]
    found: dict[str, dict[str, float]] = {method: {} for method in METHODS}
    for method, heap in readers.items():
        heap.start()
        for chunks in FREE_CHUNKS:
            if chunks > max_chunks:
                continue
            kept: list[bytearray | None] = [bytearray(600 + index % 3000) for index in range(2 * chunks)]
            kept[::2] = [None] * chunks
            found[method][str(chunks)] = min(_time(heap) for _ in range(5))
            del kept
        heap.stop()
    return found


def _time(heap: Heap) -> float:
    began = time.perf_counter()
    for _ in range(20):
        heap.read()
    return (time.perf_counter() - began) / 20


def rows(results: Results) -> list[Row]:
    found = []
    for method in METHODS:
        errors = value(results, method, "errors")
        worst = max(map(abs, errors.values())) if errors else None
        found.append(Row(f'memory="{method}", six patterns of allocation, worst error', worst, "%", 10.0))
        reported = {load: value(results, f"ended, {method}, {load}", "reported") for load in ("quiet", "busy")}
        held = [end.__name__ for end, mib in ENDS.items() if mib]
        left = reported["quiet"]
        certain = min((left[name]["at_least"] for name in held), default=None) if left else None
        share = 100.0 * certain / LEFT_MIB if certain is not None else None
        found.append(
            Row(
                f'memory="{method}", lower bound of a leak one second after the session\'s end, quiet worker',
                share,
                "%",
                90.0,
                at_least=True,
            )
        )
        freed = [end.__name__ for end, mib in ENDS.items() if not mib]
        wrong = [each[name]["at_least"] for each in reported.values() if each for name in freed]
        found.append(
            Row(
                f'memory="{method}", memory freed by others but reported as held, at most',
                max(wrong, default=None),
                "MB",
                0.5,
            )
        )
    return found


def details(results: Results) -> list[Details]:
    patterns = [
        [
            name.__name__.replace("_", " "),
            f"{mib} MB",
            *(_reported(results, method, name.__name__) for method in METHODS),
        ]
        for name, mib in HELD_MIB.items()
    ]
    costs = [
        [f"{chunks:,}", *(_micro(value(results, "cost", method), str(chunks)) for method in METHODS)]
        for chunks in FREE_CHUNKS
    ]
    ended = [
        [
            f"{name.__name__.replace('_', ' ')}, {load}",
            f"{mib} MB",
            *(_after_end(results, f"ended, {method}, {load}", name.__name__) for method in METHODS),
        ]
        for name, mib in ENDS.items()
        for load in ("quiet", "busy")
    ]
    return [
        Details(
            f"One second after the end of a session that took {LEFT_MIB} MB: lower bound of the charge; referenced",
            ["left behind", "held", *METHODS],
            ended,
        ),
        Details("What a session holds, and what is reported", ["pattern", "held", *METHODS], patterns),
        Details("Time of one reading, by the number of free chunks", ["free chunks", *METHODS], costs),
    ]


def _reported(results: Results, method: str, pattern: str) -> str:
    reported = value(results, method, "reported", pattern)
    return f"{reported:.2f} MB" if reported is not None else "–"


def _after_end(results: Results, case: str, name: str) -> str:
    reported = value(results, case, "reported", name)
    if reported is None:
        return "–"
    return f"{reported['at_least']:.1f} of {reported['charged']:.1f} MB, {'yes' if reported['referenced'] else 'no'}"


def _micro(costs: dict[str, float] | None, chunks: str) -> str:
    return f"{1e6 * costs[chunks]:.2f} µs" if costs and chunks in costs else "–"
