"""The wire tests share a short directory, a raw peer, scripted workers and scripted servers."""

from __future__ import annotations

import json
import select
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from openrtc_introspect_core.wire import Limits, SessionRow, Snapshot, WorkerInfo, _places
from openrtc_introspect_testing._workers.fake_worker import FakeWorker

WITHIN_S = 60.0
"""The seconds within which anything must have happened, on a busy machine too."""


class Peer:
    """A client of bare bytes, with a deadline on all its waits."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(path))  # without a timeout: with one it would not wait where many do
        self.socket.settimeout(WITHIN_S)
        self._pending = b""

    def say(self, *messages: dict[str, Any] | bytes) -> None:
        for message in messages:
            self.socket.sendall(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")

    def hear(self) -> Any:
        """Return the next message, or None if the worker has closed."""
        while b"\n" not in self._pending:
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionError:
                data = b""
            if not data:
                return None
            self._pending += data
        line, self._pending = self._pending.split(b"\n", 1)
        return json.loads(line)

    def ask(self, **message: Any) -> Any:
        self.say(message)
        return self.hear()

    def hear_all(self) -> list[Any]:
        """Return all messages until the worker closes."""
        return list(iter(self.hear, None))

    def wait_until_closed(self) -> None:
        """Wait until the worker closes the connection, whether or not all it sent was read."""
        poll = select.poll()
        poll.register(self.socket, 0)
        assert poll.poll(WITHIN_S * 1000), "the worker did not close the connection"

    def close(self) -> None:
        self.socket.close()


Dial = Callable[..., Peer]


@pytest.fixture
def dial() -> Iterator[Dial]:
    """Yield a function that connects to a worker and reads its hello if `greeted`; close all at the end."""
    peers: list[Peer] = []

    def connect(worker: FakeWorker | Path, *, greeted: bool = True) -> Peer:
        path = worker if isinstance(worker, Path) else worker.path
        assert path is not None
        peer = Peer(path)
        peers.append(peer)
        if greeted:
            hello = peer.hear()
            assert hello is not None
            assert hello["type"] == "hello"
        return peer

    yield connect
    for peer in peers:
        peer.close()


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """Yield a private directory whose path leaves room for a socket's name."""
    path = Path(tempfile.mkdtemp(prefix="openrtc-test-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def runtime_dir(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only directory in which workers are searched for; it does not exist at first."""
    directory = short_dir / "run"
    monkeypatch.setenv("OPENRTC_RUNTIME_DIR", str(directory))
    monkeypatch.setattr(_places, "default_dirs", list)
    return directory


def snapshot_of(sessions: int = 0, *, seq: int = 1) -> Snapshot:
    rows = [SessionRow(session_id=f"job-{n:06}", agent_name="restaurant", tenant="acme") for n in range(sessions)]
    return Snapshot(seq=seq, taken_at=1e9 + seq, worker=WorkerInfo(name="fake", pid=1), sessions=rows)


class Counting(FakeWorker):
    """A worker that numbers its snapshots, as a real worker does."""

    def __init__(self, sessions: int = 0, **options: Any) -> None:
        super().__init__([snapshot_of(sessions)], **options)

    def snapshot(self) -> Snapshot:
        taken = super().snapshot()
        return msgspec.structs.replace(taken, seq=self.snapshots_taken)


@pytest.fixture
def make_snapshot() -> Callable[..., Snapshot]:
    return snapshot_of


@pytest.fixture
def counting() -> type[Counting]:
    return Counting


@pytest.fixture
def worker() -> Iterator[FakeWorker]:
    """Yield a worker of numbered snapshots without sessions, under a real worker's limits."""
    with Counting() as running:
        yield running
    assert running.faults == []


@pytest.fixture
def short_tempered() -> Iterator[FakeWorker]:
    """Yield a worker like `worker`, with an idle timeout that a test can wait for."""
    with Counting(limits=Limits(idle_timeout_s=0.3)) as running:
        yield running
    assert running.faults == []


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WITHIN_S
        while not condition():
            assert time.monotonic() < deadline, "it never came about"
            time.sleep(0.005)

    return wait


@pytest.fixture
def canned(short_dir: Path) -> Iterator[Callable[..., Path]]:
    """Yield a function that starts servers, which send given bytes and then close or stay silent."""
    listeners: list[socket.socket] = []
    over = threading.Event()
    threads: list[threading.Thread] = []

    def serve(*pieces: bytes, then_close: bool = False) -> Path:
        path = short_dir / f"canned-{len(listeners)}.sock"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(WITHIN_S)
        listeners.append(listener)

        def answer() -> None:
            with listener.accept()[0] as connection:
                for piece in pieces:
                    connection.sendall(piece)
                if not then_close:
                    over.wait(WITHIN_S)

        thread = threading.Thread(target=answer)
        thread.start()
        threads.append(thread)
        return path

    yield serve
    over.set()
    for thread in threads:
        thread.join(WITHIN_S)
    for listener in listeners:
        listener.close()
