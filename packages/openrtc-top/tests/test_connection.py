"""Finding workers, reading them once, following them."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import ConnectionFailed, ProtocolError
from openrtc_introspect_core.wire import Block, Snapshot, WorkerInfo, WorkerSocket
from openrtc_introspect_testing import FakeWorker
from openrtc_top import _connection
from openrtc_top._connection import find, follow, read, read_all, read_all_blocks, reason
from openrtc_top._sockets import choose, given
from openrtc_top._state import Blocked, Event, Frame, Gone

StartWorker = Callable[..., subprocess.Popen[bytes]]
WORKERS = [
    WorkerSocket(Path("voice_a-7.sock"), "voice_a", 7),
    WorkerSocket(Path("voice_a-8.sock"), "voice_a", 8),
    WorkerSocket(Path("chat.sock"), "chat", None),
]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ([], [0, 1, 2]),
        (["voice-a"], [0, 1]),
        (["voice_a"], [0, 1]),
        (["8"], [1]),
        (["chat", "7"], [0, 2]),
        (["None"], []),
        (["nobody"], []),
    ],
)
def test_choose(wanted: list[str], chosen: list[int]) -> None:
    """By name, as the worker or its socket's file calls it, or by process id."""
    assert choose(WORKERS, wanted) == [WORKERS[index] for index in chosen]


def test_find_and_read(start_worker: StartWorker, runtime_dir: Path) -> None:
    """A running worker is found by its name and by its pid, and tells its sessions."""
    process = start_worker("find-me", 3)
    (found,) = find(["find-me"])
    assert find([str(process.pid)]) == [found]
    assert found.path.parent == runtime_dir
    answer = read(found)
    assert isinstance(answer, Snapshot)
    assert [session.session_id for session in answer.sessions] == ["job-0000", "job-0001", "job-0002"]


def test_read_all(start_worker: StartWorker, tmp_path: Path) -> None:
    """One that is not there fails alone, and answers come in the order asked for."""
    start_worker("read-all", 1)
    missing = given(tmp_path / "missing.sock")
    (found,) = find(["read-all"])
    (first, error), (second, answer) = read_all([missing, found])
    assert (first, second) == (missing, found)
    assert isinstance(error, ConnectionFailed)
    assert isinstance(answer, Snapshot)


@pytest.mark.anyio
async def test_follow(start_worker: StartWorker, anyio_backend: str) -> None:
    """Frames come each interval and at once on demand; a worker that ends is Gone until unwanted."""
    process = start_worker("follow-me", 2)
    (found,) = find(["follow-me"])
    events: list[Event] = []
    refresh = anyio.Event()
    came = anyio.Event()
    wanted = True

    def dispatch(event: Event) -> None:
        events.append(event)
        came.set()

    async def next_event() -> Event:
        nonlocal came
        await came.wait()
        came = anyio.Event()
        return events[-1]

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, found, 60.0, dispatch, lambda: refresh, lambda: wanted)
            first = await next_event()
            assert isinstance(first, Frame)
            assert first.worker == str(found.path)
            asked, refresh = refresh, anyio.Event()
            asked.set()
            second = await next_event()
            assert isinstance(second, Frame)
            assert second.snapshot.taken_at >= first.snapshot.taken_at
            process.kill()
            # Idle for a minute by its interval, it finds out when it asks again.
            asked, refresh = refresh, anyio.Event()
            asked.set()
            last = await next_event()
            assert isinstance(last, Gone)
            assert (last.worker, last.reason) == (str(found.path), "it closed the connection")
            wanted = False


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ConnectionFailed("worker at '/x.sock' closed the connection"), "it closed the connection"),
        (ConnectionFailed("no worker answers at '/x.sock': Connection refused"), "nobody serves its socket any more"),
        (ConnectionFailed("no worker answers at '/x.sock': No such file or directory"), "its socket is gone"),
        (ConnectionFailed("no worker answers at '/x.sock': Permission denied"), "Permission denied"),
        (ConnectionFailed("no worker answers at '/x.sock': nothing heard within 5 s"), "nothing heard within 5 s"),
        (ConnectionFailed("no worker answers at 'a:/x.sock': ssh: no route: 'b': c"), "ssh: no route: 'b': c"),
        (TimeoutError(), "it does not answer"),
        (
            ProtocolError("the worker speaks protocol 2.0, this client 1.0"),
            "the worker speaks protocol 2.0, this client 1.0",
        ),
    ],
)
def test_reason(error: Exception, why: str) -> None:
    """What was observed, without the path, which is shown beside it."""
    assert reason(error) == why


class Watched:
    """A worker as `follow` tells of it, asked again and again."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._came = anyio.Event()

    def dispatch(self, event: Event) -> None:
        self.events.append(event)
        self._came.set()
        self._came = anyio.Event()

    async def until(self, kind: type[Event], why: str | None = None) -> Any:
        """The next event of this kind, for this reason."""
        while True:
            while self.events:
                event = self.events.pop(0)
                if isinstance(event, kind) and (why is None or getattr(event, "reason", None) == why):
                    return event
            await self._came.wait()


@contextlib.asynccontextmanager
async def watching(worker: WorkerSocket) -> AsyncIterator[Watched]:
    watched = Watched()
    never = anyio.Event()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, worker, 0.02, watched.dispatch, lambda: never, lambda: True)
            yield watched
            tasks.cancel_scope.cancel()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_connection, "BACKOFF_S", 0.02)
    monkeypatch.setattr(_connection, "READ_TIMEOUT_S", 0.5)


@pytest.mark.anyio
async def test_a_killed_worker_and_its_successor(impatient: None, anyio_backend: str) -> None:
    """The socket file stays, and nobody serves it; whoever serves it next is shown, as another epoch."""
    with FakeWorker([counting(0)]) as fake:
        assert fake.path is not None
        path = fake.path
        async with watching(given(path)) as watched:
            await watched.until(Frame)
            path.unlink()
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(path))
                fake.then(OSError("the next request fails, and so another connection is made"))
                await watched.until(Gone, "nobody serves its socket any more")
            path.unlink()
            await watched.until(Gone, "its socket is gone")
            with FakeWorker([counting(0, "second")], path=path):
                frame = await watched.until(Frame)
                assert frame.snapshot.worker.epoch == "second"


@pytest.mark.anyio
async def test_a_stopped_worker(impatient: None, start_worker: StartWorker, anyio_backend: str) -> None:
    """It takes connections and says nothing: it is Gone for that reason, and back when it goes on."""
    process = start_worker("stopped", 1)
    (found,) = find(["stopped"])
    async with watching(found) as watched:
        await watched.until(Frame)
        process.send_signal(signal.SIGSTOP)
        try:
            told = await watched.until(Gone)
            assert told.reason in ("it does not answer", "nothing heard within 5 s")
        finally:
            process.send_signal(signal.SIGCONT)
        await watched.until(Frame)


@pytest.mark.anyio
async def test_a_server_of_another_protocol(impatient: None, runtime_dir: Path, anyio_backend: str) -> None:
    """Is Gone with what it said, for as long as it does."""
    path = runtime_dir / "other.sock"
    server = await anyio.create_unix_listener(path)

    async def greet(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.send(b'{"type":"hello","protocol":"2.0"}\n')

    async with server, anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, greet)
        async with watching(given(path)) as watched:
            told = await watched.until(Gone)
            assert told.reason.startswith("the worker speaks protocol 2.0, this client 1.0: use")
            await watched.until(Gone)
        tasks.cancel_scope.cancel()


def test_read_all_blocks(tmp_path: Path) -> None:
    """Those above a number, oldest first; a worker that is not there fails alone."""
    with FakeWorker([counting(0)], blocks=[Block(seq=1), Block(seq=2)]) as fake:
        assert fake.path is not None
        missing, found = given(tmp_path / "missing.sock"), given(fake.path)
        (_, error), (_, blocks) = read_all_blocks([missing, found], since=1)
    assert isinstance(error, ConnectionFailed)
    assert blocks == [Block(seq=2)]


def counting(blocks: int, epoch: str = "first") -> Snapshot:
    """A snapshot of a worker that has blocked so often."""
    return Snapshot(worker=WorkerInfo(name="fake", pid=1, epoch=epoch, blocks=blocks))


@pytest.mark.anyio
async def test_blocks_are_asked_for_when_there_are_more(anyio_backend: str) -> None:
    """Blocked follows a Frame that counts more blocks than are known, from 1 again after a restart."""
    script = [counting(0), counting(2), counting(2), counting(3), counting(1, "second"), counting(1, "second")]
    with FakeWorker(script, blocks=[Block(seq=seq) for seq in (1, 2, 3)]) as fake:
        assert fake.path is not None
        events = await followed(given(fake.path), until=len(script))
    asked = [[block.seq for block in event.blocks] if isinstance(event, Blocked) else "frame" for event in events]
    # The reply may tell of more than the snapshot did.
    assert asked == ["frame", "frame", [1, 2, 3], "frame", "frame", "frame", [1, 2, 3], "frame"]


async def followed(worker: WorkerSocket, until: int) -> list[Event]:
    """What a view that asks again and again is told, up to so many frames and what comes with the last."""
    events: list[Event] = []
    now = anyio.Event()
    now.set()
    with anyio.move_on_after(20):
        async with anyio.create_task_group() as tasks:

            def dispatch(event: Event) -> None:
                events.append(event)
                if sum(isinstance(event, Frame) for event in events) == until:
                    tasks.cancel_scope.cancel()

            tasks.start_soon(follow, worker, 0.001, dispatch, lambda: now, lambda: True)
    return events


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
