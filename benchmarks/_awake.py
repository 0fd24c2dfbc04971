"""Cores that are kept awake while a benchmark measures.

A core that sleeps takes some microseconds to wake up, in an amount that changes from second to second, and its caches
go cold. This noise is several times what introspection adds. A process of the idle scheduling class on each core runs
only while nothing else wants to, so it takes no time from what is measured, and the core never sleeps.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

POSSIBLE = sys.platform == "linux"
_SPIN = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while os.getppid() == int(sys.argv[2]):
    for _ in range(1_000_000):
        pass
"""


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """Keep the cores of this process awake. Linux only."""
    cores = os.sched_getaffinity(0) if sys.platform == "linux" else ()
    spinning = [subprocess.Popen([sys.executable, "-c", _SPIN, str(core), str(os.getpid())]) for core in cores]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
        for process in spinning:
            process.wait()
