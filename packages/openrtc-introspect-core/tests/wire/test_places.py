"""Where a worker puts its socket if not everything can be written to, and where root looks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from openrtc_introspect_core import EndpointError
from openrtc_introspect_core.wire import _places, discover_all, search_dirs
from openrtc_introspect_core.wire._endpoint import open_listener
from openrtc_introspect_core.wire._places import all_dirs, worker_dir

ME = f"openrtc-{os.geteuid()}"


@pytest.fixture
def bases(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three directories for temporary files, in an environment that names none."""
    made = [short_dir / name for name in ("tmp", "var", "shm")]
    for each in made:
        each.mkdir()
    for name in ("OPENRTC_RUNTIME_DIR", "XDG_RUNTIME_DIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_places, "BASES", tuple(map(str, made)))
    return made


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make directories such that nobody can write to them, as in a read-only file system."""

    def make(*directories: Path) -> None:
        monkeypatch.setattr(_places, "_takes_files", lambda each: Path(each) not in directories)

    return make


def test_the_first_that_takes_files_is_chosen(bases: list[Path], read_only: Callable[..., None]) -> None:
    """A container with a read-only root has /dev/shm only."""
    assert worker_dir() == bases[0] / ME
    read_only(bases[0])
    assert worker_dir() == bases[1] / ME
    read_only(bases[0], bases[1])
    assert worker_dir() == bases[2] / ME


def test_all_of_them_are_searched(bases: list[Path], read_only: Callable[..., None]) -> None:
    """The client may be able to write where the worker was not, and the other way round."""
    read_only(bases[0])
    assert [each for each in search_dirs() if each.parent in bases] == [bases[1] / ME, bases[0] / ME, bases[2] / ME]
    for number, base in enumerate(bases):
        (base / f"openrtc-{number}").mkdir()
    assert [each.name for each in all_dirs() if each.parent in bases] == ["openrtc-0", "openrtc-1", "openrtc-2"]


def test_nothing_that_takes_files_is_an_error_that_says_what_to_do(
    bases: list[Path], read_only: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's start names the directory and the variable."""
    read_only(*bases)
    monkeypatch.setattr(os, "mkdir", _read_only)
    problem = (
        rf"'{bases[0]}/{ME}': Read-only file system; set OPENRTC_RUNTIME_DIR .*, in a container to one in a volume"
    )
    with pytest.raises(EndpointError, match=problem):
        open_listener("w")


def _read_only(*_: object) -> None:
    raise OSError(30, "Read-only file system")


@pytest.mark.parametrize("given", ["relative", "/nowhere/at/all", ""])
def test_a_folder_for_temporary_files_that_is_none_is_passed_over(
    given: str, bases: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TMPDIR counts if it is an absolute path of a directory that takes files."""
    monkeypatch.setenv("TMPDIR", given)
    assert worker_dir() == bases[0] / ME


def test_the_root_of_a_volume_is_refused_with_a_folder_in_it(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody may write to it, as to an emptyDir of Kubernetes; the worker can make its own folder there."""
    short_dir.chmod(0o777)
    monkeypatch.setenv("OPENRTC_RUNTIME_DIR", str(short_dir))
    with pytest.raises(EndpointError, match=f"or set OPENRTC_RUNTIME_DIR to '{short_dir}/{ME}'$"):
        open_listener("w")
    monkeypatch.setenv("OPENRTC_RUNTIME_DIR", f"{short_dir}/{ME}")
    listener, path = open_listener("w")
    with listener:
        assert path.parent == short_dir / ME


def test_a_setgid_bit_that_a_folder_inherits_does_not_matter(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume with an fsGroup has it."""
    short_dir.chmod(0o2777)
    monkeypatch.setenv("OPENRTC_RUNTIME_DIR", str(short_dir / "own"))
    listener, path = open_listener("w")
    with listener:
        assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_sees_the_workers_in_a_directory_that_it_has_chosen(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever owns it, as its sockets must; one that others may enter is passed over for root, too."""
    home = short_dir / "voice"
    monkeypatch.setenv("OPENRTC_RUNTIME_DIR", str(home))
    monkeypatch.setattr(_places, "default_dirs", list)
    monkeypatch.setattr(_places, "all_dirs", list)
    listener, path = open_listener("w")
    with listener:
        for each in (path, home):
            os.chown(each, 4242, -1)
        assert [(worker.path, worker.owner) for worker in discover_all()] == [(path, 4242)]
        os.chown(path, 4243, -1)
        assert discover_all() == []
        os.chown(path, 4242, -1)
        home.chmod(0o755)
        assert discover_all() == []
