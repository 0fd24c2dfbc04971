"""The memory that counts towards the limits of the process's control group.

File cache counts, and so do the kernel's own caches, but at the limit the kernel takes them back before it kills
anything. So what is used is what it cannot take back.
"""

from __future__ import annotations

from typing import NamedTuple

from .cgroup_paths import Hierarchy, read_fields, read_number

_NO_LIMIT = 1 << 60
"""In version 1 a group without a limit has the largest number of pages."""


class Limit(NamedTuple):
    """A limit of memory, in bytes, and the group that it applies to."""

    level: str
    limit: int
    file: str | None
    """None: a group above the topmost that is mounted has it."""


class Charged(NamedTuple):
    """The memory of one group at one moment, in bytes."""

    current: int
    """All that counts towards its limits."""
    anon: int
    file: int
    kernel: int
    inactive_file: int
    """The file cache that was not used lately."""
    reclaimable: int
    """The file cache and the kernel memory that the kernel can take back."""

    @property
    def used(self) -> int:
        """The bytes that the kernel cannot take back."""
        return max(0, self.current - self.reclaimable)

    @property
    def working_set(self) -> int:
        """The bytes but for the file cache that was not used lately, as Kubernetes counts them."""
        return max(0, self.current - self.inactive_file)


def limits_of(group: Hierarchy) -> list[Limit]:
    """Return the limits that are set for a group and for those above it. Raise OSError if no file can be opened now."""
    names = ("memory.max", "memory.high") if group.version == 2 else ("memory.limit_in_bytes",)
    found = []
    for level in group.levels:
        for name in names:
            limit = read_number(file := f"{level}/{name}")
            if limit is not None and limit < _NO_LIMIT:
                found.append(Limit(level, limit, file))
    if group.version == 1:  # the smallest, and of groups that are not mounted here as well
        smallest = read_fields(f"{group.levels[0]}/memory.stat").get(b"hierarchical_memory_limit", _NO_LIMIT)
        if smallest < min((each.limit for each in found), default=_NO_LIMIT):
            found.append(Limit(group.levels[0], smallest, None))
    return found


def charged_to(level: str, version: int) -> Charged | None:
    """Return the memory of a group. None: it is not counted there. Raise as `limits_of`."""
    current = read_number(f"{level}/{'memory.current' if version == 2 else 'memory.usage_in_bytes'}")
    stat = read_fields(f"{level}/memory.stat")
    if current is None or not stat:
        return None
    if version == 2:
        anon, file, inactive, active = (
            stat.get(key, 0) for key in (b"anon", b"file", b"inactive_file", b"active_file")
        )
        slab = stat.get(b"slab_reclaimable", 0)
    else:
        anon, file, inactive, active = (
            stat.get(key, 0) for key in (b"total_rss", b"total_cache", b"total_inactive_file", b"total_active_file")
        )
        slab = 0
    kernel = stat.get(b"kernel", max(0, current - anon - file))  # from Linux 5.18 on
    return Charged(current, anon, file, kernel, inactive, inactive + active + slab)


def own_level(group: Hierarchy) -> str | None:
    """Return the group that the process's memory is charged to: the first whose memory is counted. None: none is."""
    for level in group.levels:
        if charged_to(level, group.version) is not None:
            return level
    return None
