"""Run an example in a process of its own, and read its worker's snapshots."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from openrtc_introspect_core import Snapshot, read_snapshot
from openrtc_introspect_core.wire import discover

EXAMPLES = Path(__file__).parent.parent / "examples"


@dataclass
class ExampleRun:
    """An example that has ended."""

    snapshot: Snapshot
    """The first one that met the condition; else the last one."""
    returncode: int
    output: str
    errors: str


def one_has_blocked(snapshot: Snapshot) -> bool:
    return any(row.blocks for row in snapshot.sessions)


def run_example(
    script: str,
    *arguments: str,
    worker: str,
    within_s: float,
    until: Callable[[Snapshot], bool] = one_has_blocked,
) -> ExampleRun:
    """Run an example to its end, and take snapshots of its worker until one meets the condition."""
    snapshot = None
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + within_s
        while process.poll() is None and time.monotonic() < deadline:
            snapshot = _snapshot_of(worker) or snapshot
            if snapshot is not None and until(snapshot):
                break
            time.sleep(0.05)
        output, errors = process.communicate(timeout=within_s)
    assert snapshot is not None, errors
    return ExampleRun(snapshot, process.returncode, output, errors)


def _snapshot_of(name: str) -> Snapshot | None:
    found = [worker for worker in discover() if worker.name == name]
    return read_snapshot(found[0].path) if found else None
