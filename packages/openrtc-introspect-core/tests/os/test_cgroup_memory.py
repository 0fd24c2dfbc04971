from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cgroup_trees import MIB, Tree, docker_host, docker_private, hybrid, pod, service, stat, version_1

from openrtc_introspect_core._os.cgroup_memory import charged_to, limits_of, own_level
from openrtc_introspect_core._os.cgroup_paths import CgroupPaths, Hierarchy

MOUNT = "/sys/fs/cgroup"
SERVICE = f"{MOUNT}/system.slice/voice.service"
NO_LIMIT_V1 = 9223372036854771712


def memory(tree: Tree) -> Hierarchy:
    paths = CgroupPaths(str(tree.root))
    paths.refresh()
    return paths.of["memory"]


@pytest.mark.parametrize(
    ("make", "limits"),
    [
        (docker_private, {"memory.max": 512}),
        (docker_host, {"system.slice/docker-12ab.scope/memory.max": 512}),
        (
            pod,
            {
                "kubepods.slice/kubepods-podab.slice/cri-containerd-12.scope/memory.max": 2048,
                "kubepods.slice/kubepods-podab.slice/memory.max": 1024,
                "kubepods.slice/memory.max": 30000,
            },
        ),
        (
            service,
            {"system.slice/voice.service/memory.max": 2048, "system.slice/voice.service/memory.high": 1024},
        ),
        (version_1, {}),
        (hybrid, {}),
    ],
)
def test_the_limits_of_all_levels_count(make: Callable[[Path], Tree], limits: dict[str, int], tmp_path: Path) -> None:
    """`memory.max`, where the kernel kills, and `memory.high`, where it slows down."""
    found = limits_of(memory(make(tmp_path)))
    top = f"{tmp_path}{MOUNT}/"
    assert {limit.file.removeprefix(top): limit.limit // MIB for limit in found if limit.file} == limits


def test_version_1_without_a_limit_has_none(tmp_path: Path) -> None:
    """Its file has the largest number of pages then."""
    tree = version_1(tmp_path)
    tree.group(f"{MOUNT}/memory", limit_in_bytes=NO_LIMIT_V1)
    assert limits_of(memory(tree)) == []
    folder = tree.group(f"{MOUNT}/memory", limit_in_bytes=256 * MIB)
    assert [(limit.limit, limit.file) for limit in limits_of(memory(tree))] == [
        (256 * MIB, f"{folder}/memory.limit_in_bytes")
    ]


def test_version_1_shows_the_limit_of_a_group_that_is_not_mounted(tmp_path: Path) -> None:
    """As that of a pod, inside of its container."""
    tree = version_1(tmp_path)
    tree.group(
        f"{MOUNT}/memory",
        limit_in_bytes=256 * MIB,
        memory_stat=stat(hierarchical_memory_limit=128 * MIB),
    )
    assert [(limit.limit // MIB, limit.file is None) for limit in limits_of(memory(tree))] == [
        (256, False),
        (128, True),
    ]


def test_what_can_be_reclaimed_is_not_used(tmp_path: Path) -> None:
    """File cache and the kernel's caches; shared memory is in `file` and cannot be reclaimed."""
    tree = service(tmp_path)
    level = tree.group(
        SERVICE,
        memory_current=1000,
        memory_stat=stat(
            anon=300,
            file=550,
            kernel=150,
            shmem=50,
            inactive_anon=350,
            active_anon=0,
            inactive_file=400,
            active_file=100,
            slab_reclaimable=90,
        ),
    )
    charged = charged_to(level, 2)
    assert charged is not None
    assert (charged.current, charged.anon, charged.file, charged.kernel) == (1000, 300, 550, 150)
    assert charged.used == 1000 - 400 - 100 - 90
    assert charged.working_set == 1000 - 400


def test_before_linux_5_18_kernel_memory_is_the_rest(tmp_path: Path) -> None:
    """It has no line of its own there."""
    level = service(tmp_path).group(SERVICE, memory_current=1000, memory_stat=stat(anon=300, file=550))
    charged = charged_to(level, 2)
    assert charged is not None
    assert charged.kernel == 150


def test_version_1_counts_the_groups_below(tmp_path: Path) -> None:
    """Its other fields are of the group alone."""
    level = version_1(tmp_path).group(
        f"{MOUNT}/memory",
        usage_in_bytes=1000,
        memory_stat=stat(
            rss=1, cache=1, total_rss=300, total_cache=600, total_inactive_file=450, total_active_file=100
        ),
    )
    charged = charged_to(level, 1)
    assert charged is not None
    assert (charged.anon, charged.file, charged.kernel) == (300, 600, 100)
    assert (charged.used, charged.working_set) == (450, 550)


def test_memory_is_charged_to_the_nearest_group_that_counts_it(tmp_path: Path) -> None:
    """A group may be without the controller, as a user's are."""
    tree = service(tmp_path)
    assert own_level(memory(tree)) is None
    above = tree.group(f"{MOUNT}/system.slice", memory_current=5, memory_stat=stat(anon=5))
    assert own_level(memory(tree)) == above
    own = tree.group(SERVICE, memory_current=3, memory_stat=stat(anon=3))
    assert own_level(memory(tree)) == own
