"""`openrtc top` on fifty hosts: how long until all is shown, and what the view costs.

The real command runs in a pseudo-terminal of 200×50. Four workers on each host have sixty sessions each, all of which
change each second. The hosts are played by two processes of this machine (`_fleet`), and are reached by real ssh on
loopback, or by a program here in its place: fifty logins cost this machine's own processors, at both ends.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import psutil

from . import _loops, view
from ._case import Case, Result, Results, Row, value
from ._fleet import CONNECT, socket_of
from ._runner import ROOT
from ._sshd import sshd

HOSTS, WORKERS, SESSIONS = 50, 4, 60
SERVERS = 2
ALL = HOSTS * WORKERS * SESSIONS
PATIENCE_S = 60.0
TRANSPORTS = ("ssh", "a local program")


def cases(quick: bool) -> list[Case]:
    seconds, starts = (3.0, 1) if quick else (30.0, 3)
    needs = ("openrtc_top", "openrtc_introspect_testing")
    found = []
    for transport in TRANSPORTS:
        programs = ("ssh", "ssh-keygen") if transport == "ssh" else ()
        for bad in (0, 2):
            name = f"{transport}, {bad} bad hosts" if bad else transport
            arguments = {"transport": transport, "bad": bad, "seconds": seconds, "starts": 1 if bad else starts}
            found.append(Case(name, measure, arguments, limit_s=400.0, needs=needs, programs=programs))
    return found


def measure(transport: str, bad: int, seconds: float, starts: int) -> Result:
    """Measure with so many further hosts that do not answer, every other one of them with an error."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-")))
        servers = stack.enter_context(_servers(folder))
        (folder / "connect.py").write_text(CONNECT)
        login = stack.enter_context(sshd(folder)) if transport == "ssh" else []
        connect = f"{sys.executable} -S -I {folder}/connect.py {folder}/{{}}"
        names = [socket_of(folder, host).name for host in range(HOSTS)]
        (folder / "hosts").write_text("".join(f"{name}\n" for name in [*_bad_hosts(folder, bad), *names]))
        options = ("--via-each", f"cat {folder}/hosts", "--via", f"{' '.join(login)} {connect}")
        return _loops.run("asyncio", _measure(options, servers, seconds, starts))


def _bad_hosts(folder: Path, count: int) -> list[str]:
    """Return the names of hosts that stay silent, or that there are none of."""
    for number in range(count // 2):
        silent = socket_of(folder, 90 + number)
        subprocess.run([sys.executable, "-c", f"import socket;s=socket.socket(1);s.bind({str(silent)!r})"], check=True)
    return [socket_of(folder, 90 + number).name for number in range(count)]


async def _measure(options: tuple[str, ...], servers: Servers, seconds: float, starts: int) -> Result:
    full_after = []
    for start in range(starts):
        began = time.perf_counter()
        async with view.running(*options) as shown:
            shown.patience_s = PATIENCE_S
            await shown.shows(f"of {ALL} ".encode())
            full_after.append(time.perf_counter() - began)
            if start < starts - 1:
                continue
            await asyncio.sleep(3.0)  # until the work at the start is over
            process = psutil.Process(shown.pid)
            frames, before, wall = servers.snapshots(), process.cpu_times(), time.perf_counter()
            await asyncio.sleep(seconds)
            after, wall = process.cpu_times(), time.perf_counter() - wall
            return {
                "full_s": median(full_after),
                "cpu_pct": 100.0 * (after.user + after.system - before.user - before.system) / wall,
                "frames_per_s": (servers.snapshots() - frames) / wall,
                "rss_mb": process.memory_info().rss / 2**20,
            }
    raise AssertionError


class Servers:
    """The processes that play the hosts."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes

    def snapshots(self) -> int:
        """Return how many snapshots all workers have taken."""
        taken = 0
        for process in self._processes:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            taken += int(process.stdout.readline())
        return taken


@contextmanager
def _servers(folder: Path) -> Iterator[Servers]:
    each = HOSTS // SERVERS
    with ExitStack() as stack:
        processes = []
        for number in range(SERVERS):
            arguments = [str(folder), *map(str, (number * each, each, WORKERS, SESSIONS))]
            command = [sys.executable, "-m", "benchmarks._fleet", *arguments]
            pipe = subprocess.PIPE
            process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
            stack.enter_context(process)
            stack.callback(process.terminate)
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield Servers(processes)


def rows(results: Results) -> list[Row]:
    what = f"{HOSTS} hosts × {WORKERS} workers × {SESSIONS} sessions"
    found = []
    for transport in TRANSPORTS:
        by = f"{what}, by {transport}"
        bad = f"{transport}, 2 bad hosts"
        found += [
            Row(f"{by}: from start to all sessions", value(results, transport, "full_s"), "s", must=5.0),
            Row(f"{by}, beside 2 that do not answer: the same", value(results, bad, "full_s"), "s", must=5.0),
            Row(f"{by}: the view's CPU at 1 Hz, of a core", value(results, transport, "cpu_pct"), "%", must=15.0),
            Row(f"{by}: frames it reads", value(results, transport, "frames_per_s"), "a second"),
            Row(f"{by}: the view's RSS", value(results, transport, "rss_mb"), "MB", must=150.0),
        ]
    return found
