"""The time for which CPU quotas keep the process's control group from running.

Each group has a quota of its own, or none. A group without one stands still as well while a group above it has used up
its quota: its `cpu.stat` then shows nothing, while its `cpu.stat.local` (Linux 6.6) counts the quotas of all groups
above, those that a container does not see too.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from .cgroup_paths import Hierarchy, read_bytes, read_fields, read_number


class Quota(NamedTuple):
    """The quota of one group."""

    processors: float
    """So many may run at a time, on average."""
    file: str
    """The file that has it."""
    stat: str
    """The file that counts the periods, and those in which it was used up."""


class Throttling(NamedTuple):
    """The quotas that apply to the process, and how to read what they did."""

    quotas: tuple[Quota, ...] = ()
    """Those of the group and the groups above it that have one."""
    local: str | None = None
    """The file that counts the throttling by any group above. None: this kernel has none."""

    def total_s(self) -> float | None:
        """Return the seconds for which the group did not run, all processors added up.

        None: no quota is seen. Raise OSError if no file can be opened now.
        """
        if self.local is not None and (total := _throttled_s(self.local)) is not None:
            return total if self.quotas or total else None
        totals = [total for quota in self.quotas if (total := _throttled_s(quota.stat)) is not None]
        return max(totals, default=None)

    def periods(self) -> list[tuple[int, int]]:
        """Return for each quota (periods, those in which it was used up). Raise as `total_s`."""
        stats = [read_fields(quota.stat) for quota in self.quotas]
        return [(stat.get(b"nr_periods", 0), stat.get(b"nr_throttled", 0)) for stat in stats]


def throttling_of(group: Hierarchy | None) -> Throttling:
    """Return the quotas that apply to a group of the controller `cpu`. Raise OSError if no file can be opened now."""
    if group is None:
        return Throttling()
    quotas = tuple(quota for level in group.levels if (quota := _quota(level, group.version)) is not None)
    local = f"{group.levels[0]}/cpu.stat.local"
    return Throttling(quotas, local if _throttled_s(local) is not None else None)


def _quota(level: str, version: int) -> Quota | None:
    if version == 1:
        file = f"{level}/cpu.cfs_quota_us"
        quota, period = read_number(file), read_number(f"{level}/cpu.cfs_period_us")
    else:
        file = f"{level}/cpu.max"
        quota = period = None
        with suppress(ValueError):  # "max 100000" has no quota, and where there is no file there is none either
            quota, period = map(int, (read_bytes(file) or b"").split())
    if quota is None or not period or quota <= 0:
        return None
    return Quota(quota / period, file, f"{level}/cpu.stat")


def _throttled_s(stat: str) -> float | None:
    fields = read_fields(stat)
    if b"throttled_usec" in fields:
        return fields[b"throttled_usec"] / 1e6
    return fields[b"throttled_time"] / 1e9 if b"throttled_time" in fields else None
