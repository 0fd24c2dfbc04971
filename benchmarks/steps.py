"""The cost of the step meter alone, beside that of its first version.

Tasks of one loop with the meter and without it take turns, so the cost of all else that is attached is not in it.
cost.py measures what a worker pays. Garbage collection is off.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

from openrtc_introspect_core._accounting.budget import STEPS
from openrtc_introspect_core._introspector import parts_of

from . import _loops
from ._case import Case, Result, Results, Row, value
from ._first_meter import Ledger, MeteredCoroutine
from ._subjects import make
from ._work import now, take_turns

COMPILED = "openrtc_introspect_core._native._meter"
TASKS = 10


def cases(quick: bool) -> list[Case]:
    rounds = 5 if quick else 25
    found = []
    for loop in _loops.LOOPS:
        needs = _loops.needs(loop)
        arguments = {"loop": loop, "rounds": rounds}
        found += [
            Case(f"{loop} meter in Python", measure_meter, arguments, needs=needs, meter_in_python=True),
            Case(f"{loop} meter in C", measure_meter, arguments, needs=(*needs, COMPILED)),
            Case(f"{loop} sampling meter", measure_meter, arguments | {"one_in": STEPS[-1]}, needs=needs),
            Case(f"{loop} first meter", measure_first_meter, arguments, needs=needs),
        ]
    return found


def measure_meter(loop: str, rounds: int, one_in: int = 1) -> Result:
    """Measure the meter alone, on one attached loop.

    The same tasks are made by the loop's `create_task` and by `asyncio.Task` itself.
    One step in `one_in` is timed.
    """
    return _loops.run(loop, _measure_meter(rounds, one_in))


async def _measure_meter(rounds: int, one_in: int) -> Result:
    subject: Any = make("exact", budget_pct=0)
    await subject.start()
    parts = parts_of(subject.introspector)
    parts.check_started().budget.sampling_period = one_in  # the budget returns to timing every step after ten seconds
    parts.loops[0].ledger.set_sampling_period(one_in)
    loop = asyncio.get_running_loop()

    def plain(coro: Any) -> asyncio.Task[None]:
        return asyncio.Task(coro, loop=loop)

    async def compare() -> Result:
        async with subject.session("worker"):
            await asyncio.sleep(0.2)
            return await _alternate(rounds, lambda: _steps(plain, 2000), lambda: _steps(loop.create_task, 2000))

    result = await loop.create_task(compare())
    await subject.close()
    return result


def measure_first_meter(loop: str, rounds: int) -> Result:
    """Measure the first version of the meter, with nothing else attached."""
    return _loops.run(loop, _measure_first_meter(rounds))


async def _measure_first_meter(rounds: int) -> Result:
    loop = asyncio.get_running_loop()
    ledger = Ledger()

    def plain(coro: Any) -> asyncio.Task[None]:
        return asyncio.Task(coro, loop=loop)

    def metered(coro: Any) -> asyncio.Task[None]:
        return asyncio.Task(MeteredCoroutine(coro, ledger), loop=loop)

    return await _alternate(rounds, lambda: _steps(plain, 2000), lambda: _steps(metered, 2000))


async def _alternate(
    rounds: int, plain: Callable[[], Awaitable[float]], measured: Callable[[], Awaitable[float]]
) -> Result:
    """Return the times with and without, and their differences, in nanoseconds.

    The differences are those of the minima and of the medians.
    """
    without: list[float] = []
    with_it: list[float] = []
    gc.collect()
    gc.disable()  # a collection would fall into one round and not into the other
    try:
        for number in range(rounds):
            for times, once in ((without, plain), (with_it, measured))[:: 1 if number % 2 else -1]:
                times.append(1e9 * await once())
    finally:
        gc.enable()
    return {
        "plain_ns": min(without),
        "measured_ns": min(with_it),
        "added_ns": min(with_it) - min(without),
        "added_median_ns": median(with_it) - median(without),
    }


async def _steps(create: Callable[[Any], asyncio.Task[None]], count: int) -> float:
    """Measure the seconds per step of several tasks that do nothing but take turns."""
    began = now()
    await asyncio.wait([create(take_turns(count)) for _ in range(TASKS)])
    return (now() - began) / (count * TASKS)


def rows(results: Results) -> list[Row]:
    found = []
    for loop in _loops.LOOPS:
        for what, case, must in (
            ("the meter in Python", "meter in Python", 650.0),
            ("the meter in C", "meter in C", 200.0),
            (f"one in {STEPS[-1]} timed", "sampling meter", None),
            ("the first version of the meter", "first meter", None),
        ):
            ours = value(results, f"{loop} {case}", "added_ns")
            found.append(Row(f"{loop}, added per step, {what}", ours, "ns", must))
    return found
