from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from cgroup_trees import MIB, V2, Tree, docker_private, hybrid, nothing, pod, service, stat, version_1

from openrtc_introspect_core._os.cgroup import LIMITS_EVERY_S, CgroupReader
from openrtc_introspect_core._os.cgroup_paths import CgroupPaths
from openrtc_introspect_core.wire import Cgroup

MOUNT = "/sys/fs/cgroup"
SERVICE = f"{MOUNT}/system.slice/voice.service"
POD = f"{MOUNT}/kubepods.slice/kubepods-podab.slice"
CONTAINER = f"{POD}/cri-containerd-12.scope"


def reader(tree: Tree, cores: int = 8) -> CgroupReader:
    return CgroupReader(CgroupPaths(str(tree.root)), cores)


def read(tree: Tree, cores: int = 8) -> Cgroup:
    found = reader(tree, cores).read(0.0)
    assert found is not None
    return found


def of(current: int, anon: int) -> dict[str, str | int]:
    """The files of a group with so much memory, MB."""
    return {"memory_current": current * MIB, "memory_stat": stat(anon=anon * MIB, inactive_file=(current - anon) * MIB)}


def test_without_control_groups_there_is_none(tmp_path: Path) -> None:
    """As on macOS."""
    assert reader(nothing(tmp_path)).read(0.0) is None


def test_what_is_not_known_is_null(tmp_path: Path) -> None:
    """A group without limits and counters has neither."""
    assert read(hybrid(tmp_path)) == Cgroup()


def test_the_smallest_quota_is_the_limit(tmp_path: Path) -> None:
    """Here the pod's, not the container's own."""
    shown = read(pod(tmp_path))
    assert (shown.cpu_limit, shown.cpu_limit_file) == (1.0, f"{tmp_path}{POD}/cpu.max")


@pytest.mark.parametrize(("cpus", "limit"), [("0-3", None), ("0,2", 2.0), ("1", 1.0), ("0-1,3", 3.0), ("", None)])
def test_a_set_of_processors_is_a_limit_if_it_is_not_all(cpus: str, limit: float | None, tmp_path: Path) -> None:
    """As `docker run --cpuset-cpus` sets it. The machine has four."""
    tree = docker_private(tmp_path)
    folder = tree.group(MOUNT, cpu_max="max 100000")
    (Path(folder) / "cpuset.cpus.effective").write_text(f"{cpus}\n")
    assert read(tree, cores=4).cpu_limit == limit


def test_version_1_has_a_set_of_processors_too(tmp_path: Path) -> None:
    tree = version_1(tmp_path)
    folder = tree.group(f"{MOUNT}/cpuset", effective_cpus="4-5")
    shown = read(tree)
    assert (shown.cpu_limit, shown.cpu_limit_file) == (2.0, f"{folder}/cpuset.effective_cpus")


def test_throttled_periods_are_those_between_two_readings(tmp_path: Path) -> None:
    """The highest of all levels; the first reading has nothing to compare with."""
    tree = pod(tmp_path)
    tree.group(CONTAINER, cpu_stat=stat(nr_periods=100, nr_throttled=100, throttled_usec=0))
    tree.group(POD, cpu_stat=stat(nr_periods=1000, nr_throttled=10, throttled_usec=5_000_000))
    group = reader(tree)
    first = group.read(0.0)
    tree.group(CONTAINER, cpu_stat=stat(nr_periods=110, nr_throttled=101, throttled_usec=0))
    tree.group(POD, cpu_stat=stat(nr_periods=1010, nr_throttled=14, throttled_usec=5_250_000))
    second = group.read(1.0)
    third = group.read(2.0)
    assert first is not None
    assert (first.cpu_throttled_pct, first.cpu_throttled_s) == (None, 0.0)
    assert second is not None
    assert (second.cpu_throttled_pct, second.cpu_throttled_s) == (40.0, 0.25)
    assert third is not None
    assert (third.cpu_throttled_pct, third.cpu_throttled_s) == (0.0, 0.25)


def test_the_limit_with_the_least_left_is_the_nearest(tmp_path: Path) -> None:
    """A sidecar may use most of the pod's."""
    tree = pod(tmp_path)
    tree.group(CONTAINER, memory_max=600 * MIB, **of(500, 300))
    tree.group(POD, **of(1000, 900))
    tree.group(f"{MOUNT}/kubepods.slice", **of(2000, 1800))
    shown = read(tree)
    assert (shown.memory_limit_mb, shown.memory_limit_file) == (1024.0, f"{tmp_path}{POD}/memory.max")
    assert (shown.memory_used_mb, shown.memory_current_mb, shown.anon_mb) == (900.0, 1000.0, 900.0)


def test_memory_high_is_a_limit_too(tmp_path: Path) -> None:
    """The kernel slows the processes down there."""
    tree = service(tmp_path)
    tree.group(SERVICE, **of(900, 800))
    shown = read(tree)
    assert (shown.memory_limit_mb, shown.memory_limit_file) == (1024.0, f"{tmp_path}{SERVICE}/memory.high")


def test_without_a_limit_memory_is_that_of_the_own_group(tmp_path: Path) -> None:
    tree = docker_private(tmp_path)
    tree.group(MOUNT, memory_max="max", **of(100, 60))
    shown = read(tree)
    assert (shown.memory_limit_mb, shown.memory_limit_file, shown.memory_used_mb) == (None, None, 60.0)


def test_kills_are_those_of_the_own_group(tmp_path: Path) -> None:
    """Others' are in the groups above as well."""
    tree = pod(tmp_path)
    tree.group(CONTAINER, memory_events=stat(low=0, high=7, max=5, oom=2, oom_kill=1), **of(10, 5))
    tree.group(POD, memory_events=stat(oom_kill=9), **of(10, 5))
    assert read(tree).oom_kills == 1


def test_version_1_counts_kills_in_another_file(tmp_path: Path) -> None:
    tree = version_1(tmp_path)
    tree.group(
        f"{MOUNT}/memory", usage_in_bytes=5, memory_stat=stat(total_rss=5), oom_control=stat(under_oom=0, oom_kill=2)
    )
    assert read(tree).oom_kills == 2


def test_pressure_is_that_of_the_last_ten_seconds(tmp_path: Path) -> None:
    """Of some thread, as the kernel reports it; a kernel without it has none."""
    tree = service(tmp_path)
    line = "some avg10={} avg60=0.00 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0"
    tree.group(SERVICE, cpu_pressure=line.format("12.50"), memory_pressure=line.format("0.25"))
    shown = read(tree)
    assert (shown.cpu_pressure_pct, shown.memory_pressure_pct) == (12.5, 0.25)
    assert read(docker_private(tmp_path / "other")).cpu_pressure_pct is None


def test_a_limit_that_changes_is_seen_after_some_seconds(tmp_path: Path) -> None:
    """A pod can be resized while it runs."""
    tree = docker_private(tmp_path)
    group = reader(tree)
    group.read(0.0)
    tree.group(MOUNT, cpu_max="400000 100000", memory_max=1024 * MIB, **of(10, 5))
    shown = group.read(LIMITS_EVERY_S)
    assert shown is not None
    assert (shown.cpu_limit, shown.memory_limit_mb) == (4.0, 1024.0)


def test_a_process_that_is_moved_has_the_limits_of_its_new_group(tmp_path: Path) -> None:
    """At once, and its throttling goes on from there."""
    tree = service(tmp_path)
    tree.group(SERVICE, cpu_stat=stat(nr_periods=10, nr_throttled=9, throttled_usec=1_000_000))
    group = reader(tree)
    group.read(0.0)
    tree.group(
        f"{MOUNT}/fast",
        cpu_max="300000 100000",
        cpu_stat=stat(nr_periods=99, nr_throttled=99, throttled_usec=9_000_000),
    )
    tree.process("0::/fast")
    shown = group.read(1.0)
    assert shown is not None
    assert (shown.cpu_limit, shown.cpu_throttled_pct, shown.cpu_throttled_s) == (3.0, None, 0.0)


def test_a_group_that_is_removed_is_not_known_any_more(tmp_path: Path) -> None:
    """Its files are gone, which is no fault."""
    tree = docker_private(tmp_path)
    folder = Path(tree.group(MOUNT, **of(10, 5)))
    group = reader(tree)
    group.read(0.0)
    for file in folder.iterdir():
        file.unlink()
    shown = group.read(1.0)
    assert shown is not None
    assert (shown.memory_used_mb, shown.oom_kills) == (None, None)
    assert group.read(2 * LIMITS_EVERY_S) == Cgroup()


def test_a_groups_name_need_not_be_text(tmp_path: Path) -> None:
    """On the wire it is."""
    tree = Tree(tmp_path)
    (tmp_path / "proc/self/cgroup").write_bytes(b"0::/caf\xe9\n")
    tree.mount(V2)
    tree.group(f"{MOUNT}/caf\udce9", cpu_max="50000 100000")
    shown = read(tree)
    assert shown.cpu_limit_file == f"{tmp_path}{MOUNT}/caf\ufffd/cpu.max"
    assert msgspec.json.decode(msgspec.json.encode(shown), type=Cgroup) == shown
