"""A hostile peer of a worker's socket, in a process of its own.

    python benchmarks/_adversary.py KIND SOCKET SECONDS

The process prints "ready", waits for a line on stdin, attacks for SECONDS, and prints one line of JSON: the number of
its connections and of the bytes it sent. It imports only the standard library, because tests start it by its path.
"""

from __future__ import annotations

import contextlib
import json
import random
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

CROWD = 10_000
DEPTH = 10_000
PIECE = 1 << 20
GIB = 1 << 30
HELD = 32
"""The number of clients that a worker accepts at a time."""

_WATCH = b'{"type":"watch","id":1,"interval_s":0.1}\n'
_SNAPSHOT = b'{"type":"snapshot","id":1}\n'


class Peer:
    """One attack: the socket, the end of the time, and the counts so far."""

    def __init__(self, path: str, seconds: float) -> None:
        self.path = path
        self.until = time.monotonic() + seconds
        self.connections = 0
        self.bytes = 0

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.until

    def send(self, connection: socket.socket, data: bytes) -> None:
        view = memoryview(data)
        while view and not self.over:
            sent = connection.send(view)
            self.bytes += sent
            view = view[sent:]


def _repeat(peer: Peer, data: bytes, max_bytes: float = float("inf")) -> None:
    """Send `data` again and again, on one connection after the other."""
    while not peer.over and peer.bytes < max_bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, contextlib.suppress(OSError):
            connection.settimeout(0.2)
            connection.connect(peer.path)
            peer.connections += 1
            while not peer.over:
                peer.send(connection, data)


def flood(peer: Peer) -> None:
    """Send requests without end, and never read the replies."""
    _repeat(peer, _SNAPSHOT * 500)


def noise(peer: Peer) -> None:
    """Send random bytes."""
    _repeat(peer, random.Random(7).randbytes(PIECE))


def endless(peer: Peer) -> None:
    """Send 1 GiB without a newline, or as much of it as the worker takes."""
    _repeat(peer, b"x" * PIECE, GIB)


def deep(peer: Peer) -> None:
    """Send requests nested 10,000 levels deep."""
    _repeat(peer, b'{"type":"snapshot","id":1,"x":' + b"[" * DEPTH + b"]" * DEPTH + b"}\n")


def stall(peer: Peer) -> None:
    """Hold all the connections there are, each with half a request.

    Each request grows by a byte at a time.
    """
    held: list[socket.socket] = []
    while not peer.over:
        while len(held) < HELD and not peer.over:
            connection = _try_connect(peer)
            if connection is None:
                break
            held.append(connection)
        for connection in list(held):
            try:
                peer.bytes += connection.send(b" ")
            except OSError:
                connection.close()
                held.remove(connection)
        time.sleep(0.02)


def half_close(peer: Peer) -> None:
    """Open watches, end the client's side of them, and read nothing."""
    held: list[socket.socket] = []
    while not peer.over:
        connection = _try_connect(peer)
        if connection is not None:
            with contextlib.suppress(OSError):
                peer.bytes += connection.send(_WATCH)
                connection.shutdown(socket.SHUT_WR)
            held.append(connection)
        if len(held) >= HELD or connection is None:
            time.sleep(0.05)
            for old in held[: HELD // 2]:
                old.close()
            del held[: HELD // 2]


def vanish(peer: Peer) -> None:
    """Open connections that ask for everything and disconnect at once."""
    while not peer.over:
        connection = _try_connect(peer)
        if connection is None:
            time.sleep(0.001)
            continue
        with contextlib.suppress(OSError):
            peer.bytes += connection.send(_WATCH + _SNAPSHOT * 20)
        connection.close()


def crowd(peer: Peer) -> None:
    """Make 10,000 connections as fast as the worker takes them.

    Each is kept until the worker closes it.
    """
    held: dict[int, socket.socket] = {}
    poll = select.poll()
    while peer.connections < CROWD and not peer.over:
        if (connection := _try_connect(peer)) is not None:
            held[connection.fileno()] = connection
            poll.register(connection, select.POLLHUP)
            continue
        for number, _ in poll.poll(1):
            poll.unregister(number)
            held.pop(number).close()


def _try_connect(peer: Peer) -> socket.socket | None:
    """Return a connection, or None if there is no room for one now."""
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError:
        return None
    connection.setblocking(False)
    try:
        connection.connect(peer.path)
    except OSError:
        connection.close()
        return None
    peer.connections += 1
    return connection


KINDS: dict[str, Callable[[Peer], None]] = {
    each.__name__: each for each in (flood, noise, endless, deep, stall, half_close, vanish, crowd)
}


def main() -> None:
    kind, path, seconds = sys.argv[1:]
    print("ready", flush=True)
    sys.stdin.readline()
    peer = Peer(path, float(seconds))
    KINDS[kind](peer)
    achieved: dict[str, Any] = {"connections": peer.connections, "bytes": peer.bytes}
    print(json.dumps(achieved), flush=True)


if __name__ == "__main__":
    main()
