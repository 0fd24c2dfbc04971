from __future__ import annotations

import errno
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrtc_introspect_core import ArgumentError, EndpointError
from openrtc_introspect_core.wire import WorkerSocket, _endpoint, _places, discover, discover_all, search_dirs
from openrtc_introspect_core.wire._endpoint import MAX_PATH_BYTES, check_path, open_listener, parse_name, socket_name
from openrtc_introspect_core.wire._places import worker_dir

SOMEONE = 65534

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="Linux takes the mode from the unbound socket")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.fixture
def umask() -> Iterator[None]:
    """Yield with a known umask, and restore this process's umask at the end."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def leave_behind(path: Path, age_s: float = 60.0) -> None:
    """Make a socket whose worker is gone."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    then = time.time() - age_s
    os.utime(path, (then, then))


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


# --- modes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777], ids=oct)
def test_the_modes_hold_under_any_umask(runtime_dir: Path, umask: None, mask: int) -> None:
    """Each directory that is made has mode 0700, and the socket has mode 0600."""
    os.environ["OPENRTC_RUNTIME_DIR"] = str(runtime_dir / "a" / "b")
    os.umask(mask)
    listener, path = open_listener("w")
    with listener:
        assert mode_of(path) == 0o600
        assert [mode_of(each) for each in list(path.parents)[:3]] == [0o700] * 3


@linux_only
def test_the_socket_is_private_from_the_moment_it_exists(
    short_dir: Path, umask: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket has mode 0600 when it is bound: no later chmod is needed."""

    def unneeded(*_: object) -> None:
        pass

    monkeypatch.setattr(os, "chmod", unneeded)
    os.umask(0)
    listener, path = open_listener("w", short_dir / "w.sock")
    with listener:
        assert mode_of(path) == 0o600


# --- the directory -------------------------------------------------------------------------------


def test_a_symbolic_link_is_no_directory(runtime_dir: Path) -> None:
    """The worker refuses a link, because its owner could point it to another place."""
    (runtime_dir.parent / "real").mkdir(mode=0o700)
    runtime_dir.symlink_to(runtime_dir.parent / "real")
    with pytest.raises(EndpointError, match="is a symbolic link; a real directory is required"):
        open_listener("w")
    assert list((runtime_dir.parent / "real").iterdir()) == []


def test_a_dangling_link_is_not_followed(runtime_dir: Path) -> None:
    """The worker makes no directory where the link points to."""
    runtime_dir.symlink_to(runtime_dir.parent / "nothing")
    with pytest.raises(EndpointError, match="is a symbolic link"):
        open_listener("w")
    assert not (runtime_dir.parent / "nothing").exists()


def test_a_file_in_its_place_is_reported(runtime_dir: Path) -> None:
    """A file in the directory's place raises EndpointError and keeps its content."""
    runtime_dir.write_text("mine")
    with pytest.raises(EndpointError, match="is not a directory: set OPENRTC_RUNTIME_DIR to another"):
        open_listener("w")
    assert runtime_dir.read_text() == "mine"


@root_only
def test_another_users_directory_is_refused(runtime_dir: Path) -> None:
    """The error names both users."""
    runtime_dir.mkdir(mode=0o700)
    os.chown(runtime_dir, SOMEONE, SOMEONE)
    with pytest.raises(EndpointError, match="belongs to uid 65534; it must belong to uid 0"):
        open_listener("w")


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o755, 0o1777], ids=oct)
def test_a_directory_open_to_others_is_refused(runtime_dir: Path, mode: int) -> None:
    """The error says how to close the directory to others."""
    runtime_dir.mkdir()
    runtime_dir.chmod(mode)
    with pytest.raises(EndpointError, match=f"has mode {mode:04o}, open to others; 0700 is required: chmod 700"):
        open_listener("w")


def test_an_exact_path_may_be_in_a_directory_that_others_can_list(short_dir: Path) -> None:
    """A directory that others can list is accepted, and one that they can write to is refused."""
    short_dir.chmod(0o755)
    open_listener("w", short_dir / "w.sock")[0].close()
    short_dir.chmod(0o775)
    with pytest.raises(EndpointError, match="has mode 0775, open to others"):
        open_listener("w", short_dir / "v.sock")


def test_a_directory_that_cannot_be_made_is_reported(runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error gives the system's reason and names OPENRTC_RUNTIME_DIR as the way out."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(EndpointError, match=r"cannot create socket directory .*No space left.*OPENRTC_RUNTIME_DIR"):
        open_listener("w")


def test_the_first_variable_that_is_set_decides(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OPENRTC_RUNTIME_DIR comes first, then an existing XDG_RUNTIME_DIR, then the temporary directory."""
    per_user = f"openrtc-{os.geteuid()}"
    (short_dir / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(short_dir / "tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_dir))
    monkeypatch.setenv("OPENRTC_RUNTIME_DIR", str(short_dir / "own"))
    assert worker_dir() == short_dir / "own"
    monkeypatch.setenv("OPENRTC_RUNTIME_DIR", "")
    assert worker_dir() == short_dir / per_user
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_dir / "gone"))
    assert worker_dir() == short_dir / "tmp" / per_user
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert worker_dir() == short_dir / "tmp" / per_user


def test_every_place_is_searched(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search covers the places of other environments, in which the worker may have started."""
    per_user = f"openrtc-{os.geteuid()}"
    monkeypatch.setenv("TMPDIR", str(short_dir))
    monkeypatch.setenv("OPENRTC_RUNTIME_DIR", "/somewhere")
    assert search_dirs() == [
        Path("/somewhere"),
        Path(f"/run/user/{os.geteuid()}") / per_user,
        short_dir / per_user,
        Path("/tmp") / per_user,
        Path("/var/tmp") / per_user,
        Path("/dev/shm") / per_user,
    ]


# --- one socket per worker -----------------------------------------------------------------------


def test_the_name_and_the_pid_are_in_the_file_name(runtime_dir: Path) -> None:
    """Hyphens stay, and each character that a path or a terminal could misread becomes an underscore."""
    listener, path = open_listener("voice-eu/1\x1b é")
    with listener:
        assert path == runtime_dir / f"voice-eu_1___-{os.getpid()}.sock"
        assert parse_name(path) == WorkerSocket(path, "voice-eu_1___", os.getpid())


@pytest.mark.parametrize(
    ("name", "spelt"),
    [("eu-west 1", "eu-west_1"), ("v1.2_a", "v1.2_a"), ("a/b", "a_b"), ("東京", "__")],
)
def test_a_name_is_spelt_as_a_file_name_takes_it(runtime_dir: Path, name: str, spelt: str) -> None:
    """The worker that makes the socket and the client that searches for it use one rule."""
    assert socket_name(name) == spelt
    assert socket_name(spelt) == spelt
    listener, path = open_listener(name)
    with listener:
        assert parse_name(path).name == spelt


@pytest.mark.parametrize(
    ("file", "name", "pid"),
    [
        ("worker-77.sock", "worker", 77),
        ("worker-1-77.sock", "worker-1", 77),
        ("worker-1-77.3.sock", "worker-1", 77),
        ("v1.2-77.sock", "v1.2", 77),
        ("anything.sock", "anything", None),
        ("a-b.sock", "a-b", None),
    ],
)
def test_a_file_name_is_read_back(file: str, name: str, pid: int | None) -> None:
    """Any other form is a name without a pid."""
    path = Path("/run") / file
    assert parse_name(path) == WorkerSocket(path, name, pid)


def test_workers_of_one_name_are_side_by_side(runtime_dir: Path) -> None:
    """Neither worker takes the other's socket."""
    first, first_path = open_listener("w")
    second, second_path = open_listener("w")
    with first, second:
        assert second_path.name == f"w-{os.getpid()}.2.sock"
        assert answers(first_path)
        assert answers(second_path)
        assert [(each.name, each.pid) for each in discover()] == [("w", os.getpid())] * 2


def test_a_live_socket_is_never_taken(short_dir: Path) -> None:
    """A socket whose worker answers is refused to another worker, however old its file is."""
    first, path = open_listener("w", short_dir / "w.sock")
    with first:
        os.utime(path, (0, 0))
        with pytest.raises(EndpointError, match="is served by a worker that answers: choose another"):
            open_listener("w", path)
        assert answers(path)


def test_a_busy_socket_is_never_taken(short_dir: Path) -> None:
    """A socket with a full backlog counts as alive, although nobody accepts and its file is old."""
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(short_dir / "w.sock"))
        busy.listen(0)
        waiting.connect(str(short_dir / "w.sock"))
        os.utime(short_dir / "w.sock", (0, 0))
        with pytest.raises(EndpointError, match="is served by a worker that answers"):
            open_listener("w", short_dir / "w.sock")


def test_a_dead_workers_socket_is_replaced(short_dir: Path) -> None:
    """A dead socket is replaced only once it is too old to belong to a worker that is just starting."""
    path = short_dir / "w.sock"
    leave_behind(path, age_s=0)
    with pytest.raises(EndpointError, match="was made a moment ago and does not answer yet"):
        open_listener("w", path)
    os.utime(path, (0, 0))
    listener, _ = open_listener("w", path)
    with listener:
        assert answers(path)


def test_dead_workers_sockets_are_cleaned_up(runtime_dir: Path) -> None:
    """The next worker removes old dead sockets; what is young, alive or no socket stays."""
    runtime_dir.mkdir(mode=0o700)
    leave_behind(runtime_dir / "old-1.sock")
    leave_behind(runtime_dir / "young-2.sock", age_s=0)
    (runtime_dir / "file-3.sock").write_text("mine")
    listener, path = open_listener("w")
    with listener:
        assert sorted(each.name for each in runtime_dir.iterdir()) == sorted(["file-3.sock", path.name, "young-2.sock"])
        assert discover() == [WorkerSocket(path, "w", os.getpid())]


def test_other_programs_sockets_are_not_cleaned_up(short_dir: Path) -> None:
    """A directory that the host names may hold another program's sockets, so they stay."""
    leave_behind(short_dir / "agent.sock")
    open_listener("w", short_dir / "w.sock")[0].close()
    assert (short_dir / "agent.sock").is_socket()


def test_a_file_at_the_path_is_never_deleted(short_dir: Path) -> None:
    """A file at the path stays, and so does the file that a link there points to."""
    (short_dir / "notes.sock").write_text("mine")
    (short_dir / "link.sock").symlink_to(short_dir / "notes.sock")
    for name in ("notes.sock", "link.sock"):
        with pytest.raises(EndpointError, match="is no socket and is left alone"):
            open_listener("w", short_dir / name)
    assert (short_dir / "link.sock").read_text() == "mine"


def test_a_socket_of_another_kind_is_left_alone(short_dir: Path) -> None:
    """A datagram socket is no worker's, so it raises EndpointError and stays."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(short_dir / "w.sock"))
        os.utime(short_dir / "w.sock", (0, 0))
        with pytest.raises(EndpointError, match="does not take connections from here"):
            open_listener("w", short_dir / "w.sock")


@pytest.mark.parametrize("fails", ["bind", "listen"])
def test_nothing_is_left_when_it_cannot_serve(short_dir: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    """A failed bind or listen leaves no file behind."""

    class Failing(socket.socket):
        def bind(self, address: object) -> None:
            if fails == "bind":
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            super().bind(address)  # type: ignore[arg-type]

        def listen(self, backlog: int = 0) -> None:
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    monkeypatch.setattr(socket, "socket", Failing)
    with pytest.raises(EndpointError, match=r"cannot (create|serve on) socket .*w\.sock"):
        open_listener("w", short_dir / "w.sock")
    assert list(short_dir.iterdir()) == []


# --- paths ---------------------------------------------------------------------------------------


def test_a_path_over_the_limit_is_reported_with_its_size() -> None:
    """The limit counts bytes, as the system does."""
    fits = Path("/" + "é" * ((MAX_PATH_BYTES - 1) // 2))
    check_path(fits)
    with pytest.raises(ArgumentError, match=f"is {MAX_PATH_BYTES + 1} bytes long; at most {MAX_PATH_BYTES} are"):
        check_path(Path("/" + "x" * MAX_PATH_BYTES))


def test_a_long_name_leaves_nothing_behind(runtime_dir: Path) -> None:
    """The error is raised before the socket is made."""
    with pytest.raises(ArgumentError, match="set OPENRTC_RUNTIME_DIR or socket_path to a shorter one"):
        open_listener("n" * 200)
    assert list(runtime_dir.iterdir()) == []


# --- finding -------------------------------------------------------------------------------------


def test_all_directories_are_looked_into(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories that are missing or open to others are skipped."""
    places = [short_dir / name for name in ("a", "missing", "open", "b")]
    monkeypatch.setattr(_places, "default_dirs", lambda: places)
    listeners = []
    for place, name in ((places[3], "alpha"), (places[0], "beta"), (places[2], "gamma")):
        monkeypatch.setenv("OPENRTC_RUNTIME_DIR", str(place))
        listeners.append(open_listener(name)[0])
    places[2].chmod(0o750)
    (places[0] / ("x" * 200 + ".sock")).write_text("")
    assert [(worker.name, worker.path.parent) for worker in discover()] == [
        ("alpha", places[3]),
        ("beta", places[0]),
    ]
    for listener in listeners:
        listener.close()
    assert discover() == []


def test_root_finds_everyones(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root finds workers in directories that belong to the user in their name, each with its owner."""
    me = os.geteuid()
    places = [short_dir / name for name in (f"openrtc-{me}", f"openrtc-{me + 1}", "openrtc-nobody")]
    listeners = []
    for place in places:
        monkeypatch.setenv("OPENRTC_RUNTIME_DIR", str(place))
        listeners.append(open_listener("w")[0])
    monkeypatch.setenv("OPENRTC_RUNTIME_DIR", str(short_dir / "none"))
    monkeypatch.setattr(_endpoint, "own_uid", lambda: 0)
    monkeypatch.setenv("TMPDIR", str(short_dir))
    found = [worker for worker in discover_all() if worker.path.is_relative_to(short_dir)]
    for listener in listeners:
        listener.close()
    assert [(worker.path.parent, worker.owner) for worker in found] == [(places[0], me)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_anothers_socket_in_a_users_directory_is_passed_over(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket counts only if its owner owns the directory, which must be closed to others."""
    home = short_dir / "openrtc-4242"
    monkeypatch.setattr(_places, "default_dirs", list)
    monkeypatch.setattr(_places, "all_dirs", lambda: [home])
    own, own_path = open_listener("own", home / "own-1.sock")
    foreign, _ = open_listener("foreign", home / "foreign-2.sock")
    with own, foreign:
        os.chown(own_path, 4242, -1)
        os.chown(home, 4242, -1)
        assert discover_all() == [WorkerSocket(own_path, "own", 1, 4242)]
        home.chmod(0o750)
        assert discover_all() == []


def test_others_workers_are_not_for_everyone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root may list the workers of all users, and the error says so."""
    monkeypatch.setattr(_endpoint, "own_uid", lambda: 1000)
    with pytest.raises(ArgumentError, match="only root sees the workers of all users, this is user id 1000"):
        discover_all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_is_forked_meanwhile_keeps_no_directory_locked(tmp_path: Path) -> None:
    """Workers that start later have their turn, however long the child lives."""
    read, write = os.pipe()
    with _endpoint.alone_in(tmp_path) as alone:
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
    with _endpoint.alone_in(tmp_path) as alone_again:
        pass
    os.close(write)
    os.close(read)
    os.waitpid(child, 0)
    assert (alone, alone_again) == (True, True)
