from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from descriptors import open_in

from openrtc_introspect_core import ArgumentError, BoxError, EndpointError
from openrtc_introspect_core.black_box import BoxFile, _files, box_path, find_boxes, read_box, remove_box
from openrtc_introspect_core.black_box._files import MAX_DEAD, remove_old
from openrtc_introspect_core.black_box._writer import BoxWriter
from openrtc_introspect_core.wire import _endpoint, _places

MakeBox = Callable[..., BoxWriter]
MakeDead = Callable[..., Path]

SOMEONE = 65534
DAY_S = 24 * 3600.0
root_only = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def umask() -> Iterator[None]:
    """Yield with a known umask, and restore this process's umask at the end."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# --- where it is ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("socket_name", "box_name"),
    [
        ("voice-a-7.sock", "voice-a-7.box"),
        ("voice-a-7.2.sock", "voice-a-7.2.box"),
        ("control", "control.box"),
        ("v1.2", "v1.2.box"),
        ("x.box", "x.box.box"),
    ],
)
def test_it_is_beside_the_socket(socket_name: str, box_name: str) -> None:
    """Under a name that no other socket of the directory leads to."""
    assert box_path(Path("/run/openrtc") / socket_name) == Path("/run/openrtc") / box_name


def test_a_worker_with_a_socket_has_its_box_there(runtime_dir: Path, make_box: MakeBox) -> None:
    """Whatever the worker's name is."""
    assert make_box("w", runtime_dir / "mine.sock").path == runtime_dir / "mine.box"


def test_a_worker_without_a_socket_has_its_box_in_the_user_s_directory(runtime_dir: Path, make_box: MakeBox) -> None:
    """By its name and process id; further ones of that name in the process are numbered."""
    assert [make_box("a b").path.name for _ in range(3)] == [
        f"a_b-{os.getpid()}.box",
        f"a_b-{os.getpid()}.2.box",
        f"a_b-{os.getpid()}.3.box",
    ]


# --- modes and owners ----------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777], ids=oct)
def test_it_is_private_from_the_moment_it_exists(
    runtime_dir: Path, make_box: MakeBox, umask: None, monkeypatch: pytest.MonkeyPatch, mask: int
) -> None:
    """Mode 0600 under any umask, and never more, whatever moment one looks at."""
    seen: list[int] = []

    def noted(descriptor: int, mode: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        chmod(descriptor, mode)

    chmod = os.fchmod
    monkeypatch.setattr(os, "fchmod", noted)
    monkeypatch.setenv("OPENRTC_RUNTIME_DIR", str(runtime_dir / "a" / "b"))
    os.umask(mask)
    path = make_box().path
    assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
    assert [stat.S_IMODE(os.lstat(each).st_mode) for each in list(path.parents)[:2]] == [0o700] * 2
    assert all(mode & ~0o600 == 0 for mode in seen)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o777, 0o4600], ids=oct)
def test_a_box_that_is_open_to_others_is_not_read(make_box: MakeBox, mode: int) -> None:
    """Its content may be anyone's."""
    path = make_box().path
    path.chmod(mode)
    with pytest.raises(BoxError, match=f"has mode {mode:04o}, open to others; 0600 is required"):
        read_box(path)


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777], ids=oct)
def test_a_box_in_a_directory_that_others_may_write_to_is_not_read(
    runtime_dir: Path, make_box: MakeBox, mode: int
) -> None:
    """They could put any file in its place."""
    path = make_box().path
    runtime_dir.chmod(mode)
    with pytest.raises(BoxError, match=f"has mode {mode:04o}, open to others"):
        read_box(path)


@root_only
@pytest.mark.parametrize("given", ["the file", "its directory"])
def test_another_user_s_box_is_never_opened(
    runtime_dir: Path, make_box: MakeBox, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """Neither if the file is another's nor if the directory is."""
    path = make_box().path
    os.chown(path if given == "the file" else runtime_dir, SOMEONE, SOMEONE)

    def unused(*_: Any, **__: Any) -> int:
        raise AssertionError("it was opened")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", unused)
        with pytest.raises(BoxError, match="belongs to uid 65534; it must belong to uid 0"):
            read_box(path, owner=0)
        patched.setattr(_files, "own_uid", lambda: 1000)
        with pytest.raises(BoxError, match="it must belong to uid 1000"):
            read_box(path)


@root_only
def test_root_reads_everyone_s(runtime_dir: Path, make_box: MakeBox) -> None:
    """If all of it belongs to the same user."""
    path = make_box().path
    os.chown(path, SOMEONE, SOMEONE)
    with pytest.raises(BoxError, match="must belong to uid 65534"):
        read_box(path)
    os.chown(runtime_dir, SOMEONE, SOMEONE)
    assert read_box(path).worker == "w"
    assert read_box(path, owner=SOMEONE).worker == "w"


def planted(path: Path, kind: str) -> Path:
    """Put something in the place of a box."""
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(path.with_name("elsewhere"))
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    elif kind == "file":
        path.write_text("mine")
        path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("nothing", "No such file or directory"),
        ("link", "is a symbolic link; a regular file is required"),
        ("directory", "is no regular file"),
        ("fifo", "is no regular file"),
        ("socket", "is no regular file"),
        ("file", "is no black box: it has 4 bytes"),
    ],
)
def test_what_is_no_box_is_described(runtime_dir: Path, kind: str, problem: str) -> None:
    """In one line with the path; nothing is opened that could hang or be somewhere else."""
    (runtime_dir / "elsewhere").touch(0o600)
    path = planted(runtime_dir / "w-7.box", kind)
    with pytest.raises(BoxError) as caught:
        read_box(path)
    assert str(path) in str(caught.value)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_fifo_that_is_put_there_at_the_last_moment_does_not_hang(
    runtime_dir: Path, make_box: MakeBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that was opened is checked again."""
    path = make_box().path
    before = os.lstat(path)
    planted(path, "fifo")
    with monkeypatch.context() as patched:
        patched.setattr(os, "lstat", lambda each: before if each == path else os.stat(each, follow_symlinks=False))
        with pytest.raises(BoxError, match="is no regular file"):
            read_box(path)


def test_a_link_that_is_put_there_at_the_last_moment_is_not_followed(
    runtime_dir: Path, make_box: MakeBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening it fails."""
    path, elsewhere = make_box().path, make_box().path
    before = os.lstat(path)
    path.unlink()
    path.symlink_to(elsewhere)
    with monkeypatch.context() as patched:
        patched.setattr(os, "lstat", lambda each: before if each == path else os.stat(each, follow_symlinks=False))
        with pytest.raises(BoxError, match=os.strerror(errno.ELOOP)):
            read_box(path)


@pytest.mark.parametrize("kind", ["link", "directory", "fifo", "file"])
def test_what_someone_put_in_its_place_is_left_alone(runtime_dir: Path, make_box: MakeBox, kind: str) -> None:
    """There is no box then."""
    planted(runtime_dir / "w.box", kind)
    with pytest.raises(BoxError, match=r"w\.box' is there already, and is no dead worker's"):
        make_box("w", runtime_dir / "w.sock")
    assert names_in(runtime_dir) == ["w.box"]
    if kind == "file":
        assert (runtime_dir / "w.box").read_text() == "mine"


def test_a_directory_that_is_open_to_others_gets_no_box(runtime_dir: Path, make_box: MakeBox) -> None:
    """As it gets no socket."""
    runtime_dir.chmod(0o755)
    with pytest.raises(EndpointError, match="has mode 0755, open to others; 0700 is required"):
        make_box()
    assert names_in(runtime_dir) == []


# --- one worker, one box -------------------------------------------------------------------------


def test_a_live_worker_s_box_is_never_taken(runtime_dir: Path, make_box: MakeBox) -> None:
    """The other worker has none."""
    first = make_box("w", runtime_dir / "w.sock")
    with pytest.raises(BoxError, match=r"w\.box' is there already, and is no dead worker's"):
        make_box("other", runtime_dir / "w.sock")
    assert read_box(first.path).worker == "w"


def test_a_dead_worker_s_box_is_moved_aside(runtime_dir: Path, make_box: MakeBox, make_dead: MakeDead) -> None:
    """In a container the next worker has the same name and process id: the box is kept under the time of its end."""
    dead = make_dead("w")
    os.utime(dead, (1e9, 1e9))
    alive = make_box("w").path
    make_dead("v")
    assert alive == dead
    assert [(box.path.name, box.name, box.pid) for box in find_boxes() if box.name == "w"] == [
        (f"w-{os.getpid()}.1000000000.box", "w", os.getpid()),
        (alive.name, "w", os.getpid()),
    ]
    assert [read_box(box.path).alive for box in find_boxes() if box.name == "w"] == [False, True]


def test_boxes_that_are_moved_aside_keep_out_of_each_other_s_way(make_box: MakeBox, make_dead: MakeDead) -> None:
    """Two workers may have died in the same second."""
    for _ in range(3):
        os.utime(make_dead("w"), (1e9, 1e9))
    make_box("w")
    assert [box.path.name.split(".", 1)[1] for box in find_boxes()] == [
        "1000000000.box", "1000000001.box", "1000000002.box", "box",
    ]  # fmt: skip


def test_a_numbered_box_that_is_moved_aside_has_the_same_worker(make_box: MakeBox, make_dead: MakeDead) -> None:
    """The time takes the place of its number."""
    first = make_box("w")
    os.utime(make_dead("w"), (1e9, 1e9))
    assert make_box("w").path.name == f"w-{os.getpid()}.2.box"
    first.remove()
    assert [(box.path.name, box.name, box.pid) for box in find_boxes()] == [
        (f"w-{os.getpid()}.1000000000.box", "w", os.getpid()),
        (f"w-{os.getpid()}.2.box", "w", os.getpid()),
    ]


def test_what_is_left_of_a_worker_that_was_killed_at_its_start_is_no_obstacle(
    runtime_dir: Path, make_box: MakeBox
) -> None:
    """It had no name of a box so far."""
    (runtime_dir / f".w-{os.getpid()}.box.new").touch()
    assert read_box(make_box("w").path).alive
    assert names_in(runtime_dir) == [f"w-{os.getpid()}.box"]


def test_while_another_process_locks_the_directory_there_is_no_box(
    runtime_dir: Path, make_box: MakeBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A box that is found dead, another worker may be replacing."""
    monkeypatch.setattr(_endpoint, "_TURN_WITHIN_S", 0.01)
    descriptor = os.open(runtime_dir, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(BoxError, match="another process locks the directory"):
            make_box()
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("call", ["ftruncate", "rename", "fchmod"])
def test_a_box_that_cannot_be_made_leaves_nothing(
    runtime_dir: Path, make_box: MakeBox, monkeypatch: pytest.MonkeyPatch, umask: None, call: str
) -> None:
    """Neither a file nor a descriptor."""

    def fails(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    os.umask(0o777)
    monkeypatch.setattr(Path if call == "rename" else os, call, fails)
    with pytest.raises(OSError, match="No space left"):
        make_box()
    assert open_in(runtime_dir) == []
    assert names_in(runtime_dir) == []


# --- finding -------------------------------------------------------------------------------------


def test_boxes_are_found_by_name_and_pid(runtime_dir: Path, make_box: MakeBox, make_dead: MakeDead) -> None:
    """Those of live and of dead workers, and whatever has the name of one."""
    make_box("b")
    make_dead("a")
    make_box("x", runtime_dir / "control")
    (runtime_dir / "c-9.box").mkdir()
    (runtime_dir / "c-9.txt").touch()
    pid = os.getpid()
    assert find_boxes() == [
        BoxFile(runtime_dir / f"a-{pid}.box", "a", pid),
        BoxFile(runtime_dir / f"b-{pid}.box", "b", pid),
        BoxFile(runtime_dir / "c-9.box", "c", 9),
        BoxFile(runtime_dir / "control.box", "control", None),
    ]


def test_a_directory_that_breaks_the_rules_is_passed_over(runtime_dir: Path, make_box: MakeBox) -> None:
    """Its boxes may be anyone's."""
    make_box()
    runtime_dir.chmod(0o755)
    assert find_boxes() == []


@root_only
def test_a_planted_box_is_not_found(runtime_dir: Path, make_box: MakeBox) -> None:
    """It belongs to someone else."""
    os.chown(make_box().path, SOMEONE, SOMEONE)
    assert find_boxes() == []


def test_all_users_boxes_are_for_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others get an error that says so."""
    monkeypatch.setattr(_files, "own_uid", lambda: 1000)
    with pytest.raises(ArgumentError, match="only root sees the workers of all users, this is user id 1000"):
        find_boxes(all_users=True)


@root_only
def test_root_finds_everyone_s(runtime_dir: Path, make_box: MakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the directories that belong to the user in their name, each with its owner."""
    homes = [runtime_dir / f"openrtc-{uid}" for uid in (0, 4242, 4243)]
    for home in homes:
        home.mkdir(mode=0o700)
        make_box("w", home / "w-7.sock")
    for uid, home in ((4242, homes[1]), (4242, homes[2])):  # the last one is not whose name it has
        os.chown(home, uid, uid)
        os.chown(home / "w-7.box", uid, uid)
    monkeypatch.setattr(_places, "all_dirs", lambda: homes)
    assert [(box.path.parent.name, box.owner) for box in find_boxes(all_users=True)] == [
        ("openrtc-0", 0),
        ("openrtc-4242", 4242),
    ]
    assert [read_box(box.path, box.owner).worker for box in find_boxes(all_users=True)] == ["w", "w"]


def test_a_platform_without_sockets_has_no_boxes(monkeypatch: pytest.MonkeyPatch, runtime_dir: Path) -> None:
    """None is found, and reading one is an error."""
    monkeypatch.setattr(_files, "sockets_available", lambda: False)
    monkeypatch.setattr("openrtc_introspect_core.black_box._reader.sockets_available", lambda: False)
    assert find_boxes() == []
    with pytest.raises(BoxError, match="this platform has none"):
        read_box(runtime_dir / "w.box")


# --- alive or dead -------------------------------------------------------------------------------


def test_the_lock_of_a_live_worker_says_that_it_lives(make_box: MakeBox) -> None:
    """Whatever process id it has; readers do not take the lock from it."""
    box = make_box(pid=2**22)
    assert [read_box(box.path).alive for _ in range(3)] == [True] * 3
    box.close()
    assert not read_box(box.path).alive


def test_a_child_program_does_not_keep_the_box_of_its_dead_parent_alive(make_box: MakeBox) -> None:
    """The descriptor is closed in it."""
    box = make_box()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False) as child:
        box.close()
        deadline = time.monotonic() + 60.0
        while read_box(box.path).alive:  # the child may be about to become that program
            assert time.monotonic() < deadline
            time.sleep(0.001)
        assert child.poll() is None
        child.kill()


# --- removing ------------------------------------------------------------------------------------


def test_a_dead_worker_s_box_can_be_removed(make_dead: MakeDead) -> None:
    """By whoever has read it."""
    path = make_dead()
    remove_box(path)
    assert not path.exists()
    with pytest.raises(BoxError, match="No such file"):
        remove_box(path)


def test_a_live_worker_s_box_cannot_be_removed(make_box: MakeBox) -> None:
    """It is in use."""
    path = make_box().path
    with pytest.raises(BoxError, match="is no dead worker's: it is left alone"):
        remove_box(path)
    assert path.exists()


@pytest.mark.parametrize("kind", ["link", "directory", "fifo", "file"])
def test_what_is_no_box_cannot_be_removed(runtime_dir: Path, kind: str) -> None:
    """It stays where it is."""
    path = planted(runtime_dir / "w-7.box", kind)
    with pytest.raises(BoxError):
        remove_box(path)
    assert os.path.lexists(path)


def test_in_a_directory_that_is_gone_there_is_nothing_to_remove(runtime_dir: Path) -> None:
    """The error is ours."""
    with pytest.raises(BoxError, match="No such file"):
        remove_box(runtime_dir / "gone" / "w.box")


def test_boxes_of_workers_that_died_more_than_a_day_ago_are_removed(
    runtime_dir: Path, make_box: MakeBox, make_dead: MakeDead
) -> None:
    """Never one of a live worker, or a file that is no box, however old they are."""
    make_dead("old", age_s=DAY_S + 60)
    make_dead("young", age_s=DAY_S - 60)
    alive = make_box("alive").path
    for kind in ("link", "directory", "fifo", "file"):
        planted(runtime_dir / f"{kind}-7.box", kind)
    for path in (alive, runtime_dir / "file-7.box", runtime_dir / "directory-7.box"):
        os.utime(path, (1e9, 1e9))
    remove_old(runtime_dir)
    assert [name.rpartition("-")[0] for name in names_in(runtime_dir)] == [
        "alive", "directory", "fifo", "file", "link", "young",
    ]  # fmt: skip


def test_the_latest_of_dead_workers_boxes_are_kept(runtime_dir: Path, make_dead: MakeDead) -> None:
    """64 of them, however fast workers die."""
    for number in range(MAX_DEAD + 3):
        make_dead(f"w{number:02}", age_s=100.0 - number)
    remove_old(runtime_dir)
    assert names_in(runtime_dir) == [f"w{number:02}-{os.getpid()}.box" for number in range(3, MAX_DEAD + 3)]


def test_boxes_of_another_layout_are_removed_too(runtime_dir: Path, make_dead: MakeDead) -> None:
    """Their first bytes and the lock are those of all layouts."""
    path = make_dead(age_s=0)
    with path.open("r+b") as file:
        file.seek(8)
        file.write(b"\7")
    os.utime(path, (1e9, 1e9))
    remove_old(runtime_dir)
    assert names_in(runtime_dir) == []


def test_nothing_is_removed_while_another_process_locks_the_directory(
    runtime_dir: Path, make_dead: MakeDead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who locks it may be making a box under the name of an old one."""
    make_dead(age_s=2 * DAY_S)
    monkeypatch.setattr(_endpoint, "_TURN_WITHIN_S", 0.01)
    descriptor = os.open(runtime_dir, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        remove_old(runtime_dir)
        with pytest.raises(BoxError, match="is not removed: another process locks its directory"):
            remove_box(next(runtime_dir.iterdir()))
    finally:
        os.close(descriptor)
    assert len(names_in(runtime_dir)) == 1
