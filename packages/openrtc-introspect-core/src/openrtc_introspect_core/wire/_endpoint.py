"""Where workers' sockets live, and the rules that keep them private.

A socket carries session ids, agents and tenants, so these rules hold:
- Its directory belongs to the user, is no symbolic link, and nobody else may write to it. The
  per-user default directory is closed to others altogether (0700).
- The socket is 0600 from the moment it exists. On Linux bind() gives the file the mode of the unbound
  socket's inode (under any umask), so that mode is set before; elsewhere the directory's 0700 covers
  the moment between bind() and chmod().
- Each worker has one socket. A socket that still answers is never touched; a socket whose worker is
  gone is removed. Never deleted are files that are no sockets, and sockets outside of the default
  directory, except the one whose path was given.
- Each side checks the other's user id.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .._base import fork
from .._base.errors import ArgumentError, EndpointError
from ._peer import own_uid
from ._places import dir_inside, dirs_of_all, search_dirs, worker_dir

if sys.platform != "win32":
    import fcntl

MAX_PATH_BYTES = 107 if sys.platform == "linux" else 103
"""sun_path of sockaddr_un is 108 bytes on Linux and 104 on macOS, the closing NUL included."""

_STALE_AFTER_S = 5.0
"""A socket file younger than this that refuses connections may be between bind() and listen()."""

_TURN_WITHIN_S = 1.0
"""How long a worker waits for another that starts in the same directory."""

_NAME = re.compile(r"(?P<name>.+)-(?P<pid>\d{1,18})(?:\.\d+)?\.sock")


@dataclass(frozen=True, slots=True)
class WorkerSocket:
    """A worker's socket, as its file name describes it."""

    path: Path
    name: str
    pid: int | None
    """None: the file name has no process id."""
    owner: int | None = None
    """The user id that it belongs to. None: not determined; `discover` finds this user's only."""


def sockets_available() -> bool:
    """Return whether this platform has Unix sockets; Windows' Python has none."""
    return hasattr(socket, "AF_UNIX") and hasattr(os, "geteuid")


def discover() -> list[WorkerSocket]:
    """Return this user's workers that accept connections now, by name and pid.

    Directories that break the rules above are passed over: their files may be anyone's.
    """
    found: list[WorkerSocket] = []
    for directory in search_dirs() if sockets_available() else ():
        found += _live_in(directory)
    return sorted(found, key=lambda worker: (worker.name, worker.pid or 0, str(worker.path)))


def discover_all() -> list[WorkerSocket]:
    """Return the workers of every user, by name and pid, each with its owner.

    The same rules hold for each user as for oneself: a directory must belong to the user whose id is in
    its name and be closed to others, and a socket in it must belong to that user too. Directories that
    a user has set OPENRTC_RUNTIME_DIR or TMPDIR to are unknown to others, so they are not searched, unless
    OPENRTC_RUNTIME_DIR names one here too.

    Raises ArgumentError unless root asks.
    """
    if not sockets_available():
        return []
    if own_uid() != 0:
        raise ArgumentError(f"only root sees the workers of all users, this is user id {own_uid()}")
    found = {worker.path: worker for worker in discover()}
    for directory, owner in dirs_of_all():
        for worker in _live_in(directory, owner):
            found[worker.path] = WorkerSocket(worker.path, worker.name, worker.pid, owner)
    return sorted(found.values(), key=lambda worker: (worker.name, worker.pid or 0, str(worker.path)))


def _live_in(directory: Path, owner: int | None = None) -> list[WorkerSocket]:
    """Return the workers in a directory that follows the rules.

    Sockets that do not belong to the directory's owner do not count.
    """
    owner = own_uid() if owner is None else owner
    found: list[WorkerSocket] = []
    with contextlib.suppress(OSError):  # no directory of that user, or gone meanwhile
        check_directory(directory, private=True, owner=owner)
        paths = sorted(directory.glob("*.sock"))
        found.extend(parse_name(path) for path in paths if os.lstat(path).st_uid == owner and _state_of(path) == "live")
    return found


def socket_name(worker: str) -> str:
    """Return a worker's name as the file name of its socket spells it.

    Every character outside of A–Z a–z 0–9 . _ - becomes _.
    """
    return re.sub(r"[^A-Za-z0-9._-]", "_", worker)


def parse_name(path: Path) -> WorkerSocket:
    """Return the worker's name and pid from its socket's file name.

    If the file name has another form, it is the worker's name, and the pid is None.
    """
    match = _NAME.fullmatch(path.name)
    return WorkerSocket(path, match["name"], int(match["pid"])) if match else WorkerSocket(path, path.stem, None)


def check_path(path: Path) -> None:
    """Check that the platform takes a socket path of this length.

    Raises ArgumentError if it does not.
    """
    size = len(os.fsencode(path))
    if size > MAX_PATH_BYTES:
        raise ArgumentError(
            f"socket path {str(path)!r} is {size} bytes long; at most {MAX_PATH_BYTES} are possible: "
            "set OPENRTC_RUNTIME_DIR or socket_path to a shorter one"
        )


def open_listener(name: str, path: Path | None = None) -> tuple[socket.socket, Path]:
    """Return a listening socket for a worker, and its path.

    path: where to listen. None: under the worker's own name in the user's directory.

    Raises EndpointError or ArgumentError; then nothing is left behind.
    """
    if not sockets_available():
        raise EndpointError("serving needs Unix sockets, which this platform lacks: pass socket_path=False")
    directory = path.parent if path is not None else worker_dir()
    stem = f"{socket_name(name)}-{os.getpid()}"
    # A process may hold several introspectors of one name.
    names = [f"{stem}{suffix}.sock" for suffix in ("", *(f".{n}" for n in range(2, 100)))]
    candidates = [path] if path is not None else [directory / each for each in names]
    make_directory(directory)
    check_directory(directory, private=path is None)
    try:
        with alone_in(directory):
            if path is None:
                _remove_stale(directory)
            for candidate in candidates:
                check_path(candidate)
                state = _state_of(candidate)
                if state == "absent" or (state == "dead" and _unlink(candidate)):
                    return _listen(candidate), candidate
    except EndpointError:
        raise
    except OSError as error:  # no file descriptor left, a directory that is gone again
        raise EndpointError(f"cannot serve on socket {str(candidates[0])!r}: {error.strerror or error}") from None
    raise EndpointError(f"socket path {str(candidates[0])!r} {_TAKEN[state]}: choose another socket_path")


class _LockedDirectories:
    """The directories that this process has locked, for the moment in which a worker starts."""

    def __init__(self) -> None:
        self.descriptors: set[int] = set()
        fork.shared.append(self)

    def abandon_after_fork(self) -> None:
        """Close them in a forked child, which would keep the locks for as long as it lives."""
        while self.descriptors:
            os.close(self.descriptors.pop())


_locked = _LockedDirectories()


@contextlib.contextmanager
def alone_in(directory: Path) -> Iterator[bool]:
    """Let workers that start in one directory do so in turn. Yield whether it is this one's turn.

    A file that one of them finds dead, another may be replacing.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    _locked.descriptors.add(descriptor)
    alone = False
    try:
        deadline = time.monotonic() + _TURN_WITHIN_S
        while time.monotonic() < deadline:  # then without: any user who may list the directory can keep the lock
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                alone = True
                break
            time.sleep(0.001)
        yield alone
    finally:
        if descriptor in _locked.descriptors:  # and not in a child that was forked meanwhile
            _locked.descriptors.discard(descriptor)
            os.close(descriptor)


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(OSError):  # not possible on macOS; see the module's rules
            os.fchmod(listener.fileno(), 0o600)
        try:
            listener.bind(os.fspath(path))
        except OSError as error:
            raise EndpointError(f"cannot create socket {str(path)!r}: {error.strerror or error}") from None
        try:
            mode = os.lstat(path).st_mode
            if not stat.S_ISSOCK(mode):  # chmod would follow a link that someone has put there
                raise EndpointError(f"socket {str(path)!r} was replaced as soon as it was made: choose another path")
            if stat.S_IMODE(mode) != 0o600:  # a umask took from it
                os.chmod(path, 0o600)
            listener.listen(64)
            listener.setblocking(False)
        except EndpointError:
            raise
        except OSError as error:
            _unlink(path)
            raise EndpointError(f"cannot serve on socket {str(path)!r}: {error.strerror or error}") from None
    except BaseException:
        listener.close()
        raise
    return listener


def make_directory(directory: Path) -> None:
    """Make a directory and those above it, closed to others. Raises EndpointError."""
    missing = []
    while not os.path.lexists(directory):
        missing.append(directory)
        directory = directory.parent
    try:
        for directory in reversed(missing):
            with contextlib.suppress(FileExistsError):  # another worker was faster; the caller checks it
                os.mkdir(directory, 0o700)
                if os.lstat(directory).st_mode & 0o777 != 0o700:  # a umask took from it
                    os.chmod(directory, 0o700)
    except OSError as error:
        raise EndpointError(
            f"cannot create socket directory {str(directory)!r}: {error.strerror or error}; "
            "set OPENRTC_RUNTIME_DIR to a directory of your own, in a container to one in a volume"
        ) from None


def check_directory(directory: Path, *, private: bool, owner: int | None = None) -> None:
    """Check that a directory follows the rules above.

    private: others may not even list it. owner: the user id that it must belong to; None: this user's.

    Raises EndpointError, which names the broken rule.
    """
    owner = own_uid() if owner is None else owner
    try:
        status = os.lstat(directory)
    except OSError as error:
        raise EndpointError(f"socket directory {str(directory)!r}: {error.strerror or error}") from None
    problem, remedy = None, ""
    if stat.S_ISLNK(status.st_mode):
        problem = "is a symbolic link; a real directory is required"
    elif not stat.S_ISDIR(status.st_mode):
        problem = "is not a directory"
    elif status.st_uid != owner:
        problem = f"belongs to uid {status.st_uid}; it must belong to uid {owner}"
    elif status.st_mode & (0o077 if private else 0o022):
        mode = stat.S_IMODE(status.st_mode)
        problem, remedy = f"has mode {mode:04o}, open to others; 0700 is required", "chmod 700 it, or "
    if problem is not None:
        another = f"{str(inside)!r}" if (inside := dir_inside(directory)) else "another"
        raise EndpointError(
            f"socket directory {str(directory)!r} {problem}: {remedy}set OPENRTC_RUNTIME_DIR to {another}"
        )


def _state_of(path: Path) -> str:
    """Return the state of a path: "absent", "live", "dead", or one of _TAKEN.

    "live": it answers. "dead": nothing serves it.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return "absent"
    if not stat.S_ISSOCK(status.st_mode):
        return "foreign"
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        return "closed"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.2)
        code = probe.connect_ex(os.fspath(path))
    if code == errno.ECONNREFUSED:
        age_s = time.time() - status.st_mtime
        return "young" if abs(age_s) <= _STALE_AFTER_S else "dead"  # a socket from the future: the clock was set back
    if code == errno.ENOENT:
        return "absent"
    return "live" if code == 0 or code in _BUSY else "closed"


def _remove_stale(directory: Path) -> None:
    for path in directory.glob("*.sock"):
        if _state_of(path) == "dead":
            _unlink(path)


_TAKEN = {
    "live": "is served by a worker that answers",
    "young": "was made a moment ago and does not answer yet",
    "dead": "is left over and cannot be removed",
    "closed": "is a socket that does not take connections from here",
    "foreign": "is no socket and is left alone",
}

_BUSY = (errno.EAGAIN, errno.EINPROGRESS, errno.ETIMEDOUT)
"""A worker listens there, and clients before us still wait to be accepted."""


def _unlink(path: Path) -> bool:
    with contextlib.suppress(OSError):  # such as a file system that became read-only
        path.unlink()
    return not os.path.lexists(path)


def file_identity(file: Path | int) -> tuple[int, int] | None:
    """Return what distinguishes a file from a later one of the same name, or of the same descriptor.

    None: there is no file.
    """
    try:
        status = os.fstat(file) if isinstance(file, int) else os.lstat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino
