"""One client's connection to a raw server: the core's own `ServerConnection`, driven in real time.

There is no pacing. A subclass breaks the protocol in one way, by one of these seams:

- what is served: `snapshot`, `blocks`, `tasks`, `stacks` and `waits`, the methods of a source;
- the limits that clients are held to, whatever the hello announces: `enforced`;
- the hello itself, and what follows from it: `differs`;
- what is read: `receive`, and `answer` for the reply to one line;
- what is sent: `greeting`, `message` and `refusal`, or `send` for the bytes of all of them;
- everything: `run`. An OSError ends the connection.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import msgspec

from openrtc_introspect_core.wire import (
    Block,
    Hello,
    Snapshot,
    Stacks,
    StacksRequest,
    Tasks,
    TasksRequest,
    Waits,
    WaitsRequest,
    encode,
)
from openrtc_introspect_core.wire._connection import Action, ServerConnection, refusal
from openrtc_introspect_core.wire._source import Message, SharedSnapshot

from .scripted_source import ScriptedSource

_POLL_S = 0.02
_READ_BYTES = 64 * 1024


class Server(Protocol):
    """The server that a conversation belongs to."""

    hello: Hello
    source: ScriptedSource
    over: threading.Event
    clients: int
    """How many are connected."""


class Conversation(ServerConnection):
    """One client's connection, which keeps to the protocol. It is the source that it serves, too."""

    enforced: ClassVar[Mapping[str, Any]] = {}
    """Limits that clients are held to in place of the hello's, by the names of the fields of `Limits`."""
    differs: ClassVar[Mapping[str, Any]] = {}
    """Fields of the hello that are others than the server's."""

    def __init__(self, server: Server, connection: socket.socket) -> None:
        self.server = server
        self.socket = connection
        self.heard: list[bytes] = []
        """The lines that the client sent."""
        self.hello = msgspec.structs.replace(server.hello, **self.differs)
        self.limits = msgspec.structs.replace(self.hello.limits, **self.enforced)
        hello = msgspec.structs.replace(self.hello, limits=self.limits)
        # Without a CPU clock no snapshot is fresh: each request has one of its own.
        snapshots = SharedSnapshot(self, time.monotonic, lambda: 0.0)
        super().__init__(hello, self, snapshots, time.monotonic())

    # --- what is served ----------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        return self.server.source.snapshot()

    def blocks(self, since: int) -> list[Block]:
        return self.server.source.blocks(since)

    def tasks(self, request: TasksRequest) -> Tasks | None:
        return self.server.source.tasks(request)

    def stacks(self, request: StacksRequest) -> Stacks:
        return self.server.source.stacks(request)

    def waits(self, request: WaitsRequest) -> Waits:
        return self.server.source.waits(request)

    # --- what is read and sent ---------------------------------------------------------------------

    def greeting(self) -> Message:
        return [encode(self.hello)]

    def refusal(self) -> bytes:
        """Return what a client gets in place of the hello if there are too many."""
        return refusal(self.limits)

    def answer(self, line: bytes, now: float) -> Message:
        self.heard.append(line)
        return super().answer(line, now)

    def send(self, message: Message) -> None:
        self.socket.sendall(b"".join(message))

    # --- the driver --------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the connection or the server is over. Raises OSError if the client breaks the connection."""
        if self.server.clients > self.limits.clients:
            self.send([self.refusal()])
            return
        self.send(self.greeting())
        while not self.server.over.is_set():
            action = self.next_action(time.monotonic())
            if action is Action.CLOSE:
                return
            if action is Action.WAIT:
                self._wait()
            elif message := self.message(time.monotonic()):
                self.send(message)
                self.sent(time.monotonic())

    def _wait(self) -> None:
        """Read what the client sends, or wait for a moment."""
        pause_s = max(0.0, min(_POLL_S, self.wake_at - time.monotonic()))
        if self.ended:
            if self.hung_up():
                raise ConnectionResetError("the client has closed")
            time.sleep(pause_s)
        elif select.select([self.socket], [], [], pause_s)[0]:
            self.receive(self.socket.recv(_READ_BYTES))

    def hung_up(self) -> bool:
        """Return whether the client has closed altogether."""
        poll = select.poll()
        poll.register(self.socket, 0)
        return bool(poll.poll(0))
