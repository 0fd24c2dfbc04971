"""Hostile peers of a real worker's socket harm only their own connections."""

from __future__ import annotations

import json
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from benchmarks import _adversary

from openrtc_introspect_core import ConnectionFailed, RequestFailed, Snapshot, read_snapshot

if sys.platform == "win32":
    pytest.skip("serves no socket", allow_module_level=True)

pytestmark = pytest.mark.program

WITHIN_S = 60.0
MIB = 1 << 20
SESSIONS = 50

KINDS = tuple(_adversary.KINDS)

_WORKER = """
import asyncio, sys
from openrtc_introspect_core import Introspector

async def call(introspector, number):
    with introspector.session(f"job-{number:04}", agent_name="restaurant", metadata={"tenant": "acme"}):
        while True:
            await asyncio.sleep(0.02)

async def main():
    async with Introspector(name="worker", socket_path=sys.argv[1]) as introspector:
        calls = [asyncio.create_task(call(introspector, number)) for number in range(int(sys.argv[2]))]
        while len(introspector.snapshot().sessions) < len(calls):
            await asyncio.sleep(0)
        asked_to_end = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        print("ready", flush=True)
        await asked_to_end
        for each in calls:
            each.cancel()
    print("closed", flush=True)

asyncio.run(main())
"""


class Worker:
    """A worker in a process of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        command = [sys.executable, "-c", _WORKER, str(path), str(SESSIONS)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._line() == "ready"
        self.system = psutil.Process(self.process.pid)

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def rss(self) -> int:
        return int(self.system.memory_info().rss)

    def held(self) -> tuple[int, int]:
        """Return its numbers of file descriptors and threads."""
        return int(self.system.num_fds() or 0), int(self.system.num_threads() or 0)

    def read(self) -> Snapshot:
        """Return a snapshot as soon as the worker has room for one more client."""
        deadline = time.monotonic() + WITHIN_S
        while True:
            try:
                return read_snapshot(self.path, timeout_s=WITHIN_S)
            except (RequestFailed, ConnectionFailed):
                assert time.monotonic() < deadline, "the worker accepts no client"
                time.sleep(0.01)

    def end(self) -> str:
        """Ask the worker to end, and return its last line."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._line()


@pytest.fixture
def worker() -> Iterator[Worker]:
    directory = Path(tempfile.mkdtemp(prefix="openrtc-test-", dir="/tmp"))
    running = Worker(directory / "w.sock")
    with running.process as process:
        yield running
        process.kill()
    shutil.rmtree(directory)


def start(kind: str, worker: Worker, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, _adversary.__file__, kind, str(worker.path), str(seconds)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def unleash(kinds: tuple[str, ...], worker: Worker, seconds: float) -> dict[str, dict[str, int]]:
    """Run peers of these kinds at once. Return what each of them achieved."""
    with ExitStack() as stack:
        running = {kind: stack.enter_context(start(kind, worker, seconds)) for kind in kinds}
        try:
            for process in running.values():
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
            return {kind: json.loads(process.communicate(timeout=WITHIN_S)[0]) for kind, process in running.items()}
        finally:
            for process in running.values():
                process.kill()


def wait_until_released(worker: Worker, before: tuple[int, int]) -> None:
    """Wait until the worker has released everything that peers made it hold."""
    deadline = time.monotonic() + WITHIN_S
    while (held := worker.held())[0] > before[0] or held[1] > before[1]:
        assert time.monotonic() < deadline, f"{held} file descriptors and threads, {before} before"
        time.sleep(0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_peer_costs_its_own_connection_only(worker: Worker, kind: str) -> None:
    """Afterwards the worker answers, has released everything, and has not grown by 10 MB."""
    worker.read()
    before, rss = worker.held(), worker.rss()
    achieved = unleash((kind,), worker, 0.3)[kind]
    assert achieved["connections"] > 0
    snapshot = worker.read()
    assert len(snapshot.sessions) == SESSIONS
    assert snapshot.worker.notes == []
    wait_until_released(worker, before)
    assert worker.rss() - rss < 10 * MIB
    assert worker.end() == "closed"


@pytest.mark.slow
def test_all_of_them_together_cost_no_more(worker: Worker) -> None:
    """All sessions go on meanwhile, and the worker notes no problem."""
    first = worker.read()
    before, rss = worker.held(), worker.rss()
    unleash(KINDS, worker, 2.0)
    snapshot = worker.read()
    steps = {row.session_id: row.steps or 0 for row in first.sessions}
    assert all((row.steps or 0) > steps[row.session_id] for row in snapshot.sessions)
    assert snapshot.worker.notes == []
    wait_until_released(worker, before)
    assert worker.rss() - rss < 10 * MIB
    assert worker.end() == "closed"


@pytest.mark.slow
def test_ten_thousand_connections_lock_nobody_out(worker: Worker) -> None:
    """A crowd connects as fast as it can: a watcher still gets frames, and a new client is answered."""
    worker.read()
    before, rss = worker.held(), worker.rss()
    path = str(worker.path)
    with socket.socket(socket.AF_UNIX) as watcher, watcher.makefile("rb") as frames:
        watcher.settimeout(WITHIN_S)
        watcher.connect(path)
        watcher.sendall(b'{"type":"watch","id":1,"interval_s":0.1}\n')
        assert [json.loads(frames.readline())["type"] for _ in range(2)] == ["hello", "snapshot"]
        with start("crowd", worker, 10 * WITHIN_S) as crowd:
            assert crowd.stdin is not None
            assert crowd.stdout is not None
            crowd.stdin.write("\n")
            crowd.stdin.flush()
            answered, over = 0, False
            while not over:
                assert len(worker.read().sessions) == SESSIONS
                assert json.loads(frames.readline())["type"] == "snapshot"
                over = bool(select.select([crowd.stdout], [], [], 0.25)[0])
                answered += not over
            achieved = json.loads(crowd.stdout.readline())
    assert achieved["connections"] == 10_000
    assert answered > 2
    wait_until_released(worker, before)
    assert worker.rss() - rss < 10 * MIB
    assert worker.end() == "closed"


def test_a_gigabyte_without_a_newline_is_not_taken(worker: Worker) -> None:
    """The worker reads little more than the longest request from each connection."""
    worker.read()
    achieved = unleash(("endless",), worker, 0.5)["endless"]
    # At most 64 KiB of a request and one read, and two socket buffers of some 200 KiB.
    assert achieved["bytes"] < achieved["connections"] * MIB
