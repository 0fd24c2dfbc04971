"""Series of snapshots, blocks and answers to waits requests of one worker, for the tests of its diagnosis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from openrtc_introspect_core import diagnose
from openrtc_introspect_core._diagnosis.cause import UNATTRIBUTED
from openrtc_introspect_core.wire import Block, Host, Location, LoopTime, SessionRow, Snapshot, Waits, WorkerInfo

Fields = Callable[[float], dict[str, Any]]
Series = tuple[list[Snapshot], list[Block]]
Watched = tuple[list[Snapshot], list[Block], list[Waits]]
"""The arguments of `diagnose`, without and with answers to waits requests."""

OF_WAITS = {
    "executor-full",
    "deadlock",
    "lock-convoy",
    "waiting-together",
    "stale-sessions",
    "threads-grow",
    "callback-flood",
    "spinning-loop",
    "lost-wakeup",
}
"""The findings for which answers to waits requests are needed: they have a module of tests of their own."""

NOW = 1000.0
"""When the last snapshot of a series is taken."""
SECONDS = 5
PLACE = Location("agents/restaurant.py", 42, "lookup_menu")


def row(session_id: str = "job-0", **fields: Any) -> SessionRow:
    """A session that is as it should be."""
    shown: dict[str, Any] = {"agent_name": "dental", "duration_s": 300.0, "cpu_s": 3.0, "steps": 15000, "tasks": 3}
    return SessionRow(session_id=session_id, **{**shown, **fields})


def series(
    *,
    worker: Fields = lambda t: {},
    sessions: Callable[[float], list[SessionRow]] | None = None,
    going_on: Callable[[float], list[Block]] = lambda t: [],
    blocks: list[Block] | None = None,
    seconds: int = SECONDS,
) -> Series:
    """A snapshot a second, t = 0 at first, of a worker of ten sessions that each use 1 % of the loop."""

    def ten(t: float) -> list[SessionRow]:
        return [row(f"job-{n}", cpu_s=3.0 + 0.01 * t, steps=15000 + int(50 * t)) for n in range(10)]

    def one(t: float) -> Snapshot:
        time = LoopTime(sessions_pct=10.0, untagged_pct=1.0, gc_pct=0.2, other_pct=2.0, idle_pct=86.8)
        host = Host(cpu_pct=30.0, cores=4, load_1m=1.0, process_cpu_pct=15.0, other_threads_pct=0.5)
        shown = {"epoch": "first", "uptime_s": 600.0 + t, "rss_mb": 200.0, "loop_time": time, "host": host}
        info = WorkerInfo(name="voice-a", pid=1, **{**shown, **worker(t)})
        rows = (sessions or ten)(t)
        taken_at = NOW - seconds + t
        return Snapshot(taken_at=taken_at, worker=info, sessions=rows, blocks_in_progress=going_on(t))

    return [one(float(t)) for t in range(seconds + 1)], blocks or []


def block(cause: str | None, ms: float, n: int = 0, **fields: Any) -> Block:
    """The n-th block, each a second before the one before it; of job-1 at PLACE unless its cause is unattributed."""
    shown: dict[str, Any] = {"seq": 100 - n, "started_at": NOW - 1.0 - n, "duration_ms": ms, "cause": cause}
    if cause not in UNATTRIBUTED:
        shown |= {"session_id": "job-1", "agent_name": "restaurant", "location": PLACE}
    return Block(**{**shown, **fields})


def several(cause: str | None, number: int, ms: float = 100.0, **fields: Any) -> list[Block]:
    return [block(cause, ms, n, **fields) for n in range(number)]


def loop_time(**fields: float | None) -> Fields:
    shown: dict[str, Any] = {"sessions_pct": 10.0, "untagged_pct": 1.0, "gc_pct": 0.2, "other_pct": 2.0}
    time = LoopTime(**{**shown, "idle_pct": 86.8, **fields})
    return lambda t: {"loop_time": time}


class Edge(NamedTuple):
    """A rule, one of its thresholds, and a series for each side of it."""

    code: str
    threshold: str
    under: Series | Watched
    over: Series | Watched
    otherwise: tuple[str, ...] = ()
    """The findings under the threshold: a single block of a second or more is always one."""


def codes(shown: Series | Watched) -> list[str]:
    return [found.code for found in diagnose(*shown)]
