"""Sessions in groups, by host or by agent, with totals; the worst group first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from openrtc_top._model.blocks import Entry
from openrtc_top._model.rows import Row
from openrtc_top._model.trouble import count_status, longest_block, trouble
from openrtc_top._model.workers import Worker, Workers, natural

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import SessionRow

Grouping = Literal["host", "agent"]
GROUPINGS: tuple[Grouping | None, ...] = (None, "host", "agent")
"""The groupings that the key g goes through."""
THIS_HOST = ""
"""The name of the group of this machine's workers."""


@dataclass(frozen=True, slots=True)
class Group:
    """The sessions of one host or one agent."""

    name: str
    """The host's or the agent's."""
    workers: Workers
    """Those that have a session of the group; of a host, all there are."""
    sessions: tuple[SessionRow, ...]
    longest: Entry | None
    """Its block in progress that has lasted longest."""

    @property
    def gone(self) -> list[Worker]:
        """The workers that cannot be read."""
        return [worker for worker in self.workers if worker.gone is not None]

    @property
    def cpu_pct(self) -> float | None:
        """The loop time of all sessions together, percent of one loop. None: of none it is known."""
        known = [session.cpu_pct for session in self.sessions if session.cpu_pct is not None]
        return sum(known) if known else None

    @property
    def lag_p99_ms(self) -> float | None:
        """The worst of its workers. None: of none it is known."""
        infos = [worker.snapshot.worker for worker in self.workers if worker.snapshot and worker.gone is None]
        return max((info.lag_p99_ms for info in infos if info.lag_p99_ms is not None), default=None)

    @property
    def mem_mb(self) -> float:
        """The shares of all sessions together."""
        return sum(session.mem_mb for session in self.sessions)

    @property
    def blocks(self) -> int:
        return sum(session.blocks for session in self.sessions)

    @property
    def worst_ms(self) -> float | None:
        """The longest block of its sessions. None: they had none."""
        return max((session.worst_block_ms for session in self.sessions if session.blocks), default=None)

    @property
    def slowest(self) -> SessionRow | None:
        """The slow session with the longest block. None: no session is slow."""
        slow = [session for session in self.sessions if session.status == "slow"]
        return max(slow, key=lambda session: session.worst_block_ms, default=None)

    def count(self, status: str) -> int:
        """Return how many of its sessions have the status."""
        return count_status(self.sessions, status)


def host_of(worker: Worker) -> str:
    """Return the name of the group of the worker's host."""
    return worker.host or (worker.name if stands_for_host(worker) else THIS_HOST)


def stands_for_host(worker: Worker) -> bool:
    """Return whether this is no worker, but a host that cannot be reached or offers none."""
    return worker.snapshot is None and worker.pid is None and worker.host is None and worker.key == worker.name


def groups(workers: Workers, rows: Iterable[Row], by: Grouping, *, chosen: bool) -> tuple[Group, ...]:
    """Return the groups of these rows, the worst first.

    chosen: the rows were chosen by a filter, so hosts without any of them are left out.
    """
    of_key = {worker.key: worker for worker in workers}
    sessions: dict[str, list[SessionRow]] = {}
    keys: dict[str, dict[str, None]] = {}
    if by == "host":
        name_of = {key: host_of(worker) for key, worker in of_key.items()}
        for key, name in name_of.items() if not chosen else ():
            sessions.setdefault(name, [])
            keys.setdefault(name, {})[key] = None
        for key, session in rows:
            name = name_of[key]
            sessions.setdefault(name, []).append(session)
            keys.setdefault(name, {})[key] = None
    else:
        for key, session in rows:
            sessions.setdefault(session.agent_name, []).append(session)
            keys.setdefault(session.agent_name, {})[key] = None
    found = [
        _group(name, [of_key[key] for key in keys[name]], tuple(sessions[name]), by)
        for name in sorted(sessions, key=natural)
    ]
    return tuple(sorted(found, key=lambda group: _badness(group, by)))


def _group(name: str, workers: Sequence[Worker], sessions: tuple[SessionRow, ...], by: Grouping) -> Group:
    agent = None if by == "host" else name
    return Group(name, tuple(workers), sessions, longest_block(workers, agent))


def _badness(group: Group, by: Grouping) -> tuple[object, ...]:
    """Return what groups are ordered by: the lowest is the worst."""
    worst = min((trouble(worker) for worker in group.workers), default=(9,)) if by == "host" else ()
    blocked = 0 if group.longest is None else -1 - int(group.longest.lasted_ms / 1000)
    return blocked, -group.count("blocked"), worst, -group.count("slow"), -group.count("errored"), -len(group.sessions)
