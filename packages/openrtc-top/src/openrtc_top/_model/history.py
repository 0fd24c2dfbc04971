"""The last minute of each session: loop time and memory, second by second.

A worker may have ten thousand sessions, so a second is kept as three flat columns, and seconds with the same
sessions share the ids.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Snapshot

HISTORY_S = 60

Points = tuple[tuple[int, float], ...]
"""Seconds of the worker's clock, and a value for each that is known; oldest first."""


@dataclass(frozen=True, slots=True)
class Second:
    """One second of a worker's clock: the loop time and memory of its sessions."""

    second: int
    ids: tuple[str, ...]
    cpu: array[float]
    """Percent; nan: not known."""
    mem: array[float]
    """MB."""


def extended(trail: tuple[Second, ...], snapshot: Snapshot) -> tuple[Second, ...]:
    """Return the trail with this snapshot.

    Of several within a second the first one counts.
    """
    second = int(snapshot.taken_at)
    if trail and trail[-1].second == second:
        return trail
    sessions = snapshot.sessions
    ids = tuple([session.session_id for session in sessions])
    if trail and trail[-1].ids == ids:
        ids = trail[-1].ids
    unknown = math.nan
    cpu = array("f", [unknown if session.cpu_pct is None else session.cpu_pct for session in sessions])
    mem = array("f", [session.mem_mb for session in sessions])
    kept = [past for past in trail if second - HISTORY_S < past.second < second]
    return (*kept, Second(second, ids, cpu, mem))


def of_session(trail: tuple[Second, ...], session_id: str) -> tuple[Points, Points]:
    """Return a session's loop time, percent, and its memory, MB, second by second."""
    cpu, mem = [], []
    ids: tuple[str, ...] | None = None
    index: int | None = None
    for past in trail:
        if past.ids is not ids:
            ids = past.ids
            index = ids.index(session_id) if session_id in ids else None
        if index is None:
            continue
        if not math.isnan(past.cpu[index]):
            cpu.append((past.second, past.cpu[index]))
        mem.append((past.second, past.mem[index]))
    return tuple(cpu), tuple(mem)
