from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cgroup_trees import Tree, docker_host, docker_private, hybrid, nothing, pod, service, stat, version_1

from openrtc_introspect_core._os.cgroup_paths import CgroupPaths
from openrtc_introspect_core._os.cgroup_throttling import Throttling, throttling_of

MOUNT = "/sys/fs/cgroup"
SERVICE = f"{MOUNT}/system.slice/voice.service"
POD = f"{MOUNT}/kubepods.slice/kubepods-podab.slice"


def throttling(tree: Tree) -> Throttling:
    paths = CgroupPaths(str(tree.root))
    paths.refresh()
    return throttling_of(paths.of.get("cpu"))


@pytest.mark.parametrize(
    ("make", "quotas"),
    [
        (docker_private, [(1.5, f"{MOUNT}/cpu.max")]),
        (docker_host, [(0.5, f"{MOUNT}/system.slice/docker-12ab.scope/cpu.max")]),
        (pod, [(2.0, f"{POD}/cri-containerd-12.scope/cpu.max"), (1.0, f"{POD}/cpu.max")]),
        (service, [(0.4, f"{SERVICE}/cpu.max")]),
        (version_1, []),
        (hybrid, []),
        (nothing, []),
    ],
)
def test_the_quotas_of_all_levels_count(
    make: Callable[[Path], Tree], quotas: list[tuple[float, str]], tmp_path: Path
) -> None:
    """In processors, with the file that has each."""
    found = throttling(make(tmp_path)).quotas
    assert [(quota.processors, quota.file.removeprefix(str(tmp_path))) for quota in found] == quotas


def test_version_1_has_its_quota_in_two_files(tmp_path: Path) -> None:
    """The quota and its period."""
    tree = version_1(tmp_path)
    tree.group(f"{MOUNT}/cpu,cpuacct", quota_us=250000, period_us=100000)
    (quota,) = throttling(tree).quotas
    assert quota.processors == 2.5


def test_the_groups_own_counter_is_not_that_of_the_root(tmp_path: Path) -> None:
    """A service's throttling is its own, whatever the root's file says."""
    tree = service(tmp_path)
    tree.group(MOUNT, cpu_stat=stat(throttled_usec=99_000_000))
    tree.group(SERVICE, cpu_stat=stat(nr_periods=40, nr_throttled=10, throttled_usec=2_500_000))
    assert throttling(tree).total_s() == 2.5
    assert throttling(tree).periods() == [(40, 10)]


def test_the_throttling_of_a_group_above_counts(tmp_path: Path) -> None:
    """The group itself is never throttled then."""
    tree = pod(tmp_path)
    tree.group(f"{POD}/cri-containerd-12.scope", cpu_stat=stat(nr_periods=9, throttled_usec=0))
    tree.group(POD, cpu_stat=stat(nr_periods=20, nr_throttled=19, throttled_usec=1_500_000))
    assert throttling(tree).total_s() == 1.5


def test_a_container_sees_the_throttling_by_quotas_that_it_does_not_see(tmp_path: Path) -> None:
    """`cpu.stat.local` counts that of all groups above."""
    tree = docker_private(tmp_path)
    tree.group(MOUNT, cpu_max="max 100000", cpu_stat=stat(usage_usec=1))
    folder = Path(tree.group(MOUNT))
    (folder / "cpu.stat.local").write_text(stat(throttled_usec=0))
    assert throttling(tree).total_s() is None
    (folder / "cpu.stat.local").write_text(stat(throttled_usec=750_000))
    assert throttling(tree).total_s() == 0.75


def test_version_1_counts_in_nanoseconds(tmp_path: Path) -> None:
    """Both of its files do."""
    tree = version_1(tmp_path)
    folder = tree.group(
        f"{MOUNT}/cpu,cpuacct", quota_us=50000, period_us=100000, cpu_stat=stat(throttled_time=3_000_000_000)
    )
    assert throttling(tree).total_s() == 3.0
    (Path(folder) / "cpu.stat.local").write_text(stat(throttled_time=4_000_000_000))
    assert throttling(tree).total_s() == 4.0


def test_without_a_quota_there_is_no_throttling(tmp_path: Path) -> None:
    """None, not 0: nothing is counted."""
    assert throttling(nothing(tmp_path)).total_s() is None
