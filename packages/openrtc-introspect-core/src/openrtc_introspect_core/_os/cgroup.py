"""The limits of the process's control group, and what counts towards them, read every two seconds."""

from __future__ import annotations

import os
from contextlib import suppress

from .._base.units import MIB
from ..wire._messages import Cgroup
from .cgroup_memory import Charged, Limit, charged_to, limits_of, own_level
from .cgroup_paths import CgroupPaths, Hierarchy, read_bytes, read_fields
from .cgroup_throttling import Throttling, throttling_of

LIMITS_EVERY_S = 10.0
"""Limits of a running group hardly ever change: they are read less often than what counts towards them."""


class CgroupReader:
    """The reader of one process. Its methods are called on one thread.

    cores: the processors of the machine.
    """

    def __init__(self, paths: CgroupPaths, cores: int) -> None:
        self._paths = paths
        self._cores = cores
        self._of: dict[str, Hierarchy] | None = None
        self._limits_due = float("-inf")
        self.throttling = Throttling()
        """The quotas at the last reading. Replaced as a whole."""
        self._cpu_set: tuple[int, str] | None = None
        self._limits: list[Limit] = []
        self._charged_to: str | None = None
        self._periods: list[tuple[int, int]] | None = None
        self._throttled_s: tuple[float, float | None] = (0.0, None)
        """The total so far, and the kernel's at the last reading."""

    def read(self, now: float) -> Cgroup | None:
        """Return the figures of now. None: no group of the process is mounted here.

        now: clock reading. Raise OSError if no file can be opened now.
        """
        self._paths.refresh()
        groups = self._paths.of
        if groups is not self._of or now >= self._limits_due:
            self._find_limits(groups, moved=groups is not self._of)
            self._of, self._limits_due = groups, now + LIMITS_EVERY_S
        if not groups:
            return None
        limit, limit_file = self._cpu_limit()
        nearest, charged = self._nearest(groups.get("memory"))
        return Cgroup(
            cpu_limit=limit,
            cpu_limit_file=_text(limit_file),
            cpu_throttled_pct=self._throttled_pct(),
            cpu_throttled_s=self._throttled_so_far(),
            cpu_pressure_pct=_pressure_pct(groups, "cpu"),
            memory_limit_mb=nearest.limit / MIB if nearest is not None else None,
            memory_limit_file=_text(nearest.file) if nearest is not None else None,
            memory_used_mb=charged.used / MIB if charged is not None else None,
            memory_working_set_mb=charged.working_set / MIB if charged is not None else None,
            memory_current_mb=charged.current / MIB if charged is not None else None,
            anon_mb=charged.anon / MIB if charged is not None else None,
            file_mb=charged.file / MIB if charged is not None else None,
            kernel_mb=charged.kernel / MIB if charged is not None else None,
            memory_pressure_pct=_pressure_pct(groups, "memory"),
            oom_kills=self._oom_kills(groups.get("memory")),
        )

    def _find_limits(self, groups: dict[str, Hierarchy], *, moved: bool) -> None:
        throttling = throttling_of(groups.get("cpu"))
        if moved or throttling != self.throttling:
            self._periods, self._throttled_s = None, (self._throttled_s[0], None)
        self.throttling = throttling
        self._cpu_set = _cpu_set(groups.get("cpuset"))
        memory = groups.get("memory")
        self._limits = limits_of(memory) if memory is not None else []
        self._charged_to = own_level(memory) if memory is not None else None

    # --- CPU -------------------------------------------------------------------------------------

    def _cpu_limit(self) -> tuple[float | None, str | None]:
        limits: list[tuple[float, str]] = [(quota.processors, quota.file) for quota in self.throttling.quotas]
        if self._cpu_set is not None and self._cpu_set[0] < self._cores:
            limits.append(self._cpu_set)
        return min(limits, default=(None, None))

    def _throttled_pct(self) -> float | None:
        before, self._periods = self._periods, self.throttling.periods()
        if not before:
            return None
        increases = [
            (periods - old, throttled - old_throttled)
            for (periods, throttled), (old, old_throttled) in zip(self._periods, before, strict=True)
        ]
        return max(100.0 * throttled / periods if periods > 0 else 0.0 for periods, throttled in increases)

    def _throttled_so_far(self) -> float | None:
        so_far, before = self._throttled_s
        total = self.throttling.total_s()
        if total is not None and before is not None:
            so_far += max(0.0, total - before)
        self._throttled_s = so_far, total
        return so_far if total is not None else None

    # --- memory ----------------------------------------------------------------------------------

    def _nearest(self, memory: Hierarchy | None) -> tuple[Limit | None, Charged | None]:
        """Return the limit with the least left, and the memory of its group; without a limit that of the own group."""
        if memory is None:
            return None, None
        levels = dict.fromkeys(limit.level for limit in self._limits)
        charged = {level: each for level in levels if (each := charged_to(level, memory.version)) is not None}
        known = [limit for limit in self._limits if limit.level in charged]
        if known:
            nearest = min(known, key=lambda limit: limit.limit - charged[limit.level].used)
            return nearest, charged[nearest.level]
        return None, charged_to(self._charged_to, memory.version) if self._charged_to is not None else None

    def _oom_kills(self, memory: Hierarchy | None) -> int | None:
        if memory is None or self._charged_to is None:
            return None
        name = "memory.events" if memory.version == 2 else "memory.oom_control"
        return read_fields(f"{self._charged_to}/{name}").get(b"oom_kill")


def _text(file: str | None) -> str | None:
    """Return a file's name for the wire, which is in UTF-8: names of groups need not be."""
    return os.fsencode(file).decode("utf-8", "replace") if file is not None else None


def _cpu_set(group: Hierarchy | None) -> tuple[int, str] | None:
    """Return how many processors the group may run on, and the file that says so. None: not known."""
    if group is None:
        return None
    for level in group.levels:
        file = f"{level}/{'cpuset.cpus.effective' if group.version == 2 else 'cpuset.effective_cpus'}"
        with suppress(ValueError):
            spans = [span.split(b"-") for span in (read_bytes(file) or b"").strip().split(b",")]
            return sum(int(span[-1]) - int(span[0]) + 1 for span in spans), file
    return None


def _pressure_pct(groups: dict[str, Hierarchy], resource: str) -> float | None:
    """Return the pressure of the last ten seconds. None: it is not known, as of groups of version 1 alone."""
    group = groups.get("unified")
    if group is None:
        return None
    first, _, _ = (read_bytes(f"{group.levels[0]}/{resource}.pressure") or b"").partition(b"\n")
    with suppress(ValueError):
        return float(first.partition(b"avg10=")[2].partition(b" ")[0])
    return None
