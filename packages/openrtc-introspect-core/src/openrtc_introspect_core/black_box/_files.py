"""Where black boxes are, and the rules that keep them private.

A box has what a socket shows, so the rules of sockets hold (`wire/_endpoint`):
- Its directory belongs to the user, is no symbolic link, and nobody else may write to it.
- It is a regular file of that user, 0600 from the moment it exists, and is opened only if it still is.
- A worker holds a lock on its box for as long as it lives. A box that can be locked is a dead worker's.
- Nothing but a dead worker's box is ever moved or removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .._base.errors import ArgumentError, BoxError, EndpointError
from ..wire._endpoint import (
    alone_in,
    check_directory,
    file_identity,
    make_directory,
    parse_name,
    socket_name,
    sockets_available,
)
from ..wire._peer import own_uid
from ..wire._places import dirs_of_all, search_dirs, worker_dir
from ._layout import FILE_BYTES, MAGIC, is_box

if sys.platform != "win32":
    import fcntl

KEEP_DEAD_S = 24 * 3600.0
"""Seconds for which a dead worker's box is kept after its last record."""
MAX_DEAD = 64
"""Dead workers' boxes that are kept in a directory, the latest ones."""

_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


class BoxFile(NamedTuple):
    """A worker's black box, as its file name describes it."""

    path: Path
    name: str
    pid: int | None
    """None: the file name has no process id."""
    owner: int | None = None
    """The user id that it belongs to. None: not determined; `find_boxes` finds this user's only."""


def box_path(socket: Path) -> Path:
    """Return the path of the box of the worker that serves at this socket."""
    name = socket.name
    return socket.with_name((name.removesuffix(".sock") if name.endswith(".sock") else name) + ".box")


def find_boxes(all_users: bool = False) -> list[BoxFile]:
    """Return this user's boxes, of live and of dead workers, by name and pid.

    all_users: those of every user, each with its owner, as `discover_all` finds workers.

    Directories that break the rules above are passed over. Raises ArgumentError if all users' are asked for, unless
    root asks.
    """
    if not sockets_available():
        return []
    places: list[tuple[Path, int | None]] = [(directory, None) for directory in search_dirs()]
    if all_users:
        if own_uid() != 0:
            raise ArgumentError(f"only root sees the workers of all users, this is user id {own_uid()}")
        places += dirs_of_all()
    found = {box.path: box for directory, owner in places for box in _boxes_in(directory, owner)}
    return sorted(found.values(), key=lambda box: (box.name, box.pid or 0, str(box.path)))


def _boxes_in(directory: Path, owner: int | None) -> Iterator[BoxFile]:
    with contextlib.suppress(OSError):  # no directory of that user, or gone meanwhile
        check_directory(directory, private=True, owner=owner)
        for path in sorted(directory.glob("*.box")):
            if os.lstat(path).st_uid == (own_uid() if owner is None else owner):
                parsed = parse_name(path.with_suffix(".sock"))
                yield BoxFile(path, parsed.name, parsed.pid, owner)


def open_box(path: Path, owner: int | None = None) -> tuple[int, os.stat_result]:
    """Open a box for reading, if it and its directory follow the rules above. Return its descriptor and its status.

    owner: the user id that it must belong to. None: this user's; for root, anyone's.

    Raises BoxError, with the path.
    """
    try:
        status = os.lstat(path)
        if owner is None:
            owner = status.st_uid if own_uid() == 0 else own_uid()
        check_directory(path.parent, private=False, owner=owner)
        _check_file(status, owner)  # before it is opened: opening some other file may do something
        descriptor = os.open(path, _READ)
    except (EndpointError, BoxError) as error:
        raise BoxError(f"black box {str(path)!r}: {error}") from None
    except (OSError, ValueError) as error:
        raise BoxError(f"black box {str(path)!r}: {getattr(error, 'strerror', None) or error}") from None
    try:
        status = os.fstat(descriptor)
        _check_file(status, owner)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, (BoxError, OSError)):
            raise BoxError(f"black box {str(path)!r}: {error}") from None
        raise
    return descriptor, status


def _check_file(status: os.stat_result, owner: int) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise BoxError("is a symbolic link; a regular file is required")
    if not stat.S_ISREG(status.st_mode):
        raise BoxError("is no regular file")
    if status.st_uid != owner:
        raise BoxError(f"belongs to uid {status.st_uid}; it must belong to uid {owner}")
    if stat.S_IMODE(status.st_mode) & ~0o600:
        raise BoxError(f"has mode {stat.S_IMODE(status.st_mode):04o}, open to others; 0600 is required")


def worker_lives(descriptor: int) -> bool:
    """Return whether the worker that writes this open box is alive. Raises OSError if files cannot be locked here."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def create_box(name: str, socket: Path | None) -> tuple[int, Path]:
    """Make the box of a worker of this name, empty and locked. Return its descriptor and its path.

    socket: the worker's. None: it serves none, and the box gets a name of its own in the user's directory.

    Raises BoxError or OSError; then nothing is left behind.
    """
    if socket is not None:
        candidates = [box_path(socket)]
    else:
        directory = worker_dir()
        make_directory(directory)
        check_directory(directory, private=True)
        stem = f"{socket_name(name)}-{os.getpid()}"
        candidates = [directory / f"{stem}{suffix}.box" for suffix in ("", *(f".{n}" for n in range(2, 100)))]
    with alone_in(candidates[0].parent) as alone:
        if not alone:
            raise BoxError(f"another process locks the directory {str(candidates[0].parent)!r}")
        for path in candidates:
            if _make_room(path):
                return _create(path), path
    raise BoxError(f"{str(candidates[0])!r} is there already, and is no dead worker's")


def _make_room(path: Path) -> bool:
    """Move the box of a dead worker aside, which had this one's name and process id: in a container it often has."""
    state, status = _state_of(path)
    if state != "dead" or status is None:
        return state == "absent"
    number, stem = int(status.st_mtime), re.sub(r"(-\d+)\.\d+$", r"\1", path.stem)  # the time takes its number's place
    while os.path.lexists(aside := path.with_name(f"{stem}.{number}.box")):
        number += 1
    path.rename(aside)
    return True


def _create(path: Path) -> int:
    # It gets its name once it is locked: a reader never takes a box that is being made for a dead worker's.
    unnamed = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        unnamed.unlink()  # of a worker that was killed right here
    descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o600:  # a umask took from it
            os.fchmod(descriptor, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, FILE_BYTES)
        unnamed.rename(path)
    except BaseException:
        os.close(descriptor)
        unnamed.unlink(missing_ok=True)
        raise
    return descriptor


def _state_of(path: Path) -> tuple[str, os.stat_result | None]:
    """Return ("absent", "live", "dead" or "foreign", the status of what is there)."""
    try:
        descriptor, status = open_box(path, own_uid())
    except BoxError:
        return ("foreign" if os.path.lexists(path) else "absent"), None
    try:
        if not is_box(os.pread(descriptor, len(MAGIC), 0)):
            return "foreign", status
        return ("live" if worker_lives(descriptor) else "dead"), status
    finally:
        os.close(descriptor)


def remove_dead(path: Path) -> bool:
    """Remove a dead worker's box. Return False, and leave the file alone, if it is anything else.

    Called while `alone_in` its directory.
    """
    state, status = _state_of(path)
    if state != "dead" or status is None or file_identity(path) != (status.st_dev, status.st_ino):
        return False
    path.unlink()
    return True


def remove_old(directory: Path) -> None:
    """Remove the boxes of workers that died more than a day ago, and all but the 64 latest of dead workers.

    Raises OSError if the directory cannot be read.
    """
    with alone_in(directory) as alone:
        if not alone:  # the next worker that starts will
            return
        dead: list[tuple[float, Path]] = []
        for path in directory.glob("*.box"):
            with contextlib.suppress(OSError):
                state, status = _state_of(path)
                if state == "dead" and status is not None:
                    dead.append((status.st_mtime, path))
        dead.sort(reverse=True)
        now = time.time()
        for number, (written_at, path) in enumerate(dead):
            if number >= MAX_DEAD or now - written_at > KEEP_DEAD_S:
                with contextlib.suppress(OSError):
                    remove_dead(path)
