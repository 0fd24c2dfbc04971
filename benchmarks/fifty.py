"""The CPU added to fifty sessions with fifty steps a second of 50 µs each.

Rounds without introspection and with it take turns in one process (_pairs.py), and each lasts one second: work of ours
that is due once a second is in each round once. The cores are kept awake (_awake.py), in all but one case: that shows
the same on a machine that is left alone, with all the noise of it.

A step's work ends by the clock, or is a fixed amount. In the first kind the pace of the machine is in no round, but
neither is what introspection slows in the work itself, as by caches gone cold; in the second kind both are.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import threading
import time
from collections.abc import Mapping, Sequence
from statistics import fmean

from . import _loops, _runner
from ._awake import POSSIBLE, awake
from ._case import SEED, Case, Details, Result, Results, Row, value
from ._pairs import alternate, compared, table
from ._sessions import Body, opened
from ._subjects import make
from ._table import figure
from ._work import Work, now, spin

SESSIONS = 50
PERIOD_S = 0.020
BUSY_S = 50e-6
PROCESS, LOOP, THREADS = "process", "loop's thread", "threads"


def cases(quick: bool) -> list[Case]:
    found = []
    for loop in _loops.LOOPS:
        for name, more in (
            ("", {}),
            ("fixed work", {"fixed": True}),
            ("cores asleep", {"keep_awake": False}),
            ("before", {}),
            ("peer", {"subject": "peer"}),
        ):
            found.append(
                Case(
                    f"{loop} {name}".strip(),
                    measure,
                    {"loop": loop, "seconds": 1.0, "limit_s": 4.0 if quick else 120.0, "seed": SEED} | more,
                    limit_s=240.0,
                    needs=_loops.needs(loop, name),
                    before=name == "before",
                )
            )
    return [case for case in found if not case.before or _runner.build_before() is not None]


def measure(
    loop: str,
    seconds: float,
    limit_s: float,
    seed: int,
    subject: str = "exact",
    fixed: bool = False,
    keep_awake: bool = True,
) -> Result:
    """Measure CPU with and without introspection, in seconds of CPU a second: 1 is a whole core."""
    with awake() if keep_awake else contextlib.nullcontext():
        return _loops.run(loop, _measure(subject, seconds, limit_s, seed, fixed))


async def _measure(subject: str, seconds: float, limit_s: float, seed: int, fixed: bool) -> Result:
    work = _counting(_count_for(BUSY_S)) if fixed else lambda: spin(BUSY_S)
    without: list[Mapping[str, float]] = []
    with_it: list[Mapping[str, float]] = []

    async def plain(_: Sequence[str]) -> Mapping[str, float]:
        without.append(await asyncio.create_task(_round("bare", work, seconds, seed)))
        return without[-1]

    async def attached(_: Sequence[str]) -> Mapping[str, float]:
        with_it.append(await asyncio.create_task(_round(subject, work, seconds, seed)))
        return with_it[-1]

    for name in ("bare", subject):
        await _round(name, work, 0.2, seed)  # imports what it needs
    gc.collect()
    gc.freeze()  # collections in the rounds without it skip what a subject has imported
    result: Result = dict(await alternate([PROCESS], plain, attached, limit_s))
    result[LOOP] = compared([used[LOOP] for used in without], [used[LOOP] for used in with_it])
    others = sorted({name for used in with_it for name in used} - {PROCESS, LOOP})
    result[THREADS] = {name: fmean(used.get(name, 0.0) for used in with_it) for name in others}
    return result


async def _round(name: str, work: Work, seconds: float, seed: int) -> dict[str, float]:
    subject = make(name)
    await subject.start()
    phases = random.Random(seed)  # the same in each round: sessions that wake up together share an iteration
    bodies = {f"session-{number:02}": _body(work, phases.random()) for number in range(SESSIONS)}
    async with opened(subject, bodies):
        await asyncio.sleep(0.1)
        began, before = now(), _cpu()
        await asyncio.sleep(seconds)
        wall, after = now() - began, _cpu()
    await subject.close()
    return {thread: (used - before.get(thread, 0.0)) / wall for thread, used in after.items()}


def _cpu() -> dict[str, float]:
    """Return the CPU seconds of the process, of the loop's thread and, by name, of each other thread of Python."""
    others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    used = {thread.name: _thread_cpu(thread) for thread in others}
    return used | {LOOP: time.thread_time(), PROCESS: time.process_time()}


def _thread_cpu(thread: threading.Thread) -> float:
    if thread.ident is None or not hasattr(time, "pthread_getcpuclockid"):
        return 0.0  # not on macOS
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def _body(work: Work, phase: float) -> Body:
    async def body() -> None:
        # By the clock, so that every round has the same number of steps.
        due = now() + phase * PERIOD_S
        while True:
            await asyncio.sleep(max(0.0, due - now()))
            work()
            due += PERIOD_S

    return body


def _counting(count: int) -> Work:
    def work() -> None:
        for _ in range(count):
            pass

    return work


def _count_for(seconds: float) -> int:
    """Return how far `_counting` counts in this time."""
    count = 1000
    work = _counting(count)
    shortest = min(_timed(work) for _ in range(200))
    return max(1, round(count * seconds / shortest))


def _timed(work: Work) -> float:
    began = now()
    work()
    return now() - began


def rows(results: Results) -> list[Row]:
    found = []
    for loop in _loops.LOOPS:
        peer = _added(results, f"{loop} peer")
        for name, title, must in (
            ("", "added CPU, of a core", 0.4),
            ("fixed work", "added CPU, of a core, with a fixed amount of work", None),
            ("cores asleep", "added CPU, of a core, with cores that may sleep", None),
            ("before", "added CPU, of a core, the build before", None),
        ):
            ours = _added(results, f"{loop} {name}".strip())
            if ours is not None:
                found.append(Row(f"{loop}, {title}", ours, "%", must, peer if name in ("", "before") else None))
    return found


def _added(results: Results, case: str) -> float | None:
    added: float | None = value(results, case, PROCESS, "added")
    return 100.0 * added if added is not None else None


def details(results: Results) -> list[Details]:
    measured = [(case, (PROCESS, LOOP)) for case in results]
    threads = [
        (f"{case}, {name}", figure(100.0 * cpu, "%"))
        for case, result in results.items()
        for name, cpu in result[THREADS].items()
    ]
    kept = "" if POSSIBLE else "; the cores could not be kept awake on this platform"
    return [
        table(f"CPU of fifty sessions, in percent of a core{kept}", results, measured, "%", 100.0),
        Details(
            "CPU of the other threads in the rounds with introspection, mean, of a core", ("thread", "CPU"), threads
        ),
    ]
