"""The fuzzed functions take bytes and raise nothing, whatever the bytes are.

    python tests/fuzz/targets.py SECONDS     each of them for so long, coverage-guided, with atheris

What such a run finds is kept in corpus/, in which each input reaches code that the others do not; the tests replay it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import json
import logging
import shutil
import socket
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

CORPUS = Path(__file__).with_name("corpus")
LIMIT = 512
"""The longest request line of the fuzzed server: a limit that short inputs reach, too."""

if __name__ == "__main__" and len(sys.argv) > 2:
    import atheris

    with atheris.instrument_imports(include=["openrtc_introspect_core"]):
        import openrtc_introspect_core.black_box._moment
        import openrtc_introspect_core.wire._connection  # noqa: F401

from openrtc_introspect_core import BoxError, ProtocolError, RequestFailed
from openrtc_introspect_core.black_box import LoopState, blocks_now, read_box, snapshot_now
from openrtc_introspect_core.black_box._layout import (
    FILE_BYTES,
    LAYOUT_VERSION,
    MAGIC,
    PREFIX,
    SECTIONS,
    Header,
    Section,
    pack_header,
    pack_slot,
)
from openrtc_introspect_core.black_box._records import WorkerRecord
from openrtc_introspect_core.wire import (
    CAPABILITIES,
    Block,
    Blocks,
    Error,
    Hello,
    Limits,
    LineBuffer,
    Location,
    SessionRow,
    Snapshot,
    WorkerInfo,
    decode_hello,
    decode_request,
    decode_server_message,
    encode,
    to_json,
)
from openrtc_introspect_core.wire._connection import Action, ServerConnection
from openrtc_introspect_core.wire._framing import LineTooLong, RequestError
from openrtc_introspect_core.wire._server import ClientSocket, Server
from openrtc_introspect_core.wire._source import SharedSnapshot


def lines(data: bytes) -> None:
    """A stream gives the same lines in pieces of any size; the first byte is the size."""
    size, stream = (data[0] % 64 or 64, data[1:]) if data else (64, b"")
    whole = _cut(stream, len(stream) or 1)
    assert _cut(stream, size) == whole
    assert _cut(stream, 1) == whole


def _cut(stream: bytes, size: int) -> tuple[list[bytes], bool]:
    buffer = LineBuffer(LIMIT)
    found: list[bytes] = []
    try:
        for start in range(0, len(stream), size):
            found.extend(buffer.feed(stream[start : start + size]))
    except LineTooLong:
        return found, True
    return found, False


def request(data: bytes) -> None:
    """A line is a request that survives encoding, or is refused with a reply that can be sent."""
    try:
        decoded = decode_request(data)
    except RequestError as error:
        refusal = error.reply
    else:
        assert decode_request(encode(decoded)) == decoded
        return
    assert decode_server_message(encode(refusal)) == refusal


def reply(data: bytes) -> None:
    """A worker's line is a message or a ProtocolError, as its first line and later."""
    for decode in (decode_server_message, decode_hello):
        try:
            decoded: Any = decode(data)
        except (ProtocolError, RequestFailed):  # the latter: a refusal as the first line
            continue
        assert decode_server_message(encode(decoded)) == decoded


class Source:
    """A worker without sessions."""

    def snapshot(self) -> Snapshot:
        return Snapshot(seq=1, taken_at=1.0, worker=WorkerInfo(name="w", pid=1))

    def blocks(self, since: int) -> list[Block]:
        return []

    def tasks(self, request: Any) -> None:
        return None

    def stacks(self, request: Any) -> Any:
        raise RuntimeError("no stacks here")

    def waits(self, request: Any) -> Any:
        raise RuntimeError("no waits here")


HELLO = Hello(
    protocol="1.0", worker="w", pid=1, capabilities=list(CAPABILITIES), limits=Limits(request_bytes=LIMIT, watches=2)
)
TURNS = 10_000
"""The most turns of a conversation: no stream of a target's length needs so many."""


def conversation(data: bytes) -> None:
    """A server answers each line of a stream once, in pieces or not, and ends when the client leaves."""
    size, stream = _sized(data)
    found, too_long = _cut(stream, len(stream) or 1)
    kinds = [_kind(line) for line in found]
    closes = "bye" in kinds
    if closes:
        found = found[: kinds.index("bye") + 1]
    source = Source()
    connection = ServerConnection(HELLO, source, SharedSnapshot(source, lambda: 0.0, lambda: 0.0), 0.0)
    replies, frames = _converse(connection, [stream[at : at + size] for at in range(0, len(stream), size)])
    started = len(found) + (too_long and not closes) - len(replies)
    assert 0 <= started <= kinds.count("watch")  # a watch that is begun has frames in place of a reply
    assert bool(frames) >= bool(started)
    if too_long and not closes:
        refusal = decode_server_message(replies[-1])
        assert isinstance(refusal, Error)
        assert refusal.code == "line-too-long"
    for line in (*replies, *frames):
        decode_server_message(line)


def _converse(connection: ServerConnection, pieces: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return the replies and the frames; the time goes on as the connection asks."""
    now = 0.0
    replies: list[bytes] = []
    frames: list[bytes] = []
    for _ in range(TURNS):
        action = connection.next_action(now)
        if action is Action.CLOSE:
            return replies, frames
        if action is Action.WAIT:
            if connection.ended:
                return replies, frames  # watches go on until the client is gone, which it now is
            connection.receive(pieces.pop(0) if pieces else b"")
            now += 0.03
        elif message := b"".join(connection.message(now)):
            (frames if action is Action.FRAME else replies).append(message)
            connection.sent(now)
    raise AssertionError("it has no end")


def served(data: bytes) -> None:
    """A socket's client gets all replies unless the server closes first, and the server ends with it."""
    size, stream = _sized(data)
    found, too_long = _cut(stream, len(stream) or 1)
    # A server that closes while the client still sends: what it said before may be lost.
    closes = too_long or "bye" in map(_kind, found)
    expected = 0 if closes else len(found)
    replies = asyncio.run(asyncio.wait_for(_talk(stream, size, expected), 60.0))
    assert len(replies) >= expected, (replies, expected)
    for line in replies:
        decode_server_message(line)


def _sized(data: bytes) -> tuple[int, bytes]:
    """Return the pieces' size, which the first byte gives, and the stream."""
    return (data[0] % 64 or 64, data[1:4096]) if data else (64, b"")


def _kind(line: bytes) -> str | None:
    try:
        return str(decode_request(line).__struct_config__.tag)
    except RequestError:
        return None


async def _talk(stream: bytes, size: int, expected: int) -> list[bytes]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        hello = Hello(protocol="1.0", worker="w", pid=1, limits=Limits(request_bytes=LIMIT))
        server = Server(theirs, Source(), hello, cpu_clock=lambda: 0.0)
        serving = asyncio.create_task(ClientSocket(server, theirs).run())
        reader, writer = await asyncio.open_connection(sock=ours)
        assert b'"hello"' in await reader.readline()
        try:
            for start in range(0, len(stream), size):
                writer.write(stream[start : start + size])
                await asyncio.sleep(0)
            if b"watch" not in stream:  # else the server polls twice a second whether it is gone, which is slow
                writer.write_eof()
        except OSError:  # it has heard enough
            pass
        replies: list[bytes] = []
        while len(replies) < expected:
            try:
                line = await reader.readline()
            except OSError:
                break
            if not line:
                break
            replies.append(line)
        writer.close()
        with contextlib.suppress(OSError):  # the client's loss: it has gone without hearing all
            await serving
    return replies


def box(data: bytes) -> None:
    """A black box is read or an error of ours in one line; what is made of it can be sent.

    The first byte says what the others are in an otherwise good box: all of it, its header, a record, the part
    that is reserved, or changes of its bytes.
    """
    kind, given = (data[0] % 6, data[1:]) if data else (0, b"")
    path = _directory() / "w-1.box"
    with path.open("wb") as file:
        path.chmod(0o600)
        if kind != 0:
            file.truncate(FILE_BYTES)
            for offset, part in _good_parts(given if kind == 2 else None, given if kind == 3 else None):
                file.seek(offset)
                file.write(part)
            file.seek(0)
        if kind == 0:
            file.write(given)
        elif kind == 1:
            file.write(PREFIX.pack(MAGIC, LAYOUT_VERSION, len(given), zlib.crc32(given), 0) + given)
        elif kind == 4:
            file.seek(SECTIONS.dump.offset)
            file.write(given)
        elif kind == 5:
            _change(file, given)
    problem = ""
    try:
        read = read_box(path)
    except BoxError as error:
        problem = str(error)
    else:
        moment = snapshot_now(read, 2e9)
        assert decode_server_message(encode(moment)) == moment
        blocks = Blocks(id=1, blocks=blocks_now(read, 2e9))
        assert decode_server_message(encode(blocks)) == blocks
    assert problem.isprintable()


@functools.cache
def _directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="openrtc-fuzz-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def _good_parts(worker: bytes | None, loop: bytes | None) -> Iterator[tuple[int, bytes]]:
    """Yield the parts of a box and where they are. worker, loop: the latest records; None: good ones."""
    block = Block(seq=1, session_id="s", started_at=1e9, duration_ms=70.0)
    snapshot = msgspec.structs.replace(
        Source().snapshot(), sessions=[SessionRow(session_id="s", agent_name="a")], blocks_in_progress=[block]
    )
    record = WorkerRecord(at=1e9, threads=[7], names=["asyncio-1"], blocks=[block], snapshot=snapshot)
    stack = [Location(file="/a.py", line=3, function="f")]
    state = LoopState(at=1e9, state="held", since=1e9, keeper=1, session_id="s", agent_name="a", stack=stack)
    yield 0, pack_header(Header(worker="w", pid=1, started_at=1e9))
    for section, kept, latest in ((SECTIONS.worker, record, worker), (SECTIONS.loops[0], state, loop)):
        yield from _slots(section, to_json(kept), latest)


def _slots(section: Section, record: bytes, latest: bytes | None) -> Iterator[tuple[int, bytes]]:
    yield section.offset + section.size, pack_slot(1, record)
    yield section.offset, pack_slot(2, latest if latest is not None else record)


def _change(file: BinaryIO, changes: bytes) -> None:
    """Change bytes near the beginning of a part: each change is the part, the place in it, and the byte."""
    parts = [0, *(offset + slot * size for offset, size in (SECTIONS.worker, SECTIONS.loops[0]) for slot in (0, 1))]
    for part, place, value in zip(changes[::3], changes[1::3], changes[2::3], strict=False):
        file.seek(parts[part % len(parts)] + place)
        file.write(bytes([value]))


FUZZED = (lines, request, reply, conversation, box)
TARGETS: dict[str, Callable[[bytes], None]] = {each.__name__: each for each in (*FUZZED, served)}
"""`served` is too slow to be fuzzed: it replays what was found with `conversation`."""


def corpus(target: str) -> list[bytes]:
    """Return the kept inputs, each of which reached code that those before it did not."""
    kept = CORPUS / f"{'conversation' if target == 'served' else target}.jsonl"
    texts = kept.read_text(encoding="ascii").splitlines() if kept.exists() else []
    return [json.loads(text).encode("latin-1") for text in texts]


def keep(target: str, inputs: list[bytes]) -> None:
    """Make these inputs the target's corpus, the shortest first."""
    texts = [json.dumps(each.decode("latin-1")) for each in sorted(set(inputs), key=lambda each: (len(each), each))]
    (CORPUS / f"{target}.jsonl").write_text("".join(f"{text}\n" for text in texts), encoding="ascii")


def fuzz(target: str, seconds: float) -> None:
    """Run one target from its corpus on, in its own process; raise SystemExit if an input makes it fail."""
    with tempfile.TemporaryDirectory() as temporary:
        found = Path(temporary) / "found"
        found.mkdir()
        for number, data in enumerate(corpus(target)):
            (found / f"{number:04}").write_bytes(data)
        command = [sys.executable, __file__, target]
        options = ["-max_len=600", "-timeout=60", f"-artifact_prefix={temporary}/", "-verbosity=0"]
        ended = subprocess.run([*command, str(found), f"-max_total_time={seconds:g}", *options], check=False)
        for culprit in (*Path(temporary).glob("crash-*"), *Path(temporary).glob("timeout-*")):
            raise SystemExit(f"{target} fails with {culprit.read_bytes()!r}: see above")
        if ended.returncode:
            raise SystemExit(f"the fuzzer of {target} ended with exit code {ended.returncode}")
        keep(target, [file.read_bytes() for file in found.iterdir()])
    print(f"{target}: {len(corpus(target))} inputs kept", flush=True)


def main() -> None:
    if len(sys.argv) == 2:
        for each in FUZZED:
            fuzz(each.__name__, float(sys.argv[1]))
        return
    target = TARGETS[sys.argv.pop(1)]
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of each write to a server that has closed

    def one(data: bytes) -> None:
        target(bytes(data))

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
