from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
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
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    Block,
    Blocks,
    Done,
    Error,
    Frame,
    Hello,
    Limits,
    TaskInfo,
    ThreadStack,
    _client,
    _peer,
    encode,
)
from openrtc_introspect_testing._workers.fake_worker import FakeWorker

pytestmark = pytest.mark.anyio

Canned = Callable[..., Path]
Make = Callable[..., Snapshot]

OURS = rf"{PROTOCOL_MAJOR}\.{PROTOCOL_MINOR}"
HELLO = encode(Hello(protocol="1.0", worker="w", pid=1))


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client, "CONNECT_TIMEOUT_S", 0.2)


# --- asking --------------------------------------------------------------------------------------


async def test_it_reads_a_snapshot(worker: FakeWorker) -> None:
    """The client reads the hello and two snapshots, on asyncio and on Trio."""
    async with connect(worker.path) as client:
        assert client.hello.worker == "fake"
        assert client.hello.pid == os.getpid()
        first, second = await client.snapshot(), await client.snapshot()
    assert isinstance(first, Snapshot)
    assert second.seq >= first.seq == 1


async def test_it_reads_a_large_snapshot(make_snapshot: Make) -> None:
    """A snapshot of 5,000 sessions, which comes in many pieces, is read whole."""
    large = make_snapshot(5_000)
    with FakeWorker([large]) as worker:
        async with connect(worker.path) as client:
            assert (await client.snapshot()).sessions == large.sessions
        assert read_snapshot(worker.path).sessions == large.sessions


async def test_it_reads_blocks(make_snapshot: Make) -> None:
    """The reply holds the blocks after the given number, and the newest number in last_seq."""
    blocks = [Block(seq=seq, duration_ms=75.0) for seq in (7, 8, 9)]
    with FakeWorker([make_snapshot()], blocks=blocks) as worker:
        async with connect(worker.path) as client:
            assert await client.blocks() == Blocks(id=1, blocks=blocks, last_seq=9)
            assert await client.blocks(since=8) == Blocks(id=2, blocks=blocks[2:], last_seq=9)
            assert await client.blocks(since=99) == Blocks(id=3, blocks=[], last_seq=9)


async def test_it_reads_tasks_and_stacks(make_snapshot: Make) -> None:
    """The client reads the tasks of one session and the stacks of all threads."""
    tasks, threads = [TaskInfo(id=1, name="listen")], [ThreadStack(name="MainThread", thread_id=7, loop=True)]
    with FakeWorker([make_snapshot()], tasks={"job-1": tasks}, stacks=threads) as worker:
        async with connect(worker.path) as client:
            found = await client.tasks("job-1")
            assert (found.session_id, found.tasks, found.truncated) == ("job-1", tasks, False)
            assert (await client.stacks()).threads == threads


async def test_tasks_of_a_session_that_is_gone_are_not_found(worker: FakeWorker) -> None:
    """The error has the code not-found, and the connection goes on."""
    async with connect(worker.path) as client:
        with pytest.raises(RequestFailed, match="not-found: no live session has the id 'job-gone'"):
            await client.tasks("job-gone")
        await client.snapshot()


async def test_a_negative_number_is_refused_here(worker: FakeWorker) -> None:
    """The client raises ArgumentError for a negative `since`."""
    async with connect(worker.path) as client:
        with pytest.raises(ArgumentError, match="since must be 0 or more, got -1"):
            await client.blocks(since=-1)


@pytest.mark.parametrize("interval_s", [0.0, 0.09, 61.0, float("nan")])
async def test_an_interval_out_of_range_is_refused_here(worker: FakeWorker, interval_s: float) -> None:
    """The client checks the interval against the limits in the hello."""
    async with connect(worker.path) as client:
        with pytest.raises(ArgumentError, match=r"interval_s must be within 0\.1–60 seconds, got"):
            client.watch(interval_s)


async def test_a_refusal_is_raised_with_its_code(make_snapshot: Make) -> None:
    """RequestFailed carries the code, and the connection goes on."""
    with FakeWorker([RuntimeError("no memory"), make_snapshot()]) as worker:
        async with connect(worker.path) as client:
            with pytest.raises(RequestFailed, match="internal: RuntimeError: no memory") as caught:
                await client.snapshot()
            assert caught.value.code == "internal"
            await client.snapshot()


# --- changes -------------------------------------------------------------------------------------


@pytest.fixture
def growing(make_snapshot: Make) -> list[Snapshot]:
    """Snapshots of which each has one session more, and time goes on."""
    found = []
    for seq in range(1, 6):
        taken = make_snapshot(sessions=seq, seq=seq)
        rows = [msgspec.structs.replace(row, started_at=1e9, duration_s=float(seq)) for row in taken.sessions]
        found.append(msgspec.structs.replace(taken, taken_at=1e9 + seq, sessions=rows))
    return found


async def test_snapshots_are_made_of_changes(growing: list[Snapshot], monkeypatch: pytest.MonkeyPatch) -> None:
    """They are whole, although each row is sent once."""
    sizes: list[int] = []
    read = _client.decode_server_message
    monkeypatch.setattr(
        _client, "decode_server_message", lambda line: sizes.append(line.count(b"agent_name")) or read(line)
    )
    got: list[Snapshot] = []
    with FakeWorker(growing) as worker:
        async with connect(worker.path) as client:
            while not got or got[-1].seq < 5:
                got.append(await client.snapshot())
                await anyio.sleep(0.01)
    assert [msgspec.structs.replace(each, id=None) for each in got] == [growing[each.seq - 1] for each in got]
    assert [each.id for each in got] == [*range(1, len(got) + 1)]
    assert sum(sizes) == 5


async def test_a_watch_is_made_of_changes(growing: list[Snapshot]) -> None:
    """Its snapshots are whole, and so are those of later requests."""
    with FakeWorker(growing) as worker:
        async with connect(worker.path) as client:
            watch = client.watch(0.1)
            got = [await anext(watch) for _ in range(3)]
            # A request soon after a frame is answered with the frame's snapshot: a server rests between two of them.
            while got[-1].seq < 5:
                got.append(await client.snapshot())
                await anyio.sleep(0.01)
    assert [each.seq for each in got[:3]] == [1, 2, 3]
    assert [each.sessions for each in got] == [growing[each.seq - 1].sessions for each in got]


@pytest.mark.parametrize("watched", [True, False])
async def test_a_worker_without_changes_sends_whole_snapshots(
    canned: Canned, make_snapshot: Make, watched: bool
) -> None:
    """One of protocol 1.0."""
    hello = encode(Hello(protocol="1.0", worker="w", pid=1, capabilities=["snapshot", "watch"]))
    path = canned(hello, encode(msgspec.structs.replace(make_snapshot(2), id=1)))
    async with connect(path) as client:
        snapshot = await (anext(client.watch(0.1)) if watched else client.snapshot())
    assert len(snapshot.sessions) == 2


@pytest.mark.parametrize("watched", [True, False])
async def test_everything_is_asked_for_if_a_frame_builds_on_another(growing: list[Snapshot], watched: bool) -> None:
    """Whoever lost a frame notices, and goes on."""
    with FakeWorker(growing) as worker:
        async with connect(worker.path) as client:
            watch = client.watch(0.1)
            await (anext(watch) if watched else client.snapshot())
            client._frames.seq = 77  # as if another frame had been read since
            snapshot = await (anext(watch) if watched else client.snapshot())
            assert len(snapshot.sessions) == snapshot.seq
            assert client._frames.seq == snapshot.seq


async def test_a_worker_that_never_sends_everything_is_no_worker(canned: Canned, make_snapshot: Make) -> None:
    """The client asks twice, and says so then."""
    hello = encode(Hello(protocol="1.1", worker="w", pid=1, capabilities=["snapshot", "watch", "deltas"]))
    frames = [Frame(id=number, seq=9, base=8, worker=make_snapshot().worker) for number in (1, 2)]
    path = canned(hello, b"".join(map(encode, frames)))
    async with connect(path) as client:
        with pytest.raises(ProtocolError, match="builds on frame 8"):
            await client.snapshot()


# --- watching ------------------------------------------------------------------------------------


async def test_a_watch_goes_on_until_it_is_left(worker: FakeWorker) -> None:
    """The same connection then takes other requests and another watch."""
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
    """The watch's iterator raises StopAsyncIteration after another request."""
    async with connect(worker.path) as client:
        watch = client.watch(0.1)
        await anext(watch)
        await client.snapshot()
        with pytest.raises(StopAsyncIteration):
            await anext(watch)


async def test_an_error_ends_a_watch(make_snapshot: Make) -> None:
    """The error is raised where the snapshots are read, and a new watch may begin."""
    with FakeWorker([make_snapshot(), RuntimeError("no memory"), make_snapshot(seq=3)]) as worker:
        async with connect(worker.path) as client:
            watch = client.watch(0.1)
            await anext(watch)
            with pytest.raises(RequestFailed, match="no memory"):
                await anext(watch)
            with pytest.raises(StopAsyncIteration):
                await anext(watch)
            assert (await anext(client.watch(0.1))).seq == 3


async def test_the_reply_to_a_request_given_up_is_passed_over(make_snapshot: Make) -> None:
    """The next request gets its own reply."""
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


async def test_nobody_there_is_reported_with_the_path(short_dir: Path) -> None:
    """The error also gives the system's reason."""
    missing = short_dir / "w.sock"
    with pytest.raises(ConnectionFailed, match=r"no worker answers at '.*w\.sock': No such file"):
        async with connect(missing):
            pass
    with pytest.raises(ConnectionFailed, match=r"no worker answers at '.*w\.sock': No such file"):
        read_snapshot(missing)


async def test_a_path_too_long_is_an_argument_error() -> None:
    """A path of more bytes than a socket's address takes raises ArgumentError."""
    with pytest.raises(ArgumentError, match="bytes long"):
        async with connect("/tmp/" + "x" * 200):
            pass
    with pytest.raises(ArgumentError, match="bytes long"):
        read_snapshot("/tmp/" + "x" * 200)


async def test_a_mute_server_is_given_up(canned: Canned, impatient: None) -> None:
    """The client raises ConnectionFailed after the timeout if no hello comes."""
    with pytest.raises(ConnectionFailed, match=r"nothing heard within 0\.2 s"):
        async with connect(canned()):
            pass


@pytest.fixture
def full(short_dir: Path) -> Iterator[socket.socket]:
    """Yield a server whose backlog is full."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(short_dir / "full.sock"))
        listener.listen(0)
        waiting.connect(str(short_dir / "full.sock"))
        yield listener


@pytest.mark.slow
async def test_a_crowded_server_is_waited_for(full: socket.socket, impatient: None) -> None:
    """A client of a server with a full backlog raises ConnectionFailed after the timeout."""
    path = full.getsockname()
    with pytest.raises(ConnectionFailed, match=r"nothing heard within 0\.2 s"):
        async with connect(path):
            pass
    with pytest.raises(ConnectionFailed, match=r"nothing heard within 0\.1 s"):
        read_snapshot(path, timeout_s=0.1)


@pytest.mark.slow
async def test_a_crowded_server_that_accepts_is_reached(full: socket.socket) -> None:
    """The client connects once the backlog has room."""

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
    """The timeout holds for the whole call, wherever in the exchange the server stops."""
    began = time.monotonic()
    with pytest.raises(ConnectionFailed, match=r"nothing heard within 0\.1 s"):
        read_snapshot(canned(*pieces), timeout_s=0.1)
    assert time.monotonic() - began >= 0.1


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("inf"), float("nan")])
def test_a_timeout_that_is_none_is_refused(timeout_s: float) -> None:
    """A timeout that is zero, negative, infinite or NaN raises ArgumentError."""
    with pytest.raises(ArgumentError, match="timeout_s must be more than 0 seconds and finite, got"):
        read_snapshot("/tmp/w.sock", timeout_s=timeout_s)


@pytest.mark.parametrize("pieces", [[], [HELLO], [HELLO, b'{"type":"snap']], ids=["mute", "hello", "half a line"])
async def test_a_server_that_closes_early_is_reported(canned: Canned, pieces: list[bytes]) -> None:
    """A connection that closes before or within a message raises ConnectionFailed."""
    reason = "closed the connection|Broken pipe|Connection reset"
    with pytest.raises(ConnectionFailed, match=reason):
        async with connect(canned(*pieces, then_close=True)) as client:
            await client.snapshot()
    with pytest.raises(ConnectionFailed, match=reason):
        read_snapshot(canned(*pieces, then_close=True))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            b'{"type":"hello","protocol":"3.1"}\n',
            rf"the worker speaks protocol 3\.1, this client {OURS}:",
        ),
        (b"220 mail.example ESMTP\n", "which is no message of this protocol"),
        (encode(Done(id=1)), "instead of a hello"),
    ],
    ids=["version", "another protocol", "no hello"],
)
async def test_another_protocol_is_reported(canned: Canned, line: bytes, message: str) -> None:
    """A first line that is no hello of this major version raises ProtocolError."""
    with pytest.raises(ProtocolError, match=message):
        async with connect(canned(line)):
            pass
    with pytest.raises(ProtocolError, match=message):
        read_snapshot(canned(line))


async def test_a_line_without_end_is_given_up(canned: Canned, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line over the client's own limit raises ProtocolError."""
    monkeypatch.setattr(_client, "MAX_MESSAGE_BYTES", 1000)
    with pytest.raises(ProtocolError, match="a line of more than 1000 bytes"):
        read_snapshot(canned(b"x" * 2000))
    with pytest.raises(ProtocolError, match="a line of more than 1000 bytes"):
        async with connect(canned(b"x" * 2000)):
            pass


async def test_an_answer_to_something_else_is_reported(canned: Canned) -> None:
    """A reply of the wrong type raises ProtocolError, although its id is right."""
    answer = encode(Blocks(id=1))
    with pytest.raises(ProtocolError, match="answered with 'blocks' where 'snapshot' was asked for"):
        async with connect(canned(HELLO, answer)) as client:
            await client.snapshot()
    with pytest.raises(ProtocolError, match="answered a snapshot request with 'blocks'"):
        read_snapshot(canned(HELLO, answer))


async def test_what_is_for_nobody_is_passed_over(canned: Canned) -> None:
    """The client skips replies to other ids and a second hello; it raises an error without an id."""
    others = encode(Done(id=99)) + encode(Error(id=98, code="internal")) + HELLO
    with pytest.raises(RequestFailed, match="line-too-long"):
        async with connect(canned(HELLO, others, encode(Error(code="line-too-long")))) as client:
            await client.snapshot()


async def test_too_many_clients_is_reported_with_its_code(make_snapshot: Make) -> None:
    """The worker itself answers, so the error is RequestFailed, not ConnectionFailed."""
    with FakeWorker([make_snapshot()], limits=Limits(clients=1)) as worker:
        async with connect(worker.path) as client:
            await client.blocks()
            with pytest.raises(RequestFailed, match="too-many-clients: 1 clients are connected already"):
                read_snapshot(worker.path)
            with pytest.raises(RequestFailed, match="too-many-clients"):
                async with connect(worker.path):
                    pass


async def test_a_server_of_another_user_is_not_believed(worker: FakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that runs as another user raises ConnectionFailed with that user's id."""
    monkeypatch.setattr(_client, "peer_uid", lambda connection: 1001)
    monkeypatch.setattr(_peer, "own_uid", lambda: 1000)
    with pytest.raises(ConnectionFailed, match="runs as uid 1001, which is not to be trusted"):
        async with connect(worker.path):
            pass
    with pytest.raises(ConnectionFailed, match="runs as uid 1001, which is not to be trusted"):
        read_snapshot(worker.path)


# --- the only worker -----------------------------------------------------------------------------


@pytest.fixture
def workers_in(runtime_dir: Path, make_snapshot: Make) -> Iterator[Callable[..., None]]:
    running: list[FakeWorker] = []
    runtime_dir.mkdir(mode=0o700)

    def start(*names: str) -> None:
        for name in names:
            worker = FakeWorker([make_snapshot()], name=name, path=runtime_dir / f"{name}-7.sock")
            running.append(worker.__enter__())

    yield start
    for worker in running:
        worker.__exit__()


async def test_the_only_worker_needs_no_name(workers_in: Callable[..., None]) -> None:
    """The client finds the only worker without a path."""
    workers_in("voice")
    async with connect() as client:
        assert client.hello.worker == "voice"
    assert read_snapshot().worker.name == "fake"


async def test_no_worker_is_reported(runtime_dir: Path) -> None:
    """The error says that a worker must be started."""
    for ask in (_read_any, _connect_any):
        with pytest.raises(ConnectionFailed, match="no worker of this user is running: start one"):
            await ask()


async def test_one_of_several_must_be_chosen(workers_in: Callable[..., None]) -> None:
    """The error names all workers with their sockets."""
    workers_in("voice", "chat")
    for ask in (_read_any, _connect_any):
        with pytest.raises(ArgumentError, match=r"2 workers are running, .*: chat \(.*chat-7.sock\), voice \("):
            await ask()


async def _read_any() -> Any:
    return read_snapshot()


async def _connect_any() -> Any:
    async with connect():
        pass
