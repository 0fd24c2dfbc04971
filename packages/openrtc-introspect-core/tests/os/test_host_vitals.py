from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from cgroup_trees import MIB, docker_private, stat

from openrtc_introspect_core._os import host_vitals
from openrtc_introspect_core._os.cgroup import CgroupReader
from openrtc_introspect_core._os.cgroup_paths import CgroupPaths
from openrtc_introspect_core._os.host_vitals import HostVitals


def vitals_of(root: Path | None = None, faults: list[Exception] | None = None) -> HostVitals:
    """The vitals of this process. root: has its control groups."""
    paths = CgroupPaths(str(root)) if root is not None else None
    return HostVitals(psutil.Process(), faults.append if faults is not None else pytest.fail, paths)


def test_rates_are_unknown_until_there_are_two_samples() -> None:
    """None, not 0: nothing was measured yet."""
    host = vitals_of()
    host.sample(0.0)
    assert (host.now().cpu_pct, host.now().process_cpu_pct) == (None, None)
    assert host.now().threads >= 1
    assert host.now().cores >= 1


def test_rates_are_of_the_time_between_two_samples() -> None:
    """A process that works shows as busy; the machine stays within 0–100 %."""
    host = vitals_of()
    host.sample(0.0, accounted=0.0)
    sum(range(20_000_000))
    host.sample(0.5, accounted=0.001)
    vitals = host.now()
    assert vitals.process_cpu_pct is not None
    assert vitals.process_cpu_pct > 1
    assert vitals.other_threads_pct is not None
    assert vitals.other_threads_pct <= vitals.process_cpu_pct
    assert vitals.cpu_pct is not None
    assert 0 <= vitals.cpu_pct <= 100


@pytest.mark.parametrize(("busy_s", "used_pct"), [(0.1 + 0.2, 100.0), (-0.01, 0.0), (0.15, 50.0)])
def test_the_hosts_use_is_a_share(monkeypatch: pytest.MonkeyPatch, busy_s: float, used_pct: float) -> None:
    """Though sums are rounded, and though the kernel's figure for iowait can fall."""
    times = iter([(0.0, 0.0), (busy_s, 0.3)])
    monkeypatch.setattr(host_vitals, "_cpu_times", lambda: next(times))
    host = vitals_of()
    host.sample(0.0)
    host.sample(0.5)
    assert host.now().cpu_pct == used_pct


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "strfry"), reason="needs a function of glibc's"
)
def test_threads_that_python_does_not_know_are_other_threads() -> None:
    """As those of a native pool: one that C code starts, and that runs no Python, computes for some time."""
    libc = ctypes.CDLL(None)
    text = ctypes.create_string_buffer(b"x" * 4 * MIB)
    thread = ctypes.c_ulong()
    host = vitals_of()
    before = time.process_time() - time.thread_time()
    host.sample(0.0, accounted=time.thread_time())
    known = threading.enumerate()
    started = libc.pthread_create(ctypes.byref(thread), None, libc.strfry, text)  # shuffles the text
    assert started == 0
    assert threading.enumerate() == known
    libc.pthread_join(thread, None)
    used_s = time.process_time() - time.thread_time() - before
    host.sample(1.0, accounted=time.thread_time())
    shown = host.now().other_threads_pct
    assert used_s > 0.005
    assert shown is not None
    assert shown >= 50 * used_s


def test_the_machines_memory_is_known_after_a_sample() -> None:
    """What is available is a part of it."""
    host = vitals_of()
    assert host.now().memory_mb is None
    host.sample(0.0)
    vitals = host.now()
    assert vitals.memory_mb is not None
    assert vitals.memory_available_mb is not None
    assert 0 < vitals.memory_available_mb <= vitals.memory_mb


def test_the_control_group_is_sampled_with_the_host(tmp_path: Path) -> None:
    """Null before the first sample."""
    tree = docker_private(tmp_path)
    tree.group("/sys/fs/cgroup", memory_current=100 * MIB, memory_stat=stat(anon=90 * MIB))
    host = vitals_of(tmp_path)
    assert (host.cgroup, host.throttling.quotas) == (None, ())
    host.sample(0.0)
    assert host.cgroup is not None
    assert (host.cgroup.cpu_limit, host.cgroup.memory_limit_mb, host.cgroup.anon_mb) == (1.5, 512.0, 90.0)
    assert [quota.processors for quota in host.throttling.quotas] == [1.5]


def test_the_control_group_is_read_every_two_seconds_and_without_sessions_every_ten(tmp_path: Path) -> None:
    """To read it takes longer than the rest of a sample."""
    group = docker_private(tmp_path)
    host = vitals_of(tmp_path)
    shown = []
    samples = ((0.0, True), (2.0, True), (3.0, False), (4.0, False), (5.0, False), (10.0, True), (15.0, True))
    for anon, (now, idle) in enumerate(samples):
        group.group("/sys/fs/cgroup", memory_current=100 * MIB, memory_stat=stat(anon=anon * MIB))
        host.sample(now, idle=idle)
        assert host.cgroup is not None
        shown.append(host.cgroup.anon_mb)
    assert shown == [0.0, 0.0, 2.0, 2.0, 4.0, 4.0, 6.0]


def test_a_fault_in_reading_the_control_group_switches_it_off(tmp_path: Path) -> None:
    """Once, and all else goes on."""
    tree = docker_private(tmp_path)
    tree.process("no fields")
    faults: list[Exception] = []
    host = vitals_of(tmp_path, faults)
    host.sample(0.0)
    host.sample(2.0)
    assert [type(fault) for fault in faults] == [ValueError]
    assert (host.cgroup, host.throttling.quotas) == (None, ())
    assert host.now().cpu_pct is not None or host.now().memory_mb is not None


def test_figures_that_cannot_be_read_now_are_the_last_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A want of file descriptors passes."""
    docker_private(tmp_path)
    host = vitals_of(tmp_path)
    host.sample(0.0)
    before = host.cgroup
    assert before is not None

    def fails(self: CgroupReader, now: float) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(CgroupReader, "read", fails)
    host.sample(2.0)
    assert host.trouble is not None
    assert "Too many open files" in host.trouble
    assert host.cgroup is before


def test_the_real_group_of_this_process_is_read() -> None:
    """What it allocates is charged to it, if its memory is counted at all."""
    host = vitals_of()
    host.sample(0.0)
    if host.cgroup is None or host.cgroup.anon_mb is None:
        pytest.skip(f"no control group counts the memory of process {os.getpid()}")
    before = host.cgroup.anon_mb
    held = bytearray(os.urandom(1) * 200 * MIB)
    host.sample(2.0)
    assert host.cgroup.anon_mb > before + 100
    assert host.cgroup.memory_used_mb is not None
    assert host.cgroup.memory_current_mb is not None
    assert 100 <= host.cgroup.memory_used_mb <= host.cgroup.memory_current_mb
    assert len(held) == 200 * MIB
