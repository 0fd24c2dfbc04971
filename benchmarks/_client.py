"""The other process: asks a worker for snapshots, watches it, or floods it with connections that never read.

    python -m benchmarks._client {"does": "ask", ...}

It says it is ready, waits for a line, does its work and prints one line of JSON. Times are
time.monotonic's, which is one clock for all processes of a machine.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

SNAPSHOT_REQUEST = b'{"type":"snapshot","id":1}\n'


def ask(protocol: str, path: str, interval_s: float, seconds: float) -> list[tuple[float, float]]:
    """[(asked, answered)]: one snapshot each interval, at once where the last one took longer."""
    once = _ask_core if protocol == "core" else _ask_peer
    once(path)
    times = []
    due = time.monotonic()
    until = due + seconds
    while due < until:
        time.sleep(max(0.0, due - time.monotonic()))
        asked = time.monotonic()
        once(path)
        answered = time.monotonic()
        times.append((asked, answered))
        due = max(due + interval_s, answered)
    return times


def _ask_core(path: str) -> None:
    from openrtc_introspect_core import ConnectionFailed, RequestFailed, read_snapshot

    until = time.monotonic() + 30.0
    while True:
        try:
            read_snapshot(path, timeout_s=30.0)
        except (ConnectionFailed, RequestFailed):  # others have all the places: again, as a client does
            if time.monotonic() >= until:
                raise
            time.sleep(0.01)
        else:
            return


def _ask_peer(path: str) -> None:
    # What its fetch_snapshot does, but for the 64 KiB limit to a line that ends it above 366 sessions.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(30.0)
        connection.connect(path)
        parts = []
        while part := connection.recv(1 << 18):
            parts.append(part)
    json.loads(b"".join(parts))


def flood(protocol: str, path: str, clients: int, seconds: float) -> list[tuple[float, float]]:
    """Connections that ask and never read, kept open for `seconds`."""
    connections = []
    for _ in range(clients):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(10.0)
        try:
            connection.connect(path)
            if protocol == "core":
                connection.sendall(SNAPSHOT_REQUEST)
        except OSError:  # refused: that is one way to deal with it
            pass
        connections.append(connection)
    time.sleep(seconds)
    for connection in connections:
        connection.close()
    return []


def watch(protocol: str, path: str, clients: int, seconds: float) -> dict[str, float]:
    """So many watches at 1 Hz for `seconds`: what one of them got in a second, and how long a frame is."""
    import selectors

    with selectors.DefaultSelector() as selector:
        for _ in range(clients):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.connect(path)
            connection.sendall(b'{"type":"watch","id":1,"interval_s":1.0}\n')
            selector.register(connection, selectors.EVENT_READ)
        frames = size = 0
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                data = key.fileobj.recv(1 << 20)  # type: ignore[union-attr]
                size += len(data)
                frames += data.count(b"\n")
        frames -= clients  # the first line of each is the hello
    return {"per_s": frames / clients / seconds, "bytes": size / max(1, frames)}


class Client:
    """That process, seen from the worker's loop: it is there, waiting, before the measured time begins."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, does: str, **arguments: Any) -> Client:
        command = [sys.executable, "-m", "benchmarks._client", json.dumps({"does": does, **arguments})]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=1 << 24)
        client = cls(process)
        await client._line()
        return client

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def result(self) -> Any:
        found = json.loads(await self._line())
        await self._process.wait()
        return found

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the client process ended without a word")
        return line


def main() -> None:
    arguments = json.loads(sys.argv[1])
    does: Callable[..., Any] = {"ask": ask, "flood": flood, "watch": watch}[arguments.pop("does")]
    if arguments["protocol"] == "core":
        import openrtc_introspect_core.wire  # noqa: F401  # not while the clock runs
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(does(**arguments)), flush=True)


if __name__ == "__main__":
    main()
