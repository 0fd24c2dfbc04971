"""The cost of steps, tasks and iterations as a worker pays it: in a session, with the collector on.

Rounds with introspection, which is attached for each anew, and rounds without take turns in one process (_pairs.py).
Times are CPU times of the loop's thread, so a round that the system interrupts is not longer for it.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from . import _loops, _runner
from ._case import Case, Details, Result, Results, Row, value
from ._pairs import alternate, table
from ._subjects import Subject, make
from ._work import take_turns

OURS = {"default": "", "python": ", meter in Python", "before": ", the build before", "sampled": ', cpu="sampled"'}
"""Of ours, with its title: the default install; the same with its meter in Python; the build before, if its tree is
given; the default install in the mode that meters no steps."""

WITH_HEAP = ("default", "before")
SETTLE_S = 0.02
Kind = Callable[[], Awaitable[float]]
"""Measures the seconds of one step, or of one of what else is measured."""


def cases(quick: bool) -> list[Case]:
    arguments = {"limit_s": 1.0 if quick else 25.0, "tasks": 10_000 if quick else 100_000}
    found = []
    for loop in _loops.WITH_TRIO:
        for who in (*OURS, "peer"):
            if _loops.exists(loop, who):
                subject = who if who in ("peer", "sampled") else "exact"
                found.append(_case(f"{loop} {who}", who, loop, arguments | {"subject": subject}))
        if sys.platform == "linux":
            found += [
                _case(f"{loop} {who}, heap", who, loop, arguments | {"subject": "heap", "only": "step"})
                for who in WITH_HEAP
            ]
    return [case for case in found if not case.before or _runner.build_before() is not None]


def _case(name: str, who: str, loop: str, arguments: dict[str, Any]) -> Case:
    needs = _loops.needs(loop, who)
    arguments = arguments | {"loop": loop}
    return Case(
        name, measure, arguments, limit_s=120.0, needs=needs, meter_in_python=who == "python", before=who == "before"
    )


def measure(subject: str, loop: str, limit_s: float, tasks: int, only: str | None = None) -> Result:
    """Measure the cost of one of each kind, and the bytes that a live task takes."""
    return _loops.run(loop, _measure(subject, limit_s, tasks, only))


async def _measure(subject_name: str, limit_s: float, tasks: int, only: str | None) -> Result:
    kinds = ON_TRIO if _loops.on_trio() else ON_ASYNCIO
    wanted = [kind for kind in kinds if only in (None, kind)]

    async def plain(wanted: Sequence[str]) -> Mapping[str, float]:
        return await _in_task(lambda: _each(kinds, wanted))

    async def attached(wanted: Sequence[str]) -> Mapping[str, float]:
        return await _attached(subject_name, lambda: _each(kinds, wanted))

    for once in (plain, attached):  # imports what it needs
        await once(wanted)
    gc.collect()
    gc.freeze()  # collections skip what was imported, which differs between subjects
    result: Result = dict(await alternate(wanted, plain, attached, limit_s))
    if only is None:
        await _in_task(lambda: _task_bytes(tasks))  # the loop's own tables grow, and stay large
        before = await _in_task(lambda: _task_bytes(tasks))
        after = await _attached(subject_name, lambda: _task_bytes(tasks))
        result["memory"] = {"plain": before["bytes"], "added": after["bytes"] - before["bytes"]}
    return result


async def _attached(subject_name: str, measured: Callable[[], Awaitable[Mapping[str, float]]]) -> Mapping[str, float]:
    """Measure in a session while the subject is attached."""
    subject = make(subject_name, budget_pct=0)
    await subject.start()
    try:
        return await _in_task(lambda: _in_session(subject, measured))
    finally:
        await subject.close()


async def _in_session(subject: Subject, measured: Callable[[], Awaitable[Mapping[str, float]]]) -> Mapping[str, float]:
    async with subject.session("worker"):
        await _loops.sleep(SETTLE_S)
        return await measured()


async def _in_task(measured: Callable[[], Awaitable[Mapping[str, float]]]) -> Mapping[str, float]:
    """Measure in a task of its own, as sessions are: the running task is older than what is attached."""
    found: dict[str, float] = {}

    async def run() -> None:
        found.update(await measured())

    await _loops.spawn(run()).wait()
    return found


async def _each(kinds: Mapping[str, Kind], wanted: Sequence[str]) -> Mapping[str, float]:
    return {kind: await kinds[kind]() for kind in wanted}


# --- asyncio and uvloop ---------------------------------------------------------------------------


async def _steps(tasks: int = 10, count: int = 800) -> float:
    """Measure a step of several tasks that do nothing but take turns."""
    create = asyncio.get_running_loop().create_task
    began = time.thread_time()
    await asyncio.wait([create(take_turns(count)) for _ in range(tasks)])
    return (time.thread_time() - began) / (count * tasks)


async def _create_tasks(count: int = 1500) -> float:
    """Measure the creation of a task of an empty coroutine, and the wait for it."""
    create = asyncio.get_running_loop().create_task
    began = time.thread_time()
    for _ in range(count):
        await create(_nothing())
    return (time.thread_time() - began) / count


async def _nothing() -> None: ...


async def _iterations(count: int = 3000) -> float:
    """Measure an iteration of a loop that runs one callback in each."""
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

    began = time.thread_time()
    loop.call_soon(callback)
    await done
    return (time.thread_time() - began) / count


# --- Trio -----------------------------------------------------------------------------------------


async def _trio_steps(tasks: int = 10, count: int = 200) -> float:
    """Measure a step of several tasks that do nothing but take turns."""
    import trio

    async def turns() -> None:
        for _ in range(count):
            await trio.lowlevel.cancel_shielded_checkpoint()

    began = time.thread_time()
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(turns)
    return (time.thread_time() - began) / (count * tasks)


async def _trio_tasks(count: int = 250) -> float:
    """Measure a task of an empty function in a nursery of its own."""
    import trio

    began = time.thread_time()
    for _ in range(count):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_nothing)
    return (time.thread_time() - began) / count


ON_ASYNCIO: dict[str, Kind] = {"step": _steps, "task": _create_tasks, "iteration": _iterations}
ON_TRIO: dict[str, Kind] = {"step": _trio_steps, "task": _trio_tasks}


async def _task_bytes(count: int) -> Mapping[str, float]:
    """Measure the bytes of one of many live tasks that wait, as tracemalloc counts them.

    All memory of a task is Python's own, in C as well, so no byte of it is missed, and none of other threads counts.
    """
    event = _loops.event()

    async def waiting() -> None:
        await event.wait()

    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    jobs = [_loops.spawn(waiting()) for _ in range(count)]
    await _loops.sleep(0)
    await _loops.sleep(0)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    event.set()
    for job in jobs:
        await job.wait()
    return {"bytes": (after - before) / count}


# --- tables ---------------------------------------------------------------------------------------

WHAT = {"step": "step", "task": "task, created and awaited", "iteration": "iteration of one callback"}
MUST = {"step": 1.10, "task": 1.15}


def rows(results: Results) -> list[Row]:
    found = []
    for loop in _loops.WITH_TRIO:
        for kind, what in WHAT.items():
            for key, title, unit, must in (
                ("ratio", "metered / plain", "", MUST.get(kind) if loop != "trio" else None),
                ("added", "added", "ns", None),
            ):
                for who in OURS:
                    ours, peer = (_reading(results, f"{loop} {each}", kind, key) for each in (who, "peer"))
                    if ours is not None:
                        target = must if who == "default" else None
                        found.append(Row(f"{loop}, {what}, {title}{OURS[who]}", ours, unit, target, peer))
        for who in OURS:
            ours, peer = (_reading(results, f"{loop} {each}", "memory", "added") for each in (who, "peer"))
            if ours is not None:
                found.append(Row(f"{loop}, memory added to a live task{OURS[who]}", ours, "bytes", None, peer))
        for who in WITH_HEAP:
            ours = _reading(results, f"{loop} {who}, heap", "step", "added")
            if ours is not None:
                found.append(Row(f'{loop}, step with memory="heap", added{OURS[who]}', ours, "ns"))
    return found


def _reading(results: Results, case: str, kind: str, key: str) -> float | None:
    found: float | None = value(results, case, kind, key) if kind in results.get(case, {}) else None
    return 1e9 * found if found is not None and key == "added" and kind != "memory" else found


def details(results: Results) -> list[Details]:
    named = [f"{loop} {who}{mode}" for loop in _loops.WITH_TRIO for who in (*OURS, "peer") for mode in ("", ", heap")]
    measured = [(case, [kind for kind in WHAT if kind in results[case]]) for case in named if case in results]
    return [table("Medians of pairs of rounds, and the 95 % intervals of the medians", results, measured, "ns", 1e9)]
