"""The accuracy of a session's wall time: for how long it ran and waited, and for what.

Sessions wait for known things for known times: in long waits of seconds, which the steps around them show, and
in short ones, of which about one a second is sampled.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean

from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._service.worker_source import WorkerSource
from openrtc_introspect_core.wire import TasksRequest

from . import _loops
from ._case import SEED, Case, Details, Result, Results, Row, value
from ._subjects import Core
from ._table import figure
from ._work import now, spin

SESSIONS = 20
LENGTHS = {"long": (1.0, 6.0), "short": (0.02, 0.2)}
"""Seconds that a wait lasts, at least and at most."""
KINDS = ("timer", "queue", "lock", "event", "thread")
STEP_S = 0.002
"""Seconds for which a session runs between two waits."""


def cases(quick: bool) -> list[Case]:
    return [
        Case(length, measure, {"length": length, "seconds": 12.0 if quick else 60.0, "seed": SEED}, limit_s=120.0)
        for length in LENGTHS
    ]


def measure(length: str, seconds: float, seed: int) -> Result:
    return _loops.run("asyncio", _measure(length, seconds, seed))


async def _on_a_timer(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def _on_a_queue(seconds: float) -> None:
    queue: asyncio.Queue[None] = asyncio.Queue()
    asyncio.get_running_loop().call_later(seconds, queue.put_nowait, None)
    await queue.get()


async def _on_a_lock(seconds: float) -> None:
    lock = asyncio.Lock()
    await lock.acquire()
    asyncio.get_running_loop().call_later(seconds, lock.release)
    async with lock:
        pass


async def _on_an_event(seconds: float) -> None:
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, event.set)
    await event.wait()


async def _on_a_thread(seconds: float) -> None:
    await asyncio.to_thread(time.sleep, seconds)


WAITS: dict[str, Callable[[float], Awaitable[None]]] = dict(
    zip(KINDS, (_on_a_timer, _on_a_queue, _on_a_lock, _on_an_event, _on_a_thread), strict=True)
)


async def _measure(length: str, seconds: float, seed: int) -> Result:
    """Run sessions that note how long they waited for what. Compare that with the division of their wall time."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2 * SESSIONS))
    subject = Core("exact")
    await subject.start()
    source = WorkerSource(parts_of(subject.introspector).check_started())
    errors: dict[str, list[float]] = defaultdict(list)
    balances: list[float] = []

    async def session(number: int) -> None:
        chooser = random.Random(seed + number)
        true: dict[str, float] = dict.fromkeys(KINDS, 0.0)
        async with subject.session(f"session-{number:02}"):
            began = now()
            while now() - began < seconds:
                spin(STEP_S)
                kind, waits = chooser.choice(KINDS), now()
                await WAITS[kind](chooser.uniform(*LENGTHS[length]))
                true[kind] += now() - waits
            found = source.tasks(TasksRequest(id=1, session_id=f"session-{number:02}"))
            whole = now() - began
        assert found is not None
        assert found.wall_time is not None
        division = found.wall_time
        seen = {each.kind: each.seconds for each in division.waited} | {"thread": division.in_threads_s}
        for kind in KINDS:
            errors[kind].append(100.0 * (seen.get(kind, 0.0) - true[kind]) / whole)
        errors["unknown"].append(100.0 * division.unknown_s / whole)
        parts = [division.running_s, division.delayed_s or 0.0, division.queued_s, division.unknown_s, *seen.values()]
        balances.append(abs(sum(parts) - division.total_s))

    for each in [_loops.spawn(session(number)) for number in range(SESSIONS)]:
        await each.wait()
    await subject.close()
    every = [abs(error) for kind in KINDS for error in errors[kind]]
    return {
        "mean_error_points": fmean(every),
        "worst_error_points": max(every),
        "unknown_pct": fmean(errors["unknown"]),
        "imbalance_us": 1e6 * max(balances),
        "bias_points": {kind: fmean(errors[kind]) for kind in KINDS},
    }


def rows(results: Results) -> list[Row]:
    found = []
    for length, (least, most) in LENGTHS.items():
        what = f"waits of {least:g}–{most:g} s"
        found += [
            Row(f"{what}: mean error of a kind's share", value(results, length, "mean_error_points"), "points"),
            Row(f"{what}: worst error", value(results, length, "worst_error_points"), "points"),
            Row(f"{what}: unknown", value(results, length, "unknown_pct"), "%"),
        ]
    imbalance = max((result["imbalance_us"] for result in results.values()), default=None)
    found.append(Row("the parts add up to the whole, but for", imbalance, "µs", 1.0))
    return found


def details(results: Results) -> list[Details]:
    """Return the bias of each kind: the mean error of its share over all sessions."""
    lines = [
        [kind, *(figure(value(results, length, "bias_points", kind)) for length in LENGTHS)]
        for kind in KINDS
        if results
    ]
    return [Details("wall time, bias by kind, points", ["kind", *LENGTHS], lines)]
