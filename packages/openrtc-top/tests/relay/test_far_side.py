"""The relay: what it says to a client over a pair of pipes, and docs/relay.md beside it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import ProtocolError
from openrtc_introspect_core.wire import LineBuffer, Snapshot, WorkerSocket
from openrtc_introspect_testing import FakeWorker
from openrtc_top._client.black_boxes import dead_finder
from openrtc_top._client.targets import Target, worker_at
from openrtc_top._relay import far_side
from openrtc_top._relay.far_side import relay
from openrtc_top._relay.protocol import (
    MAX_FROM_CLIENT,
    RelayHello,
    Workers,
    decode_from_client,
    decode_from_relay,
    decode_relay_hello,
    from_worker,
    minor_of,
    to_worker,
)

DOCS = Path(__file__).parents[4] / "docs" / "relay.md"
EXAMPLES = [
    line
    for block in re.findall(r"^```json\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
pytestmark = pytest.mark.anyio


class Client:
    """The client's ends of the two pipes."""

    def __init__(self, to_relay: int, from_relay: int) -> None:
        self._to = to_relay
        self.from_relay = from_relay
        self._buffer = LineBuffer(1 << 20)
        self._heard: list[dict[str, Any]] = []

    def say(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            os.write(self._to, json.dumps(message).encode() + b"\n")

    async def hear(self, kind: str) -> dict[str, Any]:
        """The next message of this kind; others before it are passed over."""
        while True:
            while self._heard:
                if (message := self._heard.pop(0))["type"] == kind:
                    return message
            await anyio.wait_readable(self.from_relay)
            data = os.read(self.from_relay, 65536)
            assert data, f"the relay has ended without a {kind}"
            self._heard += [json.loads(line) for line in self._buffer.feed(data)]

    def hang_up(self) -> None:
        os.close(self._to)


@asynccontextmanager
async def relayed(
    find: Callable[[], list[WorkerSocket]], reports: list[str] | None = None, find_dead: Any = lambda live: ()
) -> AsyncIterator[Client]:
    """A client of a relay to these workers. The relay ends when the client hangs up, at the latest here."""
    relay_reads, client_writes = os.pipe()
    client_reads, relay_writes = os.pipe()

    async def run() -> None:
        try:
            await relay(find, relay_reads, relay_writes, (reports if reports is not None else []).append, find_dead)
        finally:
            os.close(relay_writes)

    client = Client(client_writes, client_reads)
    try:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                yield client
                client.hang_up()
    finally:
        os.close(relay_reads)
        os.close(client_reads)


@pytest.fixture
def worker(make_snapshot: Callable[..., Snapshot]) -> Iterator[FakeWorker]:
    with FakeWorker([make_snapshot()]) as fake:
        yield fake


async def test_a_channel_carries_the_wire(worker: FakeWorker) -> None:
    """Hello, the workers; then what the worker says, unchanged, until the channel is closed."""
    found = [worker_at(Path(str(worker.path)))]
    async with relayed(lambda: found) as client:
        assert (await client.hear("relay"))["relay"] == "1.2"
        (offer,) = (await client.hear("workers"))["workers"]
        assert (offer["socket"], offer["user"]) == (str(worker.path), None)
        client.say({"type": "open", "channel": 7, "socket": offer["socket"]})
        message = await client.hear("message")
        assert (message["channel"], message["message"]["type"]) == (7, "hello")
        client.say({"type": "message", "channel": 7, "message": {"type": "snapshot", "id": "s"}})
        message = await client.hear("message")
        assert (message["message"]["type"], message["message"]["id"]) == ("snapshot", "s")
        client.say({"type": "close", "channel": 7})
        assert await client.hear("closed") == {"type": "closed", "channel": 7, "reason": "closed"}


async def test_workers_that_start_later_are_offered(worker: FakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list comes again and again."""
    monkeypatch.setattr(far_side, "RESCAN_S", 0.01)
    found: list[WorkerSocket] = []
    async with relayed(lambda: list(found)) as client:
        assert (await client.hear("workers"))["workers"] == []
        found.append(worker_at(Path(str(worker.path))))
        while not (await client.hear("workers"))["workers"]:
            pass


async def test_what_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not offered, one that does not serve any more, one channel too many: each closed with a reason."""
    monkeypatch.setattr(far_side, "MAX_CHANNELS", 1)
    gone = tmp_path / "gone.sock"
    async with relayed(lambda: [worker_at(gone)]) as client:
        client.say({"type": "open", "channel": 1, "socket": "/etc/passwd"})
        assert (await client.hear("closed"))["reason"] == "no such worker runs there"
        client.say(
            {"type": "open", "channel": 2, "socket": str(gone)}, {"type": "open", "channel": 3, "socket": str(gone)}
        )
        assert sorted([(await client.hear("closed"))["reason"], (await client.hear("closed"))["reason"]]) == [
            "1 channels are open already",
            "its socket is gone",
        ]


async def test_a_worker_that_ends(make_snapshot: Callable[..., Snapshot]) -> None:
    """Its channel is closed; the others are not."""
    with contextlib.ExitStack() as running:
        worker = running.enter_context(FakeWorker([make_snapshot()]))
        path = str(worker.path)
        async with relayed(lambda: [worker_at(Path(path))]) as client:
            client.say({"type": "open", "channel": 1, "socket": path})
            await client.hear("message")
            running.close()
            assert (await client.hear("closed"))["reason"] == "it closed the connection"
            client.say({"type": "message", "channel": 1, "message": {"type": "snapshot", "id": 1}})
            client.say({"type": "open", "channel": 2, "socket": "nowhere"})
            assert (await client.hear("closed"))["channel"] == 2


async def test_only_so_many_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that are not relayed are reported once, on a line of their own."""
    monkeypatch.setattr(far_side, "MAX_WORKERS", 2)
    monkeypatch.setattr(far_side, "RESCAN_S", 0.01)
    reports: list[str] = []
    async with relayed(lambda: [worker_at(Path(f"/{number}.sock")) for number in range(3)], reports) as client:
        for _ in range(3):
            assert len((await client.hear("workers"))["workers"]) == 2
    assert reports == ["3 workers run here; only the first 2 are relayed"]


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1\n", b'{"type":"shutdown"}\n', b"x" * (MAX_FROM_CLIENT + 1)])
async def test_a_client_of_another_language(line: bytes) -> None:
    """Ends the relay with an error."""
    relay_reads, client_writes = os.pipe()
    client_reads, relay_writes = os.pipe()
    with (
        open(relay_reads),
        open(client_reads),
        open(relay_writes, "w"),
        open(client_writes, "wb", buffering=0) as client,
    ):
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, client.write, line)
                with pytest.raises(ProtocolError):
                    await relay(list, relay_reads, relay_writes, print)


async def test_a_client_that_is_gone() -> None:
    """Nobody reads any more: that is the end, and no error."""
    relay_reads, client_writes = os.pipe()
    client_reads, relay_writes = os.pipe()
    os.close(client_reads)
    with open(relay_reads), open(client_writes, "w"), open(relay_writes, "w"), anyio.fail_after(20):
        await relay(list, relay_reads, relay_writes, print)


async def test_a_worker_that_sends_no_json() -> None:
    """Would break the lines around it: it is not passed on."""
    with pytest.raises(ProtocolError, match="is no JSON"):
        from_worker(1, b'{"a":')
    assert json.loads(from_worker(1, b'{"a": [1, "x"]}')) == {
        "type": "message",
        "channel": 1,
        "message": {"a": [1, "x"]},
    }


async def test_other_versions() -> None:
    """Another major is named; what is no relay's hello is shown."""
    with pytest.raises(ProtocolError, match="speaks version 2, this one 1"):
        decode_relay_hello(b'{"type":"relay","relay":"2.0","new":[]}')
    with pytest.raises(ProtocolError, match="began with 'Last login: Tue' instead of"):
        decode_relay_hello(b"Last login: Tue")
    assert decode_relay_hello(b'{"type":"relay","relay":"1.7","new":[]}').relay == "1.7"


@pytest.mark.parametrize("line", EXAMPLES)
async def test_examples_of_the_docs(line: str) -> None:
    """Each is a message of one of the sides."""
    decoders: list[Callable[[bytes], object]] = [decode_from_relay, decode_from_client]
    for decode in decoders:
        try:
            assert decode(line.encode())
            return
        except ProtocolError:
            continue
    pytest.fail(f"nobody sends {line}")


async def test_a_request_is_put_into_its_envelope() -> None:
    """As the docs show it."""
    assert to_worker(1, b'{"type":"snapshot","id":1}\n').decode() in [line + "\n" for line in EXAMPLES]


async def test_the_command_needs_a_client(start_worker: Callable[..., object]) -> None:
    """`openrtc relay` ends with its stdin, and writes nothing but the protocol to stdout."""
    start_worker("relayed", 1)
    command = [sys.executable, "-m", "openrtc_top", "relay", "--worker", "relayed"]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (0, b"")
    hello, workers = result.stdout.splitlines()
    assert decode_relay_hello(hello)
    assert b'"name":"relayed"' in workers


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# --- black boxes ---------------------------------------------------------------------------------


async def test_a_black_box_is_read(make_box: Callable[..., Any], runtime_dir: Path) -> None:
    """That beside the socket of a worker that was offered; each answer has the number of its request."""
    box = make_box(socket=runtime_dir / "w-7.sock", held_s=8.0)
    async with relayed(lambda: [worker_at(runtime_dir / "w-7.sock")]) as client:
        await client.hear("workers")
        client.say({"type": "read-box", "request": 5, "box": str(box.path)})
        answer = await client.hear("box")
        assert (answer["request"], answer["reading"]["worker"]) == (5, "voice-a")
        assert answer["reading"]["snapshot"]["blocks_in_progress"][0]["cause"] == "native"
        box.path.unlink()
        client.say({"type": "read-box", "request": 6, "box": str(box.path)})
        answer = await client.hear("box")
        assert (answer["request"], answer["reading"]) == (6, None)
        assert answer["reason"] == f"black box '{box.path}': No such file or directory"


async def test_the_dead_are_offered(make_box: Callable[..., Any]) -> None:
    """In few words, beside the workers; the box of each can be read."""
    box = make_box(held_s=8.0, dead=True)
    async with relayed(list, find_dead=dead_finder(Target())) as client:
        (dead,) = (await client.hear("workers"))["dead"]
        assert (dead["name"], dead["box"], dead["held"]["session_id"]) == ("voice-a", str(box.path), "job-c1d550")
        client.say({"type": "read-box", "request": 1, "box": dead["box"]})
        assert (await client.hear("box"))["reading"]["alive"] is False
    assert box.path.exists()


async def test_what_cannot_be_read(make_box: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not offered, one box too many at a time."""
    box = make_box(dead=True)
    async with relayed(list, find_dead=dead_finder(Target())) as client:
        await client.hear("workers")
        client.say({"type": "read-box", "request": 1, "box": "/etc/passwd"})
        assert (await client.hear("box"))["reason"] == "no such worker runs or died there"
        monkeypatch.setattr(far_side, "MAX_BOXES", 0)
        client.say({"type": "read-box", "request": 2, "box": str(box.path)})
        assert (await client.hear("box"))["reason"] == "0 black boxes are being read already"


async def test_an_old_client_reads_the_list() -> None:
    """What it does not know is left out."""
    line = b'{"type":"workers","workers":[],"dead":[{"box":"/b","name":"w"}],"newer":1}'
    message = decode_from_relay(line)
    assert isinstance(message, Workers)
    assert [dead.name for dead in message.dead] == ["w"]


@pytest.mark.parametrize(("version", "minor"), [("1.0", 0), ("1.1", 1), ("1.12.3", 12), ("1.", 0), ("1.x", 0)])
async def test_the_minor_version(version: str, minor: int) -> None:
    """It says whether the relay reads boxes."""
    assert minor_of(RelayHello(relay=version)) == minor
