"""What is fuzzed: functions of bytes that raise nothing, whatever the bytes are.

    python tests/fuzz/targets.py SECONDS     each of them for so long, coverage-guided, with atheris

What such a run finds is kept in corpus/, in which each input reaches code that the others do not; the tests replay it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).with_name("corpus")
LIMIT = 512
"""The longest request line of the fuzzed server: a limit that short inputs reach, too."""

if __name__ == "__main__" and len(sys.argv) > 2:
    import atheris

    with atheris.instrument_imports(include=["openrtc_introspect_core"]):
        import openrtc_introspect_core.wire._server  # noqa: F401

from openrtc_introspect_core import ProtocolError, RequestFailed
from openrtc_introspect_core.wire import (
    Block,
    Hello,
    Limits,
    LineBuffer,
    Snapshot,
    WorkerInfo,
    decode_hello,
    decode_request,
    decode_server_message,
    encode,
)
from openrtc_introspect_core.wire._framing import LineTooLong, RequestError
from openrtc_introspect_core.wire._server import Connection, Server


def lines(data: bytes) -> None:
    """A stream is cut into the same lines however it comes in pieces: the first byte is the pieces' size."""
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
    """A line is a request, which is the same after another trip, or refused with a reply that can be sent."""
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


def conversation(data: bytes) -> None:
    """A server answers each line of a stream once, in pieces or not, and lets go when the client does."""
    size, stream = (data[0] % 64 or 64, data[1:4096]) if data else (64, b"")
    found, too_long = _cut(stream, len(stream) or 1)
    # A server that closes while the client still sends: what it said before may be lost.
    closes = too_long or any(_is_bye(line) for line in found)
    expected = 0 if closes else len(found)
    replies = asyncio.run(asyncio.wait_for(_talk(stream, size, expected), 60.0))
    assert len(replies) >= expected, (replies, expected)
    for line in replies:
        decode_server_message(line)


def _is_bye(line: bytes) -> bool:
    try:
        return type(decode_request(line)).__name__ == "ByeRequest"
    except RequestError:
        return False


async def _talk(stream: bytes, size: int, expected: int) -> list[bytes]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        hello = Hello(protocol="1.0", worker="w", pid=1, limits=Limits(request_bytes=LIMIT))
        server = Server(theirs, Source(), hello, cpu_clock=lambda: 0.0)
        serving = asyncio.create_task(Connection(server, theirs).run())
        reader, writer = await asyncio.open_connection(sock=ours)
        assert b'"hello"' in await reader.readline()
        try:
            for start in range(0, len(stream), size):
                writer.write(stream[start : start + size])
                await asyncio.sleep(0)
            if b"watch" not in stream:  # else that it is gone is looked for twice a second, which is slow
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
        try:
            await serving
        except* OSError:  # the client's loss: it has gone without hearing all
            pass
    return replies


TARGETS: dict[str, Callable[[bytes], None]] = {each.__name__: each for each in (lines, request, reply, conversation)}


def corpus(target: str) -> list[bytes]:
    """The inputs that are kept, each of which reached code that those before it did not."""
    kept = CORPUS / f"{target}.jsonl"
    texts = kept.read_text(encoding="ascii").splitlines() if kept.exists() else []
    return [json.loads(text).encode("latin-1") for text in texts]


def keep(target: str, inputs: list[bytes]) -> None:
    """Makes these the target's corpus, the shortest first."""
    texts = [json.dumps(each.decode("latin-1")) for each in sorted(set(inputs), key=lambda each: (len(each), each))]
    (CORPUS / f"{target}.jsonl").write_text("".join(f"{text}\n" for text in texts), encoding="ascii")


def fuzz(target: str, seconds: float) -> None:
    """Runs one target from its corpus on, in a process of its own. Raises where an input made it fail."""
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
        for name in TARGETS:
            fuzz(name, float(sys.argv[1]))
        return
    target = TARGETS[sys.argv.pop(1)]
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of each write to a server that has closed

    def one(data: bytes) -> None:
        target(bytes(data))

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
