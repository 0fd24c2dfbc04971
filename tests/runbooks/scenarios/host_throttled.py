"""A healthy worker with much run delay: it shares one core with two processes of higher priority.

A cgroup's CPU limit has the same effect, and the kernel reports it in the same way. To set one takes rights that a test
does not have; niceness takes none. With the fix, the neighbours are not started.
"""

from __future__ import annotations

import os
import subprocess
import sys

from _worker import FIXED, LIFETIME_S, serve
from openrtc_introspect_core import Introspector

neighbours: list[subprocess.Popen[bytes]] = []

# They end with the worker, whose end closes the pipe that they poll.
NEIGHBOUR = """
import os, select, sys, time
until = time.time() + float(sys.argv[1])
while time.time() < until and not select.select([0], [], [], 0)[0]:
    for _ in range(10): sum(range(100_000))
"""


async def culprit(introspector: Introspector) -> None:
    if FIXED:
        return
    core = {max(os.sched_getaffinity(0))}
    command = [sys.executable, "-c", NEIGHBOUR, str(LIFETIME_S)]
    for _ in range(2):
        neighbour = subprocess.Popen(command, stdin=subprocess.PIPE)
        os.sched_setaffinity(neighbour.pid, core)
        neighbours.append(neighbour)
    os.sched_setaffinity(0, core)  # this thread, which is the loop's
    os.nice(19)


if __name__ == "__main__":
    serve(culprit)
