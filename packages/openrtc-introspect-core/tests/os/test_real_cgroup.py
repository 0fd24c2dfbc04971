"""A control group of the kernel's own, where the user may make one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from openrtc_introspect_core._os.cgroup_paths import CgroupPaths

PROGRAM = """
import json, os, sys, time
import psutil
from openrtc_introspect_core._os.host_vitals import HostVitals

def fails(error):
    raise error

with open(f"{sys.argv[1]}/cgroup.procs", "w") as procs:
    procs.write(str(os.getpid()))
host = HostVitals(psutil.Process(), fails)
host.sample(0.0)
deadline = time.monotonic() + 30.0
seen = host.cgroup
while not (seen.cpu_throttled_s and seen.cpu_throttled_pct) and time.monotonic() < deadline:
    before = time.process_time()
    while time.process_time() < before + 0.05:
        pass
    host.sample(time.monotonic())
    seen = host.cgroup
print(json.dumps([seen.cpu_limit, seen.cpu_limit_file, seen.cpu_throttled_pct, seen.cpu_throttled_s]))
"""


@pytest.fixture
def limited_group() -> Iterator[Path]:
    """A group that may use a fifth of a processor, for the length of a test; it has a group below it."""
    paths = CgroupPaths()
    paths.refresh()
    group = paths.of.get("cpu")
    if group is None:
        pytest.skip("no control group of the controller cpu is mounted")
    parent = Path(group.levels[0] if group.version == 1 else group.levels[-1])
    outer = parent / f"openrtc-test-{os.getpid()}"
    inner = outer / "below"
    try:
        inner.mkdir(parents=True)
        if group.version == 1:
            (outer / "cpu.cfs_quota_us").write_text("20000")
        else:
            (outer / "cpu.max").write_text("20000 100000")
        yield outer
    except OSError as error:
        pytest.skip(f"no control group with a quota can be made: {error}")
    finally:
        for folder in (inner, outer):
            with suppress(OSError):
                folder.rmdir()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has control groups")
def test_the_quota_of_a_group_above_is_seen(limited_group: Path) -> None:
    """The process's own group has none, and its `cpu.stat` shows nothing."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(limited_group / "below")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    limit, file, throttled_pct, throttled_s = json.loads(done.stdout)
    assert limit == pytest.approx(0.2)
    assert Path(file).parent == limited_group
    assert 0 < throttled_pct <= 100
    assert throttled_s > 0
