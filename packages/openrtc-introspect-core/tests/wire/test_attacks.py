"""Another user may write where the worker has its directory; these tests show what that user can do.

The other user is real: a process that has given up root, so these tests need root to be run.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrtc_introspect_core import ConnectionFailed, EndpointError, read_snapshot
from openrtc_introspect_core.wire import _endpoint, discover
from openrtc_introspect_core.wire._endpoint import open_listener

root_only = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become someone else"
)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="Linux takes the mode from the unbound socket")

# Everything is imported while it is still root: someone else may not be able to read it.
_GIVE_UP_ROOT = """
import encodings.idna, os, socket, sys, time
from pathlib import Path
from openrtc_introspect_core import Introspector, read_snapshot
from openrtc_introspect_core.wire import discover
from openrtc_introspect_core.wire._endpoint import open_listener
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
place = Path(sys.argv[1])
"""


@pytest.fixture
def open_place(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a temporary directory of mode 0777, without the sticky bit, where everyone may delete files."""
    short_dir.chmod(0o777)
    monkeypatch.delenv("OPENRTC_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(short_dir))
    return short_dir


def as_someone_else(code: str, place: Path) -> str:
    """Return what the code prints when another user runs it."""
    command = [sys.executable, "-c", _GIVE_UP_ROOT + code, str(place)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@contextlib.contextmanager
def someone_doing(code: str, place: Path) -> Iterator[subprocess.Popen[str]]:
    """Run another user's process, from its first line of output until the block ends."""
    command = [sys.executable, "-c", _GIVE_UP_ROOT + code, str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def ours(place: Path) -> Path:
    return place / f"openrtc-{os.geteuid()}"


# --- planted before we come ----------------------------------------------------------------------


@root_only
@pytest.mark.parametrize(
    ("plant", "problem"),
    [
        ("(place / 'openrtc-0').mkdir(mode=0o700)", "belongs to uid 65534; it must belong to uid 0"),
        ("(place / 'openrtc-0').mkdir(); (place / 'openrtc-0').chmod(0o777)", "belongs to uid 65534"),
        ("(place / 'openrtc-0').symlink_to('/root')", "is a symbolic link; a real directory is required"),
        ("(place / 'openrtc-0').symlink_to(place / 'nothing')", "is a symbolic link"),
        ("(place / 'openrtc-0').write_text('mine')", "is not a directory"),
        ("os.mkfifo(place / 'openrtc-0')", "is not a directory"),
    ],
    ids=["directory", "open directory", "link", "dangling link", "file", "fifo"],
)
def test_what_someone_planted_is_refused(open_place: Path, plant: str, problem: str) -> None:
    """The worker makes no socket there, and the error names the way out."""
    as_someone_else(plant, open_place)
    with pytest.raises(EndpointError, match=problem) as refused:
        open_listener("w")
    assert "set OPENRTC_RUNTIME_DIR to another" in str(refused.value)
    assert sorted(each.name for each in open_place.iterdir()) == ["openrtc-0"]
    assert discover() == []


_IMPOSTOR = """
place = place / "openrtc-0"
place.mkdir(mode=0o755)
listener = socket.socket(socket.AF_UNIX)
listener.bind(str(place / "voice-a-77.sock"))
os.chmod(place / "voice-a-77.sock", 0o777)
listener.listen(5)
print("ready", flush=True)
while True:
    listener.accept()
"""


@root_only
def test_a_planted_worker_is_not_found(open_place: Path) -> None:
    """A socket in another user's directory is not discovered."""
    with someone_doing(_IMPOSTOR, open_place):
        assert (ours(open_place) / "voice-a-77.sock").is_socket()
        assert discover() == []


_SWAPPED = """
(place / "run").rename(place / "theirs")
(place / "run").mkdir()
listener = socket.socket(socket.AF_UNIX)
listener.bind(str(place / "run" / "w.sock"))
os.chmod(place / "run" / "w.sock", 0o777)
listener.listen(5)
print("ready", flush=True)
while True:
    listener.accept()[0].sendall(b'{"type":"hello","protocol":"1.0","worker":"w","pid":1}\\n')
"""

_ASK_AS_A_USER = """
import sys
from openrtc_introspect_core import ConnectionFailed, read_snapshot
import os
os.setgroups([])
os.setgid(12345)
os.setuid(12345)
try:
    read_snapshot(sys.argv[1], timeout_s=20)
except ConnectionFailed as error:
    print(error)
"""


@root_only
def test_a_swapped_socket_is_not_believed(open_place: Path) -> None:
    """A client refuses a server that runs as neither the client's user nor root."""
    listener, path = open_listener("w", open_place / "run" / "w.sock")
    with listener, someone_doing(_SWAPPED, open_place):
        open_place.chmod(0o755)
        asked = subprocess.run(
            [sys.executable, "-c", _ASK_AS_A_USER, str(path)], capture_output=True, text=True, check=True, timeout=60
        )
        assert asked.stdout.strip().endswith("runs as uid 65534, which is not to be trusted")


# --- while we come -------------------------------------------------------------------------------

_SWAP_FOR_EVER = """
mine = place / "mine"
mine.mkdir()
mine.chmod(0o777)
target, aside = place / "openrtc-0", place / "aside"
print("ready", flush=True)
until = time.monotonic() + 60
while time.monotonic() < until:
    try:
        target.rename(aside)
        target.symlink_to(mine)
        target.unlink()
        mine.rename(target)
        target.rename(mine)
        aside.rename(target)
    except OSError:
        for path in (target, aside):
            try:
                if path.is_symlink():
                    path.unlink()
                elif path == target and path.exists() and path.owner() == "nobody":
                    path.rename(mine)
            except (OSError, KeyError):
                pass
        try:
            if aside.exists() and not target.exists():
                aside.rename(target)
        except OSError:
            pass
"""


@root_only
@linux_only
def test_a_race_for_the_directory_is_an_error_or_a_private_socket(open_place: Path) -> None:
    """Each start ends in one of the two while another user keeps exchanging the directory."""
    letters = open_place / "letters"
    letters.write_text("private")
    letters.chmod(0o600)
    served = refused = 0
    with someone_doing(_SWAP_FOR_EVER, open_place):
        for number in range(300):
            try:
                listener, path = open_listener(f"w{number % 40}")
            except EndpointError:
                refused += 1
                continue
            with listener:
                served += 1
                assert stat.S_IMODE(os.fstat(listener.fileno()).st_mode) == 0o600
                with contextlib.suppress(OSError):  # exchanged again
                    status = os.lstat(path)
                    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, 0)
                    path.unlink()
    assert served + refused == 300
    assert served
    assert letters.read_text() == "private"


@linux_only
def test_a_link_put_in_the_socket_s_place_is_not_followed(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The link's target keeps its mode, and the start raises EndpointError."""
    victim = short_dir / "script"
    victim.write_text("#!/bin/sh")
    victim.chmod(0o755)

    class Overtaken(socket.socket):
        def bind(self, address: object) -> None:
            super().bind(address)  # type: ignore[arg-type]
            os.unlink(str(address))
            os.symlink(victim, str(address))

    monkeypatch.setattr(socket, "socket", Overtaken)
    with pytest.raises(EndpointError, match="was replaced as soon as it was made"):
        open_listener("w", short_dir / "w.sock")
    assert stat.S_IMODE(victim.stat().st_mode) == 0o755


# --- what the system refuses ---------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EROFS, errno.EPERM, errno.EBUSY], ids=errno.errorcode.get)
def test_a_stale_socket_that_cannot_be_removed_is_reported(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The system's refusal to remove it raises EndpointError with the path."""
    path = short_dir / "w.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    os.utime(path, (0, 0))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(EndpointError, match=r"w\.sock' is left over and cannot be removed"):
        open_listener("w", path)


def test_others_stale_sockets_that_cannot_be_removed_are_no_obstacle(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stale sockets stay, and the worker has a socket of its own."""
    monkeypatch.setenv("OPENRTC_RUNTIME_DIR", str(short_dir))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(short_dir / "old-1.sock"))
    os.utime(short_dir / "old-1.sock", (0, 0))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        listener, path = open_listener("w")
    with listener:
        assert sorted(each.name for each in short_dir.iterdir()) == ["old-1.sock", path.name]


@pytest.mark.parametrize("already", [0, 1], ids=["for the socket", "for the probe of the one before"])
def test_no_file_descriptor_left_is_reported(short_dir: Path, monkeypatch: pytest.MonkeyPatch, already: int) -> None:
    """The lack of file descriptors raises EndpointError with the path."""
    path = short_dir / "w.sock"
    if already:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))

    def exhausted(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket, "socket", exhausted)
    with pytest.raises(EndpointError, match=r"w\.sock.*Too many open files"):
        open_listener("w", path)


def test_workers_that_start_together_all_get_a_socket(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight workers of one name in one process each get a socket of their own."""
    monkeypatch.setenv("OPENRTC_RUNTIME_DIR", str(short_dir / "run"))
    together = threading.Barrier(8)
    opened: list[tuple[socket.socket, Path]] = []
    faults: list[BaseException] = []

    def start() -> None:
        together.wait(20)
        try:
            opened.append(open_listener("w"))
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    try:
        assert faults == []
        assert len({path for _, path in opened}) == 8
        for _, path in opened:
            with socket.socket(socket.AF_UNIX) as client:
                assert client.connect_ex(str(path)) == 0
    finally:
        for listener, _ in opened:
            listener.close()


def test_one_of_two_that_replace_a_dead_socket_wins(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slower one finds the socket served and does not take it."""
    path = short_dir / "w.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    os.utime(path, (0, 0))
    connect_ex = socket.socket.connect_ex

    def ponder(self: socket.socket, address: str) -> int:
        found = connect_ex(self, address)
        time.sleep(0.1)  # both have probed before one of them acts
        return found

    monkeypatch.setattr(socket.socket, "connect_ex", ponder)
    together = threading.Barrier(2)
    opened: list[socket.socket] = []
    refused: list[str] = []

    def start() -> None:
        together.wait(20)
        try:
            opened.append(open_listener("w", path)[0])
        except EndpointError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for listener in opened:
        listener.close()
    assert len(opened) == 1
    assert len(refused) == 1
    assert "is served by a worker that answers" in refused[0]


def test_a_lock_that_someone_keeps_is_no_obstacle(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker starts without the lock, because any user who may list the directory can keep it."""
    monkeypatch.setattr(_endpoint, "_TURN_WITHIN_S", 0.05)
    descriptor = os.open(short_dir, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        open_listener("w", short_dir / "w.sock")[0].close()
    finally:
        os.close(descriptor)


def test_a_peer_that_is_no_worker_is_given_up(short_dir: Path) -> None:
    """A listener that says nothing raises ConnectionFailed after the given time."""
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(short_dir / "w.sock"))
        mute.listen(1)
        began = time.monotonic()
        with pytest.raises(ConnectionFailed, match=r"nothing heard within 0\.1 s"):
            read_snapshot(short_dir / "w.sock", timeout_s=0.1)
        assert time.monotonic() - began >= 0.1
