"""What is said of a worker that is there and cannot be seen or reached."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from openrtc_introspect_core import ConnectionFailed, connect, read_snapshot
from openrtc_introspect_core.wire import Refused, _places, _refusals, refused_dirs
from openrtc_introspect_core.wire._endpoint import open_listener

SOMEONE = 65534

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def home(runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory that is searched, for whomever."""
    monkeypatch.setattr(_places, "all_dirs", list)
    return runtime_dir


def test_a_directory_that_is_searched_is_none(home: Path) -> None:
    """Whether or not a worker is in it."""
    home.mkdir(mode=0o700)
    assert refused_dirs() == []


def test_a_chosen_directory_that_is_missing_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A default one that is missing is not."""
    assert refused_dirs() == [Refused(home, "does not exist", None)]
    monkeypatch.delenv("OPENRTC_RUNTIME_DIR")
    monkeypatch.setattr(_places, "default_dirs", lambda: [home])
    assert refused_dirs() == []


def test_one_that_is_open_to_others_is_named(home: Path) -> None:
    """With its mode and the one that is required."""
    home.mkdir()
    home.chmod(0o755)
    assert refused_dirs() == [Refused(home, "has mode 0755, open to others; 0700 is required", os.geteuid())]


def test_a_link_is_named(home: Path) -> None:
    """It is not followed."""
    home.symlink_to("/")
    assert refused_dirs() == [Refused(home, "is a symbolic link; a real directory is required", os.geteuid())]


@root_only
def test_another_user_s_is_named_with_the_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chosen one, and the default ones of others; root sees into both."""
    default = home.parent / "openrtc-65534"
    for each in (home, default):
        each.mkdir(mode=0o700)
        os.chown(each, SOMEONE, SOMEONE)
    monkeypatch.setattr(_places, "all_dirs", lambda: [default])
    assert refused_dirs() == [Refused(each, "belongs to uid 65534", SOMEONE) for each in (home, default)]
    assert refused_dirs(all_users=True) == []


@root_only
def test_a_socket_of_another_user_is_an_error_that_names_the_user(short_dir: Path) -> None:
    """And the first thing on the way to it that is closed."""
    listener, path = open_listener("w", short_dir / "closed/w.sock")
    with listener:
        short_dir.chmod(0o755)
        for each in (path, path.parent):
            os.chown(each, 4242, -1)
        script = (
            "import os, sys; from openrtc_introspect_core import read_snapshot; os.setuid(65534)\n"
            "try: read_snapshot(sys.argv[1])\nexcept Exception as error: print(error)"
        )
        command = [sys.executable, "-c", script, str(path)]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert said == (
        f"no worker answers at '{path}': Permission denied: '{path.parent}' belongs to uid 4242, this is uid 65534\n"
    )


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_a_worker_to_which_this_user_is_nobody_is_an_error_that_says_so(
    asynchronous: bool, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker in another user namespace closes the connection without a word."""
    monkeypatch.setattr(_refusals, "peer_uid", lambda connection: 201000)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(short_dir / "w.sock"))
        server.listen()
        ask = _ask_async if asynchronous else read_snapshot
        with anyio.from_thread.start_blocking_portal() as portal:
            portal.start_task_soon(anyio.to_thread.run_sync, lambda: server.accept()[0].close())
            with pytest.raises(ConnectionFailed, match=r"runs as uid 201000, and uid \d+ of another user namespace"):
                ask(short_dir / "w.sock")


def _ask_async(path: Path) -> None:
    async def ask() -> None:
        async with connect(path):
            pass

    anyio.run(ask)
