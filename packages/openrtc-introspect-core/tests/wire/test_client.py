from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import (
    ArgumentError,
    ConnectionFailed,
    ProtocolError,
    RequestFailed,
    Snapshot,
    connect,
    read_snapshot,
)
from openrtc_introspect_core.wire import (
    Block,
    Blocks,
    Done,
    Error,
    Hello,
    Limits,
    TaskInfo,
    ThreadStack,
    _client,
    _endpoint,
    encode,
)
from openrtc_introspect_testing._worker import FakeWorker

pytestmark = pytest.mark.anyio

Canned = Callable[..., Path]
Make = Callable[..., Snapshot]

HELLO = encode(Hello(protocol="1.0", worker="w", pid=1))


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def runtime_dir(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory in which workers are looked for."""
    monkeypatch.setattr(_endpoint, "search_dirs", lambda: [short_dir])
    return short_dir


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client, "CONNECT_TIMEOUT_S", 0.2)


# --- asking --------------------------------------------------------------------------------------


async def test_it_reads_a_snapshot(worker: FakeWorker) -> None:
    """On asyncio and on Trio."""
    async with connect(worker.path) as client:
        assert client.hello.worker == "fake"
        assert client.hello.pid == os.getpid()
        first, second = await client.snapshot(), await client.snapshot()
    assert isinstance(first, Snapshot)
    assert second.seq >= first.seq == 1


async def test_it_reads_a_large_snapshot(make_snapshot: Make) -> None:
    """It comes in many pieces."""
    large = make_snapshot(5_000)
    with FakeWorker([large]) as worker:
        async with connect(worker.path) as client:
            assert (await client.snapshot()).sessions == large.sessions
        assert read_snapshot(worker.path).sessions == large.sessions


async def test_it_reads_blocks(make_snapshot: Make) -> None:
    """Those since a number, and the number to ask on from."""
    blocks = [Block(seq=seq, duration_ms=75.0) for seq in (7, 8, 9)]
    with FakeWorker([make_snapshot()], blocks=blocks) as worker:
        async with connect(worker.path) as client:
            assert await client.blocks() == Blocks(id=1, blocks=blocks, last_seq=9)
            assert await client.blocks(since=8) == Blocks(id=2, blocks=blocks[2:], last_seq=9)
            assert await client.blocks(since=99) == Blocks(id=3, blocks=[], last_seq=9)


async def test_it_reads_tasks_and_stacks(make_snapshot: Make) -> None:
    """Of one session; of all threads."""
    tasks, threads = [TaskInfo(id=1, name="listen")], [ThreadStack(name="MainThread", thread_id=7, loop=True)]
    with FakeWorker([make_snapshot()], tasks={"job-1": tasks}, stacks=threads) as worker:
        async with connect(worker.path) as client:
            found = await client.tasks("job-1")
            assert (found.session_id, found.tasks, found.truncated) == ("job-1", tasks, False)
            assert (await client.stacks()).threads == threads


async def test_tasks_of_a_session_that_is_gone_are_not_found(worker: FakeWorker) -> None:
    """The code says so, and the connection goes on."""
    async with connect(worker.path) as client:
        with pytest.raises(RequestFailed, match="not-found: no live session has the id 'job-gone'"):
            await client.tasks("job-gone")
        await client.snapshot()


async def test_a_negative_number_is_refused_here(worker: FakeWorker) -> None:
    """It is not sent."""
    async with connect(worker.path) as client:
        with pytest.raises(ArgumentError, match="since must be 0 or more, got -1"):
            await client.blocks(since=-1)


@pytest.mark.parametrize("interval_s", [0.0, 0.09, 61.0, float("nan")])
async def test_an_interval_out_of_range_is_refused_here(worker: FakeWorker, interval_s: float) -> None:
    """By the limits in the hello."""
    async with connect(worker.path) as client:
        with pytest.raises(ArgumentError, match=r"interval_s must be within 0\.1–60 seconds, got"):
            client.watch(interval_s)


async def test_a_refusal_is_raised_with_its_code(make_snapshot: Make) -> None:
    """The connection goes on."""
    with FakeWorker([RuntimeError("no books"), make_snapshot()]) as worker:
        async with connect(worker.path) as client:
            with pytest.raises(RequestFailed, match="internal: RuntimeError: no books") as caught:
                await client.snapshot()
            assert caught.value.code == "internal"
            await client.snapshot()


# --- watching ------------------------------------------------------------------------------------


async def test_a_watch_goes_on_until_it_is_left(worker: FakeWorker) -> None:
    """Then the same connection takes other requests, and another watch."""
    async with connect(worker.path) as client:
        seen: list[int] = []
        async for snapshot in client.watch(0.1):
            seen.append(snapshot.seq)
            if len(seen) == 3:
                break
        assert seen == [1, 2, 3]
        assert (await client.snapshot()).seq >= 3
        assert (await client.blocks()).blocks == []
        async for snapshot in client.watch(0.1):
            assert snapshot.seq > 3
            break


async def test_another_request_ends_a_watch(worker: FakeWorker) -> None:
    """Its iterator knows."""
    async with connect(worker.path) as client:
        watch = client.watch(0.1)
        await anext(watch)
        await client.snapshot()
        with pytest.raises(StopAsyncIteration):
            await anext(watch)


async def test_an_error_ends_a_watch(make_snapshot: Make) -> None:
    """It is raised where the snapshots are read, and a new watch may begin."""
    with FakeWorker([make_snapshot(), RuntimeError("no books"), make_snapshot(seq=3)]) as worker:
        async with connect(worker.path) as client:
            watch = client.watch(0.1)
            await anext(watch)
            with pytest.raises(RequestFailed, match="no books"):
                await anext(watch)
            with pytest.raises(StopAsyncIteration):
                await anext(watch)
            assert (await anext(client.watch(0.1))).seq == 3


async def test_the_reply_to_a_request_given_up_is_passed_over(make_snapshot: Make) -> None:
    """The next request gets its own."""
    held = threading.Event()

    class Slow(FakeWorker):
        def snapshot(self) -> Snapshot:
            held.wait(20)
            return super().snapshot()

    with Slow([make_snapshot()]) as worker:
        async with connect(worker.path) as client:
            with anyio.move_on_after(0.05):
                await client.snapshot()
            held.set()
            assert isinstance(await client.blocks(), Blocks)


async def test_clients_see_the_same(worker: FakeWorker) -> None:
    """A snapshot is not consumed by being read."""
    async with connect(worker.path) as one, connect(worker.path) as other:
        seen = [(await client.snapshot()).taken_at for client in (one, other, one, other)]
    assert seen == sorted(seen)


# --- servers that are none -----------------------------------------------------------------------


async def test_nobody_there_is_told_with_the_path(short_dir: Path) -> None:
    """With the system's own reason."""
    missing = short_dir / "w.sock"
    with pytest.raises(ConnectionFailed, match=r"no worker answers at '.*w\.sock': No such file"):
        async with connect(missing):
            pass
    with pytest.raises(ConnectionFailed, match=r"no worker answers at '.*w\.sock': No such file"):
        read_snapshot(missing)


async def test_a_path_too_long_is_an_argument_error() -> None:
    """Before anything is tried."""
    with pytest.raises(ArgumentError, match="bytes long"):
        async with connect("/tmp/" + "x" * 200):
            pass
    with pytest.raises(ArgumentError, match="bytes long"):
        read_snapshot("/tmp/" + "x" * 200)


async def test_a_mute_server_is_given_up(canned: Canned, impatient: None) -> None:
    """After the timeout."""
    with pytest.raises(ConnectionFailed, match=r"nothing heard within 0\.2 s"):
        async with connect(canned()):
            pass


@pytest.fixture
def full(short_dir: Path) -> Iterator[socket.socket]:
    """A server that has as many waiting to be accepted as it lets wait."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(short_dir / "full.sock"))
        listener.listen(0)
        waiting.connect(str(short_dir / "full.sock"))
        yield listener


@pytest.mark.slow
async def test_a_crowded_server_is_waited_for(full: socket.socket, impatient: None) -> None:
    """Until the timeout."""
    path = full.getsockname()
    with pytest.raises(ConnectionFailed, match=r"nothing heard within 0\.2 s"):
        async with connect(path):
            pass
    with pytest.raises(ConnectionFailed, match=r"nothing heard within 0\.1 s"):
        read_snapshot(path, timeout_s=0.1)


@pytest.mark.slow
async def test_a_crowded_server_that_accepts_is_reached(full: socket.socket) -> None:
    """As soon as there is room."""

    async def accept() -> None:
        await anyio.sleep(0.05)
        for _ in range(2):
            await anyio.wait_readable(full)  # else it would keep the loop, and with it the client, from getting there
            with full.accept()[0] as accepted:
                accepted.sendall(HELLO)
            await anyio.sleep(0.05)

    async with anyio.create_task_group() as group:
        group.start_soon(accept)
        async with connect(full.getsockname()) as client:
            assert client.hello.worker == "w"


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [[], [HELLO], [HELLO, b'{"type":"snap']], ids=["mute", "hello", "half a line"])
def test_reading_has_one_deadline_for_all(canned: Canned, pieces: list[bytes]) -> None:
    """Wherever the server stops."""
    began = time.monotonic()
    with pytest.raises(ConnectionFailed, match=r"nothing heard within 0\.1 s"):
        read_snapshot(canned(*pieces), timeout_s=0.1)
    assert time.monotonic() - began >= 0.1


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("inf"), float("nan")])
def test_a_timeout_that_is_none_is_refused(timeout_s: float) -> None:
    """It would never end, or never begin."""
    with pytest.raises(ArgumentError, match="timeout_s must be more than 0 seconds and finite, got"):
        read_snapshot("/tmp/w.sock", timeout_s=timeout_s)


@pytest.mark.parametrize("pieces", [[], [HELLO], [HELLO, b'{"type":"snap']], ids=["mute", "hello", "half a line"])
async def test_a_server_that_closes_early_is_told(canned: Canned, pieces: list[bytes]) -> None:
    """Half a message is none."""
    reason = "closed the connection|Broken pipe|Connection reset"
    with pytest.raises(ConnectionFailed, match=reason):
        async with connect(canned(*pieces, then_close=True)) as client:
            await client.snapshot()
    with pytest.raises(ConnectionFailed, match=reason):
        read_snapshot(canned(*pieces, then_close=True))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"type":"hello","protocol":"3.1"}\n', r"the worker speaks protocol 3\.1, this client 1\.0"),
        (b"220 mail.example ESMTP\n", "which is no message of this protocol"),
        (encode(Done(id=1)), "instead of a hello"),
    ],
    ids=["version", "another protocol", "no hello"],
)
async def test_another_protocol_is_told(canned: Canned, line: bytes, message: str) -> None:
    """On the first line."""
    with pytest.raises(ProtocolError, match=message):
        async with connect(canned(line)):
            pass
    with pytest.raises(ProtocolError, match=message):
        read_snapshot(canned(line))


async def test_a_line_without_end_is_given_up(canned: Canned, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client's memory has a limit too."""
    monkeypatch.setattr(_client, "MAX_MESSAGE_BYTES", 1000)
    with pytest.raises(ProtocolError, match="a line of more than 1000 bytes"):
        read_snapshot(canned(b"x" * 2000))
    with pytest.raises(ProtocolError, match="a line of more than 1000 bytes"):
        async with connect(canned(b"x" * 2000)):
            pass


async def test_an_answer_to_something_else_is_told(canned: Canned) -> None:
    """The id is right, the message is not."""
    answer = encode(Blocks(id=1))
    with pytest.raises(ProtocolError, match="answered with 'blocks' where 'snapshot' was asked for"):
        async with connect(canned(HELLO, answer)) as client:
            await client.snapshot()
    with pytest.raises(ProtocolError, match="answered a snapshot request with 'blocks'"):
        read_snapshot(canned(HELLO, answer))


async def test_what_is_for_nobody_is_passed_over(canned: Canned) -> None:
    """Replies to other ids, and another hello; an error without an id is for everyone."""
    others = encode(Done(id=99)) + encode(Error(id=98, code="internal")) + HELLO
    with pytest.raises(RequestFailed, match="line-too-long"):
        async with connect(canned(HELLO, others, encode(Error(code="line-too-long")))) as client:
            await client.snapshot()


async def test_too_many_clients_is_told_with_its_code(make_snapshot: Make) -> None:
    """It is the worker that answers, so it is no failed connection."""
    with FakeWorker([make_snapshot()], limits=Limits(clients=1)) as worker:
        async with connect(worker.path) as client:
            await client.blocks()
            with pytest.raises(RequestFailed, match="too-many-clients: 1 clients are connected already"):
                read_snapshot(worker.path)
            with pytest.raises(RequestFailed, match="too-many-clients"):
                async with connect(worker.path):
                    pass


async def test_a_server_of_another_user_is_not_believed(worker: FakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone may have put a socket of theirs where ours was."""
    monkeypatch.setattr(_client, "peer_uid", lambda connection: 1001)
    monkeypatch.setattr(_endpoint, "_uid", lambda: 1000)
    with pytest.raises(ConnectionFailed, match="runs as uid 1001, which is not to be trusted"):
        async with connect(worker.path):
            pass
    with pytest.raises(ConnectionFailed, match="runs as uid 1001, which is not to be trusted"):
        read_snapshot(worker.path)


# --- the only worker -----------------------------------------------------------------------------


@pytest.fixture
def workers_in(runtime_dir: Path, make_snapshot: Make) -> Iterator[Callable[..., None]]:
    running: list[FakeWorker] = []

    def start(*names: str) -> None:
        for name in names:
            worker = FakeWorker([make_snapshot()], name=name, path=runtime_dir / f"{name}-7.sock")
            running.append(worker.__enter__())

    yield start
    for worker in running:
        worker.__exit__()


async def test_the_only_worker_needs_no_name(workers_in: Callable[..., None]) -> None:
    """It is found."""
    workers_in("voice")
    async with connect() as client:
        assert client.hello.worker == "voice"
    assert read_snapshot().worker.name == "fake"


async def test_no_worker_is_told(runtime_dir: Path) -> None:
    """With what to do."""
    for ask in (_read_any, _connect_any):
        with pytest.raises(ConnectionFailed, match="no worker of this user is running: start one"):
            await ask()


async def test_one_of_several_must_be_chosen(workers_in: Callable[..., None]) -> None:
    """All are named with their sockets."""
    workers_in("voice", "chat")
    for ask in (_read_any, _connect_any):
        with pytest.raises(ArgumentError, match=r"2 workers are running, .*: chat \(.*chat-7.sock\), voice \("):
            await ask()


async def _read_any() -> Any:
    return read_snapshot()


async def _connect_any() -> Any:
    async with connect():
        pass
