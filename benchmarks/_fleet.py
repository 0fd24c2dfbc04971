"""A fleet on this machine: hosts whose relays and workers are played by a few processes.

A host is a Unix socket. Whoever connects to it talks to a real relay (`openrtc_top._relay.far_side`), which offers the
four workers of that host; these are FakeWorkers, served by core's own server, whose sessions all change each second.
What stands for the remote command is `CONNECT`: it connects its stdin and stdout to a host's socket.

python -m benchmarks._fleet FOLDER FIRST HOSTS WORKERS SESSIONS  serves so many hosts until its stdin ends; for each
line of it, prints how many snapshots were taken by then
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import anyio
from anyio.abc import TaskGroup
from msgspec.structs import replace

from openrtc_introspect_core.wire import Host, LoopTime, SessionRow, Snapshot, WorkerInfo, WorkerSocket
from openrtc_introspect_core.wire._row_table import RowTable, TableRow, Taken
from openrtc_introspect_testing import FakeWorker
from openrtc_top._relay.far_side import relay

AGENTS = ("dental", "restaurant", "support", "frontdesk")
SHARE_MB = 31.5
WINDOW_S = 1.5
CONNECT = (
    "import os,select,socket,sys\n"
    "s=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1])\n"
    "while 1:\n"
    " for f in select.select([0,s],[],[])[0]:\n"
    "  d=os.read(0,65536) if f==0 else s.recv(65536)\n"
    "  if not d:sys.exit()\n"
    "  s.sendall(d) if f==0 else sys.stdout.buffer.write(d) and sys.stdout.buffer.flush()\n"
)
"""A program of Python's standard library alone, so that it starts in some 15 ms."""


class MovingTable(RowTable):
    """The rows of sessions that have all stepped since the last snapshot. As of a real worker, only counts change."""

    def __init__(self, first: Snapshot, taken: Callable[[], object]) -> None:
        super().__init__()
        self._first = first
        self._taken = taken
        self._seq = 0
        self._now = 0.0
        self.rows = {row.session_id: TableRow(row=row, changed=1, counted=1) for row in first.sessions}

    def take(self) -> Taken:
        self._taken()
        self._seq += 1
        self._now = time.time()
        for at, each in enumerate(self.rows.values()):
            each.counted = self._seq
            each.steps += 50
            each.recent = (0.5 + (self._seq + at) % 17 / 10) / 100 * WINDOW_S
            each.busy += each.recent / WINDOW_S
            each.row = replace(each.row, last_step_at=self._now)
        self._stepped(self._seq, list(self.rows.values()), [], SHARE_MB)
        return Taken(self._seq, self._now, self._first.worker, [], SHARE_MB, WINDOW_S)

    def refresh(self, rows: Sequence[TableRow]) -> None:
        for each in rows:
            row, cpu_pct = each.row, 100 * each.recent / WINDOW_S
            duration_s = self._now - row.started_at
            each.row = replace(row, duration_s=duration_s, cpu_pct=cpu_pct, cpu_s=each.busy, steps=each.steps)


class MovingWorker(FakeWorker):
    """A worker whose sessions have all stepped since the last snapshot."""

    def __init__(self, name: str, sessions: int, path: Path, number: int) -> None:
        rows = [
            SessionRow(
                session_id=f"job-{number:03}{row:03}",
                agent_name=AGENTS[row % len(AGENTS)],
                tenant="acme" if row % 3 else None,
                started_at=time.time() - 10 * row,
                cpu_pct=0.0,
                mem_mb=SHARE_MB,
                peak_mb=40.0,
                tasks=7,
                steps=0,
                cpu_s=0.0,
                delayed_s=0.0,
                worst_delay_ms=0.0,
            )
            for row in range(sessions)
        ]
        info = WorkerInfo(
            name=name,
            pid=os.getpid(),
            epoch=f"{number}",
            loop="asyncio",
            python="3.13.0",
            sessions=sessions,
            rss_mb=SHARE_MB * sessions,
            lag_p99_ms=3.0 + number % 7,
            lag_max_ms=20.0,
            lag_method="iterations",
            loop_time=LoopTime(sessions_pct=20.0, untagged_pct=1.0, gc_pct=0.5, other_pct=3.0, idle_pct=75.5),
            host=Host(cpu_pct=40.0, cores=8, load_1m=1.0, process_cpu_pct=30.0, threads=9),
        )
        self._first = Snapshot(worker=info, sessions=rows)
        super().__init__([self._first], name=name, path=path)

    def table(self) -> RowTable:
        """Return the rows, which the server asks for instead of snapshots."""
        return MovingTable(self._first, self.snapshot)


def socket_of(folder: Path, host: int) -> Path:
    """Return the socket of a host."""
    return folder / f"host-{host:02}"


async def serve(folder: Path, first: int, hosts: int, workers: int, sessions: int) -> None:
    """Serve hosts, each with so many workers of so many sessions, until stdin ends."""
    served: list[FakeWorker] = []
    with ExitStack() as serving:
        async with anyio.create_task_group() as tasks:
            for host in range(first, first + hosts):
                found = []
                for number in range(workers):
                    path = folder / f"{host:02}-{number}.sock"
                    worker = MovingWorker(f"worker-{number + 1}", sessions, path, host * workers + number)
                    served.append(serving.enter_context(worker))
                    found.append(WorkerSocket(path, worker.name, os.getpid()))
                listener = socket.socket(socket.AF_UNIX)
                listener.bind(str(socket_of(folder, host)))
                listener.listen(16)
                listener.setblocking(False)
                tasks.start_soon(_accept, listener, found, tasks)
            print("ready", flush=True)
            while await anyio.to_thread.run_sync(sys.stdin.readline):
                print(sum(worker.snapshots_taken for worker in served), flush=True)
            tasks.cancel_scope.cancel()


async def _accept(listener: socket.socket, found: list[WorkerSocket], tasks: TaskGroup) -> None:
    while True:
        await anyio.wait_readable(listener)
        connection, _ = listener.accept()
        connection.setblocking(True)
        tasks.start_soon(_relay, connection, found)


async def _relay(connection: socket.socket, found: list[WorkerSocket]) -> None:
    with connection:
        try:
            await relay(lambda: found, connection.fileno(), connection.fileno(), print)
        except* OSError:
            pass  # the client was killed


if __name__ == "__main__":
    first, hosts, workers, sessions = map(int, sys.argv[2:6])
    anyio.run(serve, Path(sys.argv[1]), first, hosts, workers, sessions)
