"""A client process that asks a worker for snapshots, watches or floods it.

    python -m benchmarks._client {"does": "ask", ...}

The process prints "ready", waits for a line on stdin, does its work and prints one line of JSON. Times come from
time.monotonic, which is one clock for all processes of a machine.
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
    """Ask for one snapshot each interval. Return pairs (asked, answered).

    The next request follows at once if the last one took longer than the interval.
    """
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
        except (ConnectionFailed, RequestFailed):  # other clients hold all places: try again, as a client does
            if time.monotonic() >= until:
                raise
            time.sleep(0.01)
        else:
            return


def survey(protocol: str, path: str, pause_s: float, times: int) -> list[tuple[float, float, int]]:
    """Ask so many times what all tasks wait for. Return (asked, answered, tasks that were looked at)."""
    from openrtc_introspect_core import connect

    async def ask_all() -> list[tuple[float, float, int]]:
        found = []
        async with connect(path) as client:
            for _ in range(times):
                await asyncio.sleep(pause_s)
                asked = time.monotonic()
                answer = await client.waits()
                found.append((asked, time.monotonic(), answer.tasks))
        return found

    return asyncio.run(ask_all())


def _ask_peer(path: str) -> None:
    # As the peer's fetch_snapshot, without its limit of 64 KiB for a line, which fails above 366 sessions.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(30.0)
        connection.connect(path)
        parts = []
        while part := connection.recv(1 << 18):
            parts.append(part)
    json.loads(b"".join(parts))


def flood(protocol: str, path: str, clients: int, seconds: float) -> list[tuple[float, float]]:
    """Hold connections that send a request and never read, for `seconds`."""
    connections = []
    for _ in range(clients):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(10.0)
        try:
            connection.connect(path)
            if protocol == "core":
                connection.sendall(SNAPSHOT_REQUEST)
        except OSError:  # a worker may refuse it
            pass
        connections.append(connection)
    time.sleep(seconds)
    for connection in connections:
        connection.close()
    return []


def watch(protocol: str, path: str, clients: int, seconds: float, deltas: bool, spread_s: float) -> dict[str, float]:
    """Hold `clients` watches at 1 Hz for `seconds`, begun within `spread_s`.

    deltas: whether they ask for changes; a worker that has none sends whole snapshots.

    Return the frames a second that one of them got, and the bytes of a frame in the second half of the time.
    """
    import selectors

    request = {"type": "watch", "id": 1, "interval_s": 1.0, "deltas": deltas}
    with selectors.DefaultSelector() as selector:
        for _ in range(clients):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.connect(path)
            connection.sendall(json.dumps(request).encode() + b"\n")
            selector.register(connection, selectors.EVENT_READ)
            time.sleep(spread_s / clients)
        until = time.monotonic() + seconds
        _read_for(selector, seconds / 2)
        frames, size = _read_for(selector, until - time.monotonic())
    return {"per_s": frames / clients / (seconds / 2), "bytes": size / max(1, frames)}


def _read_for(selector: Any, seconds: float) -> tuple[int, int]:
    """Read for so long. Return the lines and the bytes."""
    lines = size = 0
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        for key, _ in selector.select(left):
            data = key.fileobj.recv(1 << 20)
            size += len(data)
            lines += data.count(b"\n")
    return lines, size


class Client:
    """The client process as the worker's loop sees it.

    The process is ready before the measured time begins.
    """

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
    commands: dict[str, Callable[..., Any]] = {"ask": ask, "flood": flood, "survey": survey, "watch": watch}
    does = commands[arguments.pop("does")]
    if arguments["protocol"] == "core":
        import openrtc_introspect_core.wire  # noqa: F401  # so that no import falls into the measured time
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(does(**arguments)), flush=True)


if __name__ == "__main__":
    main()
