"""A real worker, and peers that do their worst to its socket: only their own connections suffer."""

from __future__ import annotations

import importlib.util
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

from openrtc_introspect_core import ConnectionFailed, RequestFailed, Snapshot, read_snapshot

if sys.platform == "win32":
    pytest.skip("serves no socket", allow_module_level=True)

ROOT = Path(__file__).resolve().parent.parent
ADVERSARY = ROOT / "benchmarks" / "_adversary.py"
WITHIN_S = 60.0
MIB = 1 << 20
SESSIONS = 50

KINDS = ("flood", "noise", "endless", "deep", "stall", "half_close", "vanish", "crowd")

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
        told_to_end = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        print("ready", flush=True)
        await told_to_end
        for each in calls:
            each.cancel()
    print("closed", flush=True)

asyncio.run(main())
"""


class Worker:
    """A worker in a process of its own, and what it holds."""

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
        """(file descriptors, threads)"""
        return int(self.system.num_fds() or 0), int(self.system.num_threads() or 0)

    def read(self) -> Snapshot:
        """A snapshot, as soon as there is room for one more client."""
        deadline = time.monotonic() + WITHIN_S
        while True:
            try:
                return read_snapshot(self.path, timeout_s=WITHIN_S)
            except (RequestFailed, ConnectionFailed):
                assert time.monotonic() < deadline, "the worker takes no one any more"
                time.sleep(0.01)

    def end(self) -> str:
        """What it says last."""
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
    command = [sys.executable, str(ADVERSARY), kind, str(worker.path), str(seconds)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def unleash(kinds: tuple[str, ...], worker: Worker, seconds: float) -> dict[str, dict[str, int]]:
    """Lets them loose together; what each of them achieved."""
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


def wait_until_let_go(worker: Worker, before: tuple[int, int]) -> None:
    """Until nothing of the peers is left in the worker."""
    deadline = time.monotonic() + WITHIN_S
    while (held := worker.held())[0] > before[0] or held[1] > before[1]:
        assert time.monotonic() < deadline, f"{held} file descriptors and threads, {before} before"
        time.sleep(0.01)


def test_every_kind_is_tried() -> None:
    """This page's list is the adversary's own."""
    spec = importlib.util.spec_from_file_location("adversary", ADVERSARY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert tuple(module.KINDS) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_peer_costs_its_own_connection_only(worker: Worker, kind: str) -> None:
    """Afterwards the worker is as it was: it answers, has let go of everything, and has not grown by 10 MB."""
    worker.read()
    before, rss = worker.held(), worker.rss()
    achieved = unleash((kind,), worker, 0.3)[kind]
    assert achieved["connections"] > 0
    told = worker.read()
    assert len(told.sessions) == SESSIONS
    assert told.worker.notes == []
    wait_until_let_go(worker, before)
    assert worker.rss() - rss < 10 * MIB
    assert worker.end() == "closed"


@pytest.mark.slow
def test_all_of_them_together_cost_no_more(worker: Worker) -> None:
    """The sessions go on meanwhile, and none of them is blamed for anything."""
    first = worker.read()
    before, rss = worker.held(), worker.rss()
    unleash(KINDS, worker, 2.0)
    told = worker.read()
    steps = {row.session_id: row.steps or 0 for row in first.sessions}
    assert all((row.steps or 0) > steps[row.session_id] for row in told.sessions)
    assert told.worker.notes == []
    wait_until_let_go(worker, before)
    assert worker.rss() - rss < 10 * MIB
    assert worker.end() == "closed"


@pytest.mark.slow
def test_ten_thousand_connections_lock_nobody_out(worker: Worker) -> None:
    """As fast as they are taken and kept open: who watches goes on, who comes to ask is answered."""
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
    wait_until_let_go(worker, before)
    assert worker.rss() - rss < 10 * MIB
    assert worker.end() == "closed"


def test_a_gigabyte_without_a_newline_is_not_taken(worker: Worker) -> None:
    """Of each connection the worker takes little more than the longest request."""
    worker.read()
    achieved = unleash(("endless",), worker, 0.5)["endless"]
    # Two socket buffers of some 200 KiB beside the request's 64 KiB and one read.
    assert achieved["bytes"] < achieved["connections"] * MIB
