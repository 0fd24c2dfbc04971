"""The directories of the process's control groups (cgroups), in version 2, version 1, or both at once (hybrid).

Each controller (cpu, memory, …) has one hierarchy of directories. A limit may be set at every level of it, so a group
is found with all groups above it. From inside a cgroup namespace, as in a container, those above the namespace's root
do not show.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

MAX_BYTES = 64 * 1024
"""No file of a group that is read here is longer."""

_CONTROLLERS = ("cpu", "cpuset", "memory")


class Hierarchy(NamedTuple):
    """The process's group of one controller, and the groups above it."""

    version: int
    """1 or 2: they name their files differently."""
    levels: tuple[str, ...]
    """The directories, the process's own first, up to the topmost that is mounted."""


class CgroupPaths:
    """The groups of this process. `refresh` finds them again if the process was moved.

    root: the directory that has `proc` and `sys`.
    """

    def __init__(self, root: str = "/") -> None:
        self._root = root.rstrip("/")
        self._membership: bytes | None = None
        self.of: dict[str, Hierarchy] = {}
        """By controller; "unified" is the group of version 2, whatever controllers it has. Replaced as a whole."""

    def refresh(self) -> None:
        """Find the groups, if the process's membership has changed. Raise OSError if no file can be opened now."""
        membership = read_bytes(f"{self._root}/proc/self/cgroup") or b""
        if membership != self._membership:
            self.of = dict(self._find(membership)) if membership else {}
            self._membership = membership

    def _find(self, membership: bytes) -> Iterator[tuple[str, Hierarchy]]:
        paths = {}
        for line in os.fsdecode(membership).splitlines():
            _, controllers, path = line.split(":", 2)
            paths.update(dict.fromkeys(controllers.split(","), path))
        mounts = list(_mounts(f"{self._root}/proc/self/mountinfo"))
        for controller in _CONTROLLERS:
            # A controller that has a hierarchy of version 1 is in none of version 2.
            version, name = (1, controller) if controller in paths else (2, "")
            if name in paths and (levels := self._levels(paths[name], name, mounts)):
                yield controller, Hierarchy(version, levels)
        if "" in paths and (levels := self._levels(paths[""], "", mounts)):
            yield "unified", Hierarchy(2, levels)

    def _levels(self, path: str, controller: str, mounts: list[_Mount]) -> tuple[str, ...]:
        """Return the directories of a group and those above it. Empty: it is not mounted here."""
        for mount in mounts:
            below = _below(path, mount.root)
            if controller not in mount.controllers or below is None:
                continue
            top = self._root + mount.point.rstrip("/")
            if os.path.isdir(top + below):
                names = below.split("/")
                return tuple(top + "/".join(names[:count]) for count in range(len(names), 0, -1))
        return ()


class _Mount(NamedTuple):
    root: str
    """The group that is mounted, by its path in the hierarchy."""
    point: str
    controllers: tuple[str, ...]
    """The options of a mount of version 1, which name its controllers; `("",)` is one of version 2."""


def _mounts(mountinfo: str) -> Iterator[_Mount]:
    with suppress(FileNotFoundError), open(mountinfo, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields, _, rest = line.partition(" - ")
            kind, _, options = rest.strip().split(" ", 2)
            if kind in ("cgroup", "cgroup2"):
                root, point = (_unescaped(field) for field in fields.split(" ")[3:5])
                yield _Mount(root, point, tuple(options.split(",")) if kind == "cgroup" else ("",))


def _unescaped(field: str) -> str:
    """Return a field of mountinfo, where blanks and backslashes are written in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _below(path: str, root: str) -> str | None:
    """Return the path from a mounted group to another: "" if they are the same, None if it is not below."""
    path, root = path.rstrip("/"), root.rstrip("/")
    if path != root and not path.startswith(f"{root}/"):
        return None
    below = path[len(root) :]
    return None if ".." in below.split("/") else below


def read_bytes(path: str) -> bytes | None:
    """Return what a small file has. None: there is none, or it cannot be read.

    Raise OSError if no file descriptor is left: that says nothing about the file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, MAX_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return None


def read_fields(path: str) -> dict[bytes, int]:
    """Return the numbers of a file of `key value` lines. Empty: there is none. Raise as `read_bytes`."""
    fields = {}
    for line in (read_bytes(path) or b"").splitlines():
        key, _, value = line.partition(b" ")
        try:
            fields[key] = int(value)
        except ValueError:  # not by `suppress`, which takes as long as the rest of the line
            continue
    return fields


def read_number(path: str) -> int | None:
    """Return the number that a file begins with. None: there is none, or it is "max". Raise as `read_bytes`."""
    with suppress(ValueError, IndexError):
        return int((read_bytes(path) or b"").split()[0])
    return None
