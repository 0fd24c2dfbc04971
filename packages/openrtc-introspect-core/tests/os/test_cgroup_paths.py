from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cgroup_trees import V2, Tree, docker_host, docker_private, hybrid, nothing, pod, service, version_1

from openrtc_introspect_core._os.cgroup_paths import CgroupPaths, read_bytes

MOUNT = "/sys/fs/cgroup"
POD = f"{MOUNT}/kubepods.slice/kubepods-podab.slice"


def levels(tree: Tree, controller: str) -> list[str]:
    """The directories of the process's group, its own first, without the tree's root."""
    paths = CgroupPaths(str(tree.root))
    paths.refresh()
    group = paths.of.get(controller)
    return [level.removeprefix(str(tree.root)) for level in group.levels] if group is not None else []


@pytest.mark.parametrize(
    ("make", "controller", "version", "expected"),
    [
        (docker_private, "cpu", 2, [MOUNT]),
        (
            docker_host,
            "memory",
            2,
            [f"{MOUNT}/system.slice/docker-12ab.scope", f"{MOUNT}/system.slice", MOUNT],
        ),
        (pod, "cpu", 2, [f"{POD}/cri-containerd-12.scope", POD, f"{MOUNT}/kubepods.slice", MOUNT]),
        (service, "cpu", 2, [f"{MOUNT}/system.slice/voice.service", f"{MOUNT}/system.slice", MOUNT]),
        (version_1, "cpu", 1, [f"{MOUNT}/cpu,cpuacct"]),
        (version_1, "memory", 1, [f"{MOUNT}/memory"]),
        (hybrid, "cpu", 1, [f"{MOUNT}/cpu"]),
        (
            hybrid,
            "memory",
            1,
            [f"{MOUNT}/memory/system.slice/voice.service", f"{MOUNT}/memory/system.slice", f"{MOUNT}/memory"],
        ),
        (
            hybrid,
            "unified",
            2,
            [f"{MOUNT}/unified/system.slice/voice.service", f"{MOUNT}/unified/system.slice", f"{MOUNT}/unified"],
        ),
        (nothing, "cpu", None, []),
    ],
)
def test_the_group_and_those_above_it_are_found(
    make: Callable[[Path], Tree], controller: str, version: int | None, expected: list[str], tmp_path: Path
) -> None:
    """The process's own first, up to what is mounted."""
    tree = make(tmp_path)
    paths = CgroupPaths(str(tree.root))
    paths.refresh()
    group = paths.of.get(controller)
    assert (group.version if group is not None else None) == version
    assert levels(tree, controller) == expected


@pytest.mark.parametrize(
    ("group", "mounted"),
    [
        ("/../other", "/"),  # moved out of its namespace
        ("/", "/../.."),  # a namespace whose mount is older than it
        ("/elsewhere", "/docker/12ab"),
        ("/docker/12abc", "/docker/12ab"),
    ],
)
def test_a_group_that_is_not_mounted_is_not_guessed(group: str, mounted: str, tmp_path: Path) -> None:
    """Even if there are directories at hand."""
    tree = Tree(tmp_path)
    tree.process(f"0::{group}")
    tree.mount((mounted, MOUNT, "cgroup2", "rw"))
    tree.group(MOUNT)
    tree.group("/sys/fs/other")
    assert levels(tree, "cpu") == []


def test_of_several_mounts_the_one_that_has_the_group_counts(tmp_path: Path) -> None:
    """As on a node that mounts a container's group a second time."""
    tree = Tree(tmp_path)
    tree.process("0::/a/b")
    tree.mount(("/c", "/mnt/c", "cgroup2", "rw"), ("/a", "/mnt/with\\040blank", "cgroup2", "rw"), V2)
    tree.group("/mnt/with blank/b")
    assert levels(tree, "memory") == ["/mnt/with blank/b", "/mnt/with blank"]


def test_a_process_that_is_moved_is_found_again(tmp_path: Path) -> None:
    """The groups are looked up only then."""
    tree = service(tmp_path)
    paths = CgroupPaths(str(tree.root))
    paths.refresh()
    before = paths.of
    paths.refresh()
    assert paths.of is before
    tree.process("0::/system.slice")
    paths.refresh()
    assert paths.of["cpu"].levels[0].endswith("/system.slice")


def test_without_a_file_descriptor_nothing_is_said_about_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is raised, so that the figures of before stay."""
    monkeypatch.setattr(os, "open", lambda *arguments: _raise(OSError(errno.EMFILE, "Too many open files")))
    with pytest.raises(OSError, match="Too many open files"):
        CgroupPaths(str(tmp_path)).refresh()
    monkeypatch.undo()
    assert read_bytes(str(tmp_path / "none")) is None
    assert read_bytes(str(tmp_path)) is None


def _raise(error: Exception) -> None:
    raise error
