"""What does each task step, each task and each loop iteration cost more?

Rounds with and without take turns in one process, so that what the machine does besides hits both.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Generator
from statistics import median
from types import coroutine
from typing import Any

from openrtc_introspect_core._budget import STEPS

from . import _loops
from ._case import Case, Result, Results, Row, value
from ._first_meter import Ledger, MeteredCoroutine
from ._subjects import make
from ._work import now

COMPILED = "openrtc_introspect_core._step_meter"
TASKS = 10
Measured = Callable[[int], Awaitable[float]]


def cases(quick: bool) -> list[Case]:
    rounds = 5 if quick else 25
    found = []
    for loop in _loops.LOOPS:
        needs = _loops.needs(loop)
        arguments = {"loop": loop, "rounds": rounds}
        found += [
            Case(f"{loop} meter", measure_meter, arguments, needs=needs),
            Case(f"{loop} thinned meter", measure_meter, arguments | {"one_in": STEPS[-1]}, needs=needs),
            Case(f"{loop} compiled meter", measure_meter, arguments, needs=(*needs, COMPILED), compiled=True),
            Case(f"{loop} first meter", measure_first_meter, arguments, needs=needs),
        ]
        found += [
            Case(
                f"{loop} {subject}",
                measure_attached,
                {"subject": subject, "loop": loop, "rounds": rounds},
                needs=_loops.needs(loop, subject),
            )
            for subject in ("exact", "sampled", "peer")
        ]
    found += [
        Case(f"trio {subject}", measure_trio, {"subject": subject, "rounds": rounds}, needs=("trio",))
        for subject in ("exact", "sampled")
    ]
    return found


def measure_meter(loop: str, rounds: int, one_in: int = 1) -> Result:
    """The meter alone: the same tasks on one attached loop, made by its `create_task` and by `asyncio.Task` itself.

    `one_in`: of so many steps one is timed.
    """
    return _loops.run(loop, _measure_meter(rounds, one_in))


async def _measure_meter(rounds: int, one_in: int) -> Result:
    subject: Any = make("exact", budget_pct=0)
    await subject.start()
    subject.introspector._reporter.budget.one_in = one_in  # it goes back to all of them after ten seconds
    subject.introspector._loops[0].ledger.thin(one_in)
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
    """The meter as it was at first, without whatever else is attached."""
    return _loops.run(loop, _measure_first_meter(rounds))


async def _measure_first_meter(rounds: int) -> Result:
    loop = asyncio.get_running_loop()
    ledger = Ledger()

    def plain(coro: Any) -> asyncio.Task[None]:
        return asyncio.Task(coro, loop=loop)

    def metered(coro: Any) -> asyncio.Task[None]:
        return asyncio.Task(MeteredCoroutine(coro, ledger), loop=loop)

    return await _alternate(rounds, lambda: _steps(plain, 2000), lambda: _steps(metered, 2000))


def measure_attached(subject: str, loop: str, rounds: int) -> Result:
    """Everything that is there while attached, over a loop that nothing is attached to."""
    return _loops.run(loop, _measure_attached(subject, rounds))


async def _measure_attached(subject_name: str, rounds: int) -> Result:
    loop = asyncio.get_running_loop()

    def attached(measured: Callable[[], Awaitable[float]]) -> Callable[[], Awaitable[float]]:
        async def run() -> float:
            subject = make(subject_name, budget_pct=0)
            await subject.start()

            async def inside() -> float:
                async with subject.session("worker"):
                    await asyncio.sleep(0.02)
                    return await measured()

            try:
                return await loop.create_task(inside())
            finally:
                await subject.close()

        return run

    await attached(lambda: _steps(loop.create_task, 10))()  # imports what it needs
    kinds: dict[str, Callable[[], Awaitable[float]]] = {
        "step": lambda: _steps(loop.create_task, 2000),
        "task": lambda: _tasks(4000),
        "iteration": lambda: _iterations(10_000),
    }
    return {kind: await _alternate(rounds, once, attached(once)) for kind, once in kinds.items()}


def measure_trio(subject: str, rounds: int) -> Result:
    """The same on Trio, where the meter is an instrument of the run and cannot be had without the rest."""
    return _loops.run("trio", _measure_trio(subject, rounds))


async def _measure_trio(subject_name: str, rounds: int) -> Result:
    import trio

    async def turns(count: int) -> None:
        for _ in range(count):
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def steps(count: int) -> float:
        began = now()
        async with trio.open_nursery() as nursery:
            for _ in range(TASKS):
                nursery.start_soon(turns, count)
        return (now() - began) / (count * TASKS)

    async def tasks(count: int) -> float:
        began = now()
        for _ in range(count):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_nothing)
        return (now() - began) / count

    def attached(measured: Callable[[], Awaitable[float]]) -> Callable[[], Awaitable[float]]:
        async def run() -> float:
            subject = make(subject_name, budget_pct=0)
            await subject.start()
            try:
                async with subject.session("worker"):
                    await trio.sleep(0.02)
                    return await measured()
            finally:
                await subject.close()

        return run

    await attached(lambda: steps(10))()  # imports what it needs
    kinds: dict[str, Callable[[], Awaitable[float]]] = {"step": lambda: steps(2000), "task": lambda: tasks(2000)}
    return {kind: await _alternate(rounds, once, attached(once)) for kind, once in kinds.items()}


async def _alternate(
    rounds: int, plain: Callable[[], Awaitable[float]], measured: Callable[[], Awaitable[float]]
) -> Result:
    """Nanoseconds: both ways, and the difference of the least and of the medians."""
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
    """Seconds a step of several tasks that do nothing but take turns."""
    began = now()
    await asyncio.wait([create(_turns(count)) for _ in range(TASKS)])
    return (now() - began) / (count * TASKS)


async def _turns(count: int) -> None:
    for _ in range(count):
        await _yield()


@coroutine
def _yield() -> Generator[None, None, None]:
    yield


async def _tasks(count: int) -> float:
    """Seconds to create a task of an empty coroutine and to wait for it."""
    loop = asyncio.get_running_loop()
    began = now()
    for _ in range(count):
        await loop.create_task(_nothing())
    return (now() - began) / count


async def _nothing() -> None: ...


async def _iterations(count: int) -> float:
    """Seconds per iteration of a loop that runs one callback in each."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    left = count

    def callback() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(callback)
        else:
            done.set_result(None)

    began = now()
    loop.call_soon(callback)
    await done
    return (now() - began) / count


def rows(results: Results) -> list[Row]:
    found = []
    for loop in _loops.LOOPS:
        for what, case, path, must in (
            ("step, the meter alone", "meter", (), 650.0),
            ("step, the meter in C", "compiled meter", (), 200.0),
            (f"step, one in {STEPS[-1]} timed", "thinned meter", (), None),
            ("step, the first meter there was", "first meter", (), None),
            ("step, all that is attached", "exact", ("step",), None),
            ("step, sampled", "sampled", ("step",), None),
            ("create_task and await", "exact", ("task",), None),
            ("iteration", "exact", ("iteration",), None),
        ):
            ours = value(results, f"{loop} {case}", *path, "added_ns")
            peer = value(results, f"{loop} peer", *(path or ("step",)), "added_ns")
            found.append(Row(f"{loop}, added per {what}", ours, "ns", must, peer))
    for what, case, kind in (
        ("step, all that is attached", "exact", "step"),
        ("step, sampled", "sampled", "step"),
        ("task of a nursery of its own", "exact", "task"),
    ):
        found.append(Row(f"trio, added per {what}", value(results, f"trio {case}", kind, "added_ns"), "ns"))
    return found
