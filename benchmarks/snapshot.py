"""The time of a snapshot and the lag that it adds, at 100 to 10,000 sessions.

The client is another process. Lag is measured by a probe on the worker's loop, see _lag.py.
"""

from __future__ import annotations

import asyncio
import time
from statistics import median

from . import _loops
from ._case import Case, Result, Results, Row, value
from ._client import Client
from ._lag import lag_of
from ._sessions import idle, opened
from ._subjects import make
from ._table import figure

SIZES = (100, 1_000, 10_000)
FLOOD = 200
FLOODED = {"exact": 10_000, "peer": 1_000}
"""The number of sessions under clients that never read. The peer's loop is held for seconds with a tenth of ours."""


def cases(quick: bool) -> list[Case]:
    seconds = 1.0 if quick else 3.0
    found = [
        Case(
            f"{sessions} {subject}",
            measure,
            {"subject": subject, "sessions": sessions, "seconds": seconds},
            needs=_loops.needs("asyncio", subject),
        )
        for sessions in SIZES
        for subject in ("exact", "peer")
    ]
    found += [
        Case(
            f"flood {subject}",
            measure_flood,
            {"subject": subject, "sessions": sessions, "seconds": seconds + 1.0},
            needs=_loops.needs("asyncio", subject),
        )
        for subject, sessions in FLOODED.items()
    ]
    return found


def measure(subject: str, sessions: int, seconds: float) -> Result:
    return _loops.run("asyncio", _measure(subject, sessions, seconds))


async def _measure(subject_name: str, sessions: int, seconds: float) -> Result:
    subject = make(subject_name)
    await subject.start()
    async with opened(subject, idle(sessions)):
        await asyncio.sleep(1.2)
        calm = await lag_of(seconds)
        idle_cpu = time.process_time()
        await asyncio.sleep(seconds)
        asked_cpu = time.process_time()
        # The requests are so far apart that no answer was built for the one before.
        spaced = {"interval_s": 0.05 if sessions < 1000 else 0.5, "seconds": seconds}
        asking = await Client.start("ask", protocol=subject.protocol, path=str(subject.socket), **spaced)
        asking.go()
        trips = [1000.0 * (answered - asked) for asked, answered in await asking.result()]
        cpu_ms = 1000.0 * (time.process_time() - 2 * asked_cpu + idle_cpu) / len(trips)
        watching = await Client.start(
            "ask", protocol=subject.protocol, path=str(subject.socket), interval_s=0.2, seconds=seconds
        )
        watching.go()
        asked = await lag_of(seconds)
        await watching.result()
    await subject.close()
    return {"round_trip_ms": median(trips), "cpu_ms": cpu_ms, "round_trips_ms": trips, "lag": calm, "lag_asked": asked}


def measure_flood(subject: str, sessions: int, seconds: float) -> Result:
    return _loops.run("asyncio", _measure_flood(subject, sessions, seconds))


async def _measure_flood(subject_name: str, sessions: int, seconds: float) -> Result:
    subject = make(subject_name)
    await subject.start()
    async with opened(subject, idle(sessions)):
        await asyncio.sleep(1.2)
        calm = await lag_of(seconds / 2)
        client = await Client.start(
            "flood", protocol=subject.protocol, path=str(subject.socket), clients=FLOOD, seconds=seconds
        )
        client.go()
        flooded = await lag_of(seconds)
        await client.result()
    await subject.close()
    return {"lag": calm, "lag_flooded": flooded}


def rows(results: Results) -> list[Row]:
    found = []
    for sessions in SIZES:
        ours, peer = f"{sessions} exact", f"{sessions} peer"
        largest = sessions == SIZES[-1]
        found.append(
            Row(
                f"{sessions:,} sessions, round trip, median",
                value(results, ours, "round_trip_ms"),
                "ms",
                must=100.0 if largest else None,
                peer=value(results, peer, "round_trip_ms"),
            )
        )
        found.append(
            Row(
                f"{sessions:,} sessions, CPU of the worker for a snapshot",
                value(results, ours, "cpu_ms"),
                "ms",
                peer=value(results, peer, "cpu_ms"),
            )
        )
        found.append(
            Row(
                f"{sessions:,} sessions, lag added by 5 requests a second, p99",
                _added(results, ours, "lag_asked", "p99_ms"),
                "ms",
                must=6.0 if largest else None,
                peer=_added(results, peer, "lag_asked", "p99_ms"),
            )
        )
        found.append(
            Row(
                f"{sessions:,} sessions, longest lag during these requests",
                value(results, ours, "lag_asked", "max_ms"),
                "ms",
                peer=value(results, peer, "lag_asked", "max_ms"),
            )
        )
    for key, what, must in (("p99_ms", "p99", 6.0), ("max_ms", "longest", None)):
        peer_ms = value(results, "flood peer", "lag_flooded", key)
        of_peer = f"{figure(peer_ms, 'ms')} ({FLOODED['peer']:,} sessions)" if peer_ms is not None else None
        found.append(
            Row(
                f"10,000 sessions, {FLOOD} clients that never read, lag, {what}",
                value(results, "flood exact", "lag_flooded", key),
                "ms",
                must=must,
                peer=of_peer,
            )
        )
    return found


def _added(results: Results, case: str, during: str, key: str) -> float | None:
    with_it, without = value(results, case, during, key), value(results, case, "lag", key)
    return max(0.0, with_it - without) if with_it is not None else None
