"""The server: moves bytes and time between Unix sockets and the protocol.

It runs on the service thread's own loop.

`ServerConnection` knows what one client is owed; here are the sockets, the waits and what clients share.
What a client does costs its own connection only:
- a request line has a limit, a write has a timeout, a connection that asks and watches nothing is
  closed; the connections and the watches of each are limited;
- if there are as many connections as there may be, the oldest that has never asked anything gives
  way to the next one: a crowd that only connects does not lock out a client with a request;
- a message is built when the connection is free to take it, so a connection holds one at the most,
  and a watch's next frame waits until the client has read all before it: a slow reader skips
  frames and never has a queue;
- building snapshots takes a fifth of a core at the most, whoever asks: a snapshot that took a second
  to build is shared by all who ask within the next four;
- answering all clients together takes another fifth at the most: each second of work is followed
  by four of rest; and connections are accepted at a limited rate.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.abc

from .._base.log import QueuedLogger
from ._connection import Action, ServerConnection, refusal
from ._messages import Hello
from ._peer import may_connect, peer_uid, unread_bytes
from ._source import REST, Message, SharedSnapshot, Source

logger = QueuedLogger("openrtc.introspect")

_TURN_S = 0.0001
"""The cost of a turn beside its work: waking up, system calls."""

_SHORTEST_REST_S = 0.001
"""Timers are no finer; a shorter rest is owed until more has come together."""

_ACCEPT_REST_S = 0.002
_OUT_OF_FILES_REST_S = 0.2
_UNREAD_POLL_S = 0.02
KEPT_S = 10.0
"""Seconds for which the latest snapshot is kept after the last client has left."""
_HUNG_UP_POLL_S = 0.5
_READ_BYTES = 16 * 1024

_Result = TypeVar("_Result")


class Server:
    """Serves one listening socket until it is cancelled.

    The listener stays the caller's to close.
    """

    def __init__(
        self,
        listener: socket.socket,
        source: Source,
        hello: Hello,
        clock: Callable[[], float] = time.perf_counter,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self.hello = hello
        self.source = source
        self.clock = clock
        self.shared = SharedSnapshot(source, clock, cpu_clock)
        self._cpu_clock = cpu_clock
        self._listener = listener
        self._clients: dict[ClientSocket, None] = {}  # the oldest first
        self._turn = anyio.Lock()
        self._rest_until = -math.inf
        self._left_at = -math.inf
        """The time at which the last client left."""
        self._forgetting = False

    async def serve(self) -> None:
        async with anyio.create_task_group() as group:
            while True:
                await anyio.wait_readable(self._listener)
                try:
                    connection, _ = self._listener.accept()
                except (BlockingIOError, ConnectionError):
                    continue
                except OSError:  # out of file descriptors: the listener stays readable meanwhile
                    await anyio.sleep(_OUT_OF_FILES_REST_S)
                    continue
                if (admitted := self._admit(connection)) is not None:
                    self._clients[admitted] = None
                    group.start_soon(self._serve, admitted, group)
                else:
                    connection.close()
                await anyio.sleep(_ACCEPT_REST_S)

    def _admit(self, connection: socket.socket) -> ClientSocket | None:
        try:
            connection.setblocking(False)
            if not may_connect(peer_uid(connection)):
                return None
            if not self._has_room():
                connection.send(refusal(self.hello.limits))
                return None
        except OSError:  # gone already
            return None
        return ClientSocket(self, connection)

    def _has_room(self) -> bool:
        """Return whether one more may connect.

        A client that has asked nothing gives way if need be.
        """
        if len(self._clients) < self.hello.limits.clients:
            return True
        silent = next((each for each in self._clients if not each.has_asked), None)
        if silent is None:
            return False
        del self._clients[silent]
        silent.give_way()
        return True

    async def _serve(self, client: ClientSocket, group: anyio.abc.TaskGroup) -> None:
        try:
            await client.run()
        except OSError:
            pass  # the client's loss
        except Exception as error:
            logger.error("introspection of %s: a client's connection failed", self.hello.worker, exc_info=error)
        finally:
            self._clients.pop(client, None)
            self._left_at = self.clock()
            if not self._clients and not self._forgetting:
                self._forgetting = True
                group.start_soon(self._forget)

    async def _forget(self) -> None:
        """Free what is kept for clients, unless one comes soon."""
        try:
            while not self._clients and (left := self._left_at + KEPT_S - self.clock()) > 0.0:  # noqa: ASYNC110
                await anyio.sleep(left)
            if not self._clients:
                self.shared.forget()
        finally:
            self._forgetting = False

    async def paced(self, work: Callable[[], _Result]) -> _Result:
        """Return the result of `work`, done in its turn.

        It begins once the rest that earlier work owes is over.
        """
        async with self._turn:
            owed = self._rest_until - self.clock()
            await anyio.sleep(owed if owed >= _SHORTEST_REST_S else 0.0)
            began, built = self._cpu_clock(), self.shared.cpu_s
            try:
                return work()
            finally:
                # Building a snapshot owes no rest: by the end of that it would be stale for the next client.
                spent = _TURN_S + self._cpu_clock() - began - (self.shared.cpu_s - built)
                self._rest_until = max(self._rest_until, self.clock()) + REST * spent


class ClientSocket:
    """One client's socket: its bytes and its waits."""

    def __init__(self, server: Server, connection: socket.socket) -> None:
        self._server = server
        self._clock = server.clock
        self._limits = server.hello.limits
        self._socket = connection
        self._connection = ServerConnection(server.hello, server.source, server.shared, server.clock())
        self._scope = anyio.CancelScope()

    @property
    def has_asked(self) -> bool:
        """Whether a line has come."""
        return self._connection.has_asked

    def give_way(self) -> None:
        """End the connection of a client that has asked nothing.

        No message is under way that this could cut.
        """
        with contextlib.suppress(OSError):
            self._socket.send(refusal(self._limits))
        self._scope.cancel()

    async def run(self) -> None:
        """Serve until the connection is over.

        Raises OSError if the client breaks it or does not read in time.
        """
        with self._socket, self._scope:
            try:
                await self._run()
            finally:
                _shut_down(self._socket)

    async def _run(self) -> None:
        connection = self._connection
        await self._send(connection.greeting())
        while (action := connection.next_action(self._clock())) is not Action.CLOSE:
            if action is Action.WAIT:
                if not await self._receive():
                    return
                continue
            if action is Action.FRAME:
                await self._until_all_is_read()
                if self._is_gone():
                    return
            if message := await self._server.paced(lambda: connection.message(self._clock())):
                await self._send(message)

    async def _receive(self) -> bool:
        """Take what the client sends, or wait for it until the connection's wake-up.

        False: the client is gone.
        """
        left = max(self._connection.wake_at - self._clock(), 0.0)
        if self._connection.ended:  # nothing reports when the client closes altogether
            await anyio.sleep(min(left, _HUNG_UP_POLL_S))
            return not self._is_gone()
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            with anyio.move_on_after(left):
                await anyio.wait_readable(self._socket)
            return True
        except ConnectionError:
            return False
        self._connection.receive(data)
        return not self._is_gone()  # then nobody is there to hear the answers

    def _is_gone(self) -> bool:
        """Return whether the client has closed altogether.

        Only Linux reports it before the client's side has ended.
        """
        return (sys.platform == "linux" or self._connection.ended) and _hung_up(self._socket)

    async def _send(self, message: Message) -> None:
        """Send a message.

        Raises TimeoutError if the client does not take it in time; the connection is then broken.
        """
        with anyio.fail_after(self._limits.write_timeout_s):
            for piece in message:
                rest = memoryview(piece)
                while rest:
                    try:
                        rest = rest[self._socket.send(rest) :]
                    except BlockingIOError:
                        await anyio.wait_writable(self._socket)
        self._connection.sent(self._clock())

    async def _until_all_is_read(self) -> None:
        """Wait until the client has read all.

        Raises TimeoutError if it does not within the write timeout.
        """
        with anyio.fail_after(self._limits.write_timeout_s):
            while unread_bytes(self._socket):  # noqa: ASYNC110 - nothing reports when a peer reads
                await anyio.sleep(_UNREAD_POLL_S)


def _hung_up(connection: socket.socket) -> bool:
    """Return whether the peer has closed.

    On Linux False if it has only ended its own side.
    """
    poll = select.poll()
    poll.register(connection, 0)
    return bool(poll.poll(0))


def _shut_down(connection: socket.socket) -> None:
    # close() alone would leave it open if the host's process has forked meanwhile.
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
