"""The cost of introspection while nothing happens."""

from __future__ import annotations

import asyncio
import resource
import time

from . import _loops
from ._case import Case, Result, Results, Row, value
from ._sessions import idle, opened
from ._subjects import make

SITUATIONS = (("asyncio", 0), ("asyncio", 10), ("uvloop", 10))


def cases(quick: bool) -> list[Case]:
    seconds = 1.0 if quick else 4.0
    return [
        Case(
            f"{loop} {sessions} {subject}",
            measure,
            {"subject": subject, "loop": loop, "sessions": sessions, "seconds": seconds},
            needs=_loops.needs(loop, subject),
        )
        for loop, sessions in SITUATIONS
        for subject in ("bare", "exact", "peer")
    ]


def measure(subject: str, loop: str, sessions: int, seconds: float) -> Result:
    return _loops.run(loop, _measure(subject, sessions, seconds))


async def _measure(subject_name: str, sessions: int, seconds: float) -> Result:
    subject = make(subject_name)
    await subject.start()
    async with opened(subject, idle(sessions)):
        await asyncio.sleep(1.2)  # until the work at the start is over
        began, cpu, wakeups = time.perf_counter(), time.process_time(), _wakeups()
        await asyncio.sleep(seconds)
        wall = time.perf_counter() - began
        result = {
            "cpu_pct": 100.0 * (time.process_time() - cpu) / wall,
            "wakeups_per_s": (_wakeups() - wakeups) / wall,
        }
    await subject.close()
    return result


def _wakeups() -> int:
    """Return how often the threads of this process went to sleep, all together."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


def rows(results: Results) -> list[Row]:
    found = []
    for loop, sessions in SITUATIONS:
        where = f"{loop}, {sessions or 'no'} sessions"
        for key, what, unit, must in (
            ("cpu_pct", "CPU, of a core", "%", 0.05),
            ("wakeups_per_s", "wake-ups", "/s", 3.0),
        ):
            bare = value(results, f"{loop} {sessions} bare", key)
            ours, peer = (
                _over(value(results, f"{loop} {sessions} {subject}", key), bare) for subject in ("exact", "peer")
            )
            found.append(Row(f"{where}, {what}", ours, unit, must=None if sessions else must, peer=peer))
    return found


def _over(measured: float | None, bare: float | None) -> float | None:
    return max(0.0, measured - bare) if measured is not None and bare is not None else None
