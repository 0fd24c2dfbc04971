"""The limits of a worker's memory: the pool's, its control group's, and the machine's.

Each limit has a count of its own. The pool counts the resident memory of its process, a control group what the kernel
cannot take back from any of its processes, the machine what is not available to programs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..wire._messages import WorkerInfo

POOL, CGROUP, HOST = "limit", "cgroup limit", "host"


class MemoryLimit(NamedTuple):
    """A limit, and how much of it is used."""

    name: str
    """POOL, CGROUP or HOST: the name that is shown."""
    used_mb: float
    limit_mb: float

    @property
    def left_mb(self) -> float:
        """The megabytes that are left; 0 at the limit and above it."""
        return max(0.0, self.limit_mb - self.used_mb)

    @property
    def used_pct(self) -> float:
        """The part that is used, in percent; above 100 if the limit is exceeded."""
        return 100.0 * (self.used_mb / self.limit_mb)


def memory_limits(worker: WorkerInfo) -> list[MemoryLimit]:
    """Return the limits that are known and apply to a worker, the one with the least left first."""
    known = []
    if worker.memory_limit_mb > 0.0:
        known.append(MemoryLimit(POOL, worker.rss_mb, worker.memory_limit_mb))
    group, host = worker.cgroup, worker.host
    if group is not None and group.memory_limit_mb and group.memory_used_mb is not None:
        known.append(MemoryLimit(CGROUP, group.memory_used_mb, group.memory_limit_mb))
    if host.memory_mb and host.memory_available_mb is not None:
        known.append(MemoryLimit(HOST, host.memory_mb - host.memory_available_mb, host.memory_mb))
    return sorted((limit for limit in known if limit.limit_mb > 0.0), key=lambda limit: limit.left_mb)


def own_limit(worker: WorkerInfo) -> MemoryLimit | None:
    """Return the limit with the least left of those that are set for the worker. None: none is, or it is not known."""
    return next((limit for limit in memory_limits(worker) if limit.name != HOST), None)
