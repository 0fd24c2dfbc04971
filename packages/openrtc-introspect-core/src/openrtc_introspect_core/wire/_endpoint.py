"""Where workers' sockets live, and the rules that keep them private.

A socket carries session ids, agents and tenants, so:
- its directory belongs to the user, is no symbolic link, and nobody else may write to it; the
  per-user default one is closed to others altogether (0700);
- the socket is 0600 from the moment it exists: on Linux the mode of the unbound socket's inode is
  what bind() gives the file (under any umask), so it is set before; elsewhere the directory's 0700
  covers the moment between bind() and chmod();
- one socket per worker; a socket that still answers is never touched, one whose worker is gone is
  cleaned up; anything that is no socket, and any socket outside of the default directory but the
  one asked for, is never deleted;
- each side checks the other's uid.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .._errors import ArgumentError, EndpointError

if sys.platform != "win32":
    import fcntl
    import termios

MAX_PATH_BYTES = 107 if sys.platform == "linux" else 103
"""sun_path of sockaddr_un is 108 bytes on Linux and 104 on macOS, the closing NUL included."""

_STALE_AFTER_S = 5.0
"""A socket file younger than this that refuses connections may be between bind() and listen()."""

_TURN_WITHIN_S = 1.0
"""How long a worker waits for another that starts in the same directory."""

_NAME = re.compile(r"(?P<name>.+)-(?P<pid>\d{1,18})(?:\.\d+)?\.sock")


@dataclass(frozen=True, slots=True)
class WorkerSocket:
    """A worker's socket as its file name tells it."""

    path: Path
    name: str
    pid: int | None
    """None: the file name does not tell."""
    owner: int | None = None
    """The user id it belongs to. None: it was not looked up, it is this user's own."""


def sockets_available() -> bool:
    """Whether this platform has what serving needs (Windows' Python has no Unix sockets)."""
    return hasattr(socket, "AF_UNIX") and hasattr(os, "geteuid")


def _uid() -> int:
    return os.geteuid()


def worker_dir() -> Path:
    """The directory a worker of this user puts its socket in."""
    if own := os.environ.get("OPENRTC_RUNTIME_DIR"):
        return Path(own)
    xdg = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(xdg) if xdg and os.path.isdir(xdg) else Path(tempfile.gettempdir())
    return base / f"openrtc-{_uid()}"


def search_dirs() -> list[Path]:
    """Every directory a worker of this user may have chosen: it need not share our environment."""
    name = f"openrtc-{_uid()}"
    places = [
        worker_dir(),
        Path(f"/run/user/{_uid()}") / name,
        Path(tempfile.gettempdir()) / name,
        Path("/tmp") / name,
    ]
    return list(dict.fromkeys(places))


def discover() -> list[WorkerSocket]:
    """This user's workers whose sockets accept connections now, by name and pid.

    Directories that break the rules above are passed over: what is in them may be anyone's.
    """
    found: list[WorkerSocket] = []
    for directory in search_dirs() if sockets_available() else ():
        found += _live_in(directory)
    return sorted(found, key=lambda worker: (worker.name, worker.pid or 0, str(worker.path)))


def discover_all() -> list[WorkerSocket]:
    """The workers of every user, by name and pid, each with its owner. Raises ArgumentError unless root asks.

    The same rules hold for each user as for oneself: a directory must belong to the user whose id is in
    its name and be closed to others, and a socket in it must belong to that user too. Directories that
    a user has set OPENRTC_RUNTIME_DIR or TMPDIR to are not known to others, and so not looked at.
    """
    if not sockets_available():
        return []
    if _uid() != 0:
        raise ArgumentError(f"the workers of all users are for root to see, this is user id {_uid()}")
    found = {worker.path: worker for worker in discover()}
    for directory in _all_dirs():
        owner = int(directory.name.removeprefix("openrtc-"))
        for worker in _live_in(directory, owner):
            found[worker.path] = WorkerSocket(worker.path, worker.name, worker.pid, owner)
    return sorted(found.values(), key=lambda worker: (worker.name, worker.pid or 0, str(worker.path)))


def _all_dirs() -> list[Path]:
    """The default directories of all users, as their names claim."""
    bases = [*Path("/run/user").glob("*"), Path(tempfile.gettempdir()), Path("/tmp")]
    found: dict[Path, None] = {}
    for base in bases:
        with contextlib.suppress(OSError):
            names = [name for name in os.listdir(base) if re.fullmatch(r"openrtc-\d{1,10}", name)]
            found.update(dict.fromkeys(base / name for name in sorted(names)))
    return list(found)


def _live_in(directory: Path, owner: int | None = None) -> list[WorkerSocket]:
    """The workers of a directory that follows the rules; of another user's, those that are that user's."""
    owner = _uid() if owner is None else owner
    found: list[WorkerSocket] = []
    with contextlib.suppress(OSError):  # it is none of theirs, or gone meanwhile
        _check_directory(directory, private=True, owner=owner)
        paths = sorted(directory.glob("*.sock"))
        found.extend(parse_name(path) for path in paths if os.lstat(path).st_uid == owner and _state_of(path) == "live")
    return found


def parse_name(path: Path) -> WorkerSocket:
    """The worker's name and pid from a socket's file name; the bare name where it has another form."""
    match = _NAME.fullmatch(path.name)
    return WorkerSocket(path, match["name"], int(match["pid"])) if match else WorkerSocket(path, path.stem, None)


def check_path(path: Path) -> None:
    """Raises ArgumentError where a socket path is longer than the platform takes."""
    size = len(os.fsencode(path))
    if size > MAX_PATH_BYTES:
        raise ArgumentError(
            f"socket path {str(path)!r} is {size} bytes long; at most {MAX_PATH_BYTES} are possible: "
            "set OPENRTC_RUNTIME_DIR or socket_path to a shorter one"
        )


def open_listener(name: str, path: Path | None = None) -> tuple[socket.socket, Path]:
    """A listening socket for a worker: at `path`, else under its own name in the user's directory.

    Raises EndpointError or ArgumentError; then nothing is left behind.
    """
    if not sockets_available():
        raise EndpointError("serving needs Unix sockets, which this platform lacks: pass socket_path=False")
    directory = path.parent if path is not None else worker_dir()
    stem = f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}-{os.getpid()}"
    # A process may hold several introspectors of one name.
    names = [f"{stem}{suffix}.sock" for suffix in ("", *(f".{n}" for n in range(2, 100)))]
    candidates = [path] if path is not None else [directory / each for each in names]
    _make_directory(directory)
    _check_directory(directory, private=path is None)
    try:
        with _alone_in(directory):
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


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Workers that start in one directory do so in turn: what one finds dead, another may be replacing."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        deadline = time.monotonic() + _TURN_WITHIN_S
        while time.monotonic() < deadline:  # then without: who may list the directory can keep the lock
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.001)
        yield
    finally:
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


def _make_directory(directory: Path) -> None:
    missing = []
    while not os.path.lexists(directory):
        missing.append(directory)
        directory = directory.parent
    try:
        for directory in reversed(missing):
            with contextlib.suppress(FileExistsError):  # another worker was faster; it is checked yet
                os.mkdir(directory, 0o700)
                if os.lstat(directory).st_mode & 0o777 != 0o700:  # a umask took from it
                    os.chmod(directory, 0o700)
    except OSError as error:
        raise EndpointError(
            f"cannot create socket directory {str(directory)!r}: {error.strerror or error}; "
            "set OPENRTC_RUNTIME_DIR to a directory of your own"
        ) from None


def _check_directory(directory: Path, *, private: bool, owner: int | None = None) -> None:
    owner = _uid() if owner is None else owner
    try:
        status = os.lstat(directory)
    except OSError as error:
        raise EndpointError(f"socket directory {str(directory)!r}: {error.strerror or error}") from None
    problem = None
    if stat.S_ISLNK(status.st_mode):
        problem = "is a symbolic link; a real directory is required"
    elif not stat.S_ISDIR(status.st_mode):
        problem = "is not a directory"
    elif status.st_uid != owner:
        problem = f"belongs to uid {status.st_uid}; it must belong to uid {owner}"
    elif status.st_mode & (0o077 if private else 0o022):
        mode = stat.S_IMODE(status.st_mode)
        problem = f"has mode {mode:04o}, open to others; 0700 is required: chmod 700 it"
    if problem is not None:
        raise EndpointError(f"socket directory {str(directory)!r} {problem}, or set OPENRTC_RUNTIME_DIR to another")


def _state_of(path: Path) -> str:
    """ "absent", "live" (it answers), "dead" (nobody serves it), or one of _TAKEN."""
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
        return "young" if abs(age_s) <= _STALE_AFTER_S else "dead"  # one from the future: the clock was set back
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
"""Someone listens, but has yet to accept those before us."""


def _unlink(path: Path) -> bool:
    with contextlib.suppress(OSError):  # a file system that became read-only, for one
        path.unlink()
    return not os.path.lexists(path)


def file_identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another that has taken its name since; None where there is no file."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def peer_uid(connection: socket.socket) -> int | None:
    """The uid of the process at the other end; None where the platform does not tell."""
    if hasattr(socket, "SO_PEERCRED"):
        size = struct.calcsize("3i")
        _pid, uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        return int(uid)
    if sys.platform == "darwin":
        local_peercred, xucred = 1, "IIh16I"  # <sys/un.h>, <sys/ucred.h>
        data = connection.getsockopt(0, local_peercred, struct.calcsize(xucred))
        return int(struct.unpack_from("II", data)[1])
    return None


def may_connect(uid: int | None) -> bool:
    """Whether a peer may read this worker: its own user and root may; 0600 keeps others off already."""
    return uid is None or uid in (0, _uid())


def may_serve(uid: int | None) -> bool:
    """Whether to believe what a server of this uid says: our own, root's, and for root everyone's."""
    return may_connect(uid) or _uid() == 0


def unread_bytes(connection: socket.socket) -> int:
    """Memory that the peer's unread messages take; 0 too where the platform does not tell."""
    if sys.platform != "linux":
        return 0
    (size,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))
    return int(size)
