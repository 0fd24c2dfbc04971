"""The server: moves bytes between Unix sockets and a Source, on the service thread's own loop.

What a client does costs its own connection only:
- a request line has a limit, a write has a timeout, a connection that asks and watches nothing is
  closed; there is a limit to connections and to watches of one;
- where there are as many connections as there may be, the oldest that has never asked anything gives
  way to the next: a crowd that only connects does not lock out who has something to ask;
- a message is built when the connection is free to take it, so a connection holds one at the most,
  and a watch's next frame waits until the client has read all before it: a slow reader skips
  frames and never has a queue;
- building snapshots takes a fifth of a core at the most, whoever asks: one that took a second is
  shared by all who ask within the next four;
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

from .._log import QueuedLogger
from ._endpoint import may_connect, peer_uid, unread_bytes
from ._framing import LineBuffer, LineTooLong, RequestError, decode_request, encode
from ._messages import (
    Blocks,
    BlocksRequest,
    ByeRequest,
    CancelRequest,
    Done,
    Error,
    Hello,
    Request,
    RequestId,
    SnapshotRequest,
    StacksRequest,
    TasksRequest,
    WatchRequest,
)
from ._source import REST, Message, SharedSnapshot, Source

logger = QueuedLogger("openrtc.introspect")

_TURN_S = 0.0001
"""What a turn costs beside its work: waking up, system calls."""

_SHORTEST_REST_S = 0.001
"""Timers are no finer; less is owed until there is more."""

_ACCEPT_REST_S = 0.002
_OUT_OF_FILES_REST_S = 0.2
_UNREAD_POLL_S = 0.02
_HUNG_UP_POLL_S = 0.5
_READ_BYTES = 16 * 1024
_LONGEST_PROBLEM = 200

_Result = TypeVar("_Result")


class Server:
    """Serves one listening socket until cancelled. The listener stays the caller's to close."""

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
        self._connections: dict[Connection, None] = {}  # the oldest first
        self._turn = anyio.Lock()
        self._rest_until = -math.inf

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
                    self._connections[admitted] = None
                    group.start_soon(self._serve, admitted)
                else:
                    connection.close()
                await anyio.sleep(_ACCEPT_REST_S)

    def _admit(self, connection: socket.socket) -> Connection | None:
        try:
            connection.setblocking(False)
            if not may_connect(peer_uid(connection)):
                return None
            if not self._has_room():
                connection.send(self.refusal())
                return None
        except OSError:  # gone already
            return None
        return Connection(self, connection)

    def _has_room(self) -> bool:
        """Whether one more may connect; makes room if need be and if it can be."""
        if len(self._connections) < self.hello.limits.clients:
            return True
        silent = next((each for each in self._connections if not each.has_asked), None)
        if silent is None:
            return False
        del self._connections[silent]
        silent.give_way()
        return True

    def refusal(self) -> bytes:
        limit = self.hello.limits.clients
        message = f"{limit} clients are connected already: close one, then connect again"
        return encode(Error(code="too-many-clients", message=message))

    async def _serve(self, connection: Connection) -> None:
        try:
            await connection.run()
        except* OSError:
            pass  # the client's loss
        except* Exception as errors:
            logger.error("introspection of %s: a client's connection failed", self.hello.worker, exc_info=errors)
        finally:
            self._connections.pop(connection, None)

    async def paced(self, work: Callable[[], _Result]) -> _Result:
        """The result of `work`, in its turn, once the rest that earlier work owes is over."""
        async with self._turn:
            owed = self._rest_until - self.clock()
            await anyio.sleep(owed if owed >= _SHORTEST_REST_S else 0.0)
            began, built = self._cpu_clock(), self.shared.cpu_s
            try:
                return work()
            finally:
                # Not for what was built: it would be stale by the end of that rest, for whoever comes next.
                spent = _TURN_S + self._cpu_clock() - began - (self.shared.cpu_s - built)
                self._rest_until = max(self._rest_until, self.clock()) + REST * spent


class Connection:
    """One client's requests and watches."""

    def __init__(self, server: Server, connection: socket.socket) -> None:
        self._server = server
        self._socket = connection
        self._limits = server.hello.limits
        self._lines = LineBuffer(self._limits.request_bytes)
        self._writing = anyio.Lock()
        self._watches: dict[RequestId, anyio.Event] = {}
        self._active_at = server.clock()
        self._scope = anyio.CancelScope()
        self.has_asked = False
        """Whether a line has come."""

    def give_way(self) -> None:
        """Ends it. Of one that has asked nothing, no message is under way that this could cut."""
        with contextlib.suppress(OSError):
            self._socket.send(self._server.refusal())
        self._scope.cancel()

    async def run(self) -> None:
        with self._socket, self._scope:
            await self._run()

    async def _run(self) -> None:
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                await self._send([encode(self._server.hello)])
                gone = not await self._read() or _hung_up(self._socket)
                while self._watches and not gone:  # it only ended its own side; nothing tells when the other ends
                    await anyio.sleep(_HUNG_UP_POLL_S)
                    gone = _hung_up(self._socket)
                if gone:
                    group.cancel_scope.cancel()
        finally:
            _shut_down(self._socket)

    async def _read(self) -> bool:
        """Answers requests until there are no more. False: the connection is over."""
        while data := await self._receive():
            self.has_asked = self.has_asked or b"\n" in data
            if sys.platform == "linux" and _hung_up(self._socket):
                return False  # nobody is there to hear answers to what it left behind
            lines, too_long = await self._server.paced(lambda: self._cut(data))
            for line in lines:
                if not await self._answer(line):
                    return False
            if too_long is not None:
                await self._send([encode(Error(code="line-too-long", message=str(too_long)))])
                return False
        return data is not None

    def _cut(self, data: bytes) -> tuple[list[bytes], LineTooLong | None]:
        lines: list[bytes] = []
        try:
            lines.extend(self._lines.feed(data))
        except LineTooLong as error:
            return lines, error
        return lines, None

    async def _receive(self) -> bytes | None:
        """What the client sent; nothing when it sends no more, None when it has been idle for too long."""
        while True:
            left = self._active_at + self._limits.idle_timeout_s - self._server.clock()
            if left <= 0.0 and not self._watches:
                return None
            with anyio.move_on_after(left if left > 0.0 else self._limits.idle_timeout_s):
                await anyio.wait_readable(self._socket)
                try:
                    return self._socket.recv(_READ_BYTES)
                except BlockingIOError:
                    continue
                except ConnectionError:
                    return None

    async def _send(self, message: Message) -> None:
        async with self._writing:
            await self._write(message)

    async def _write(self, message: Message) -> None:
        """Raises TimeoutError where the client does not take it in time; the connection is then broken."""
        with anyio.fail_after(self._limits.write_timeout_s):
            for piece in message:
                rest = memoryview(piece)
                while rest:
                    try:
                        rest = rest[self._socket.send(rest) :]
                    except BlockingIOError:
                        await anyio.wait_writable(self._socket)
        self._active_at = self._server.clock()

    async def _until_all_is_read(self) -> None:
        """Raises TimeoutError where the client does not read within the write timeout."""
        with anyio.fail_after(self._limits.write_timeout_s):
            while unread_bytes(self._socket):  # noqa: ASYNC110 - nothing tells when a peer reads
                await anyio.sleep(_UNREAD_POLL_S)

    async def _answer(self, line: bytes) -> bool:
        """Answers one request. False: the client has said bye."""
        self._active_at = self._server.clock()
        try:
            request = decode_request(line)
        except RequestError as error:
            refusal = encode(error.reply)
            async with self._writing:
                await self._write(await self._server.paced(lambda: [refusal]))
            return True
        async with self._writing:
            await self._write(await self._server.paced(lambda: self._reply(request)))
        return not isinstance(request, ByeRequest)

    def _reply(self, request: Request) -> Message:
        kind = request.__struct_config__.tag
        if kind not in self._server.hello.capabilities:
            problem = f"this worker does not answer requests of type {kind!r}"
            return [encode(Error(id=request.id, code="unsupported", message=problem))]
        try:
            match request:
                case SnapshotRequest(id=request_id):
                    return self._server.shared.message(request_id)
                case WatchRequest():
                    return self._start_watch(request)
                case CancelRequest(id=request_id):
                    return self._cancel(request_id)
                case BlocksRequest(id=request_id, since=since):
                    kept = self._server.source.blocks(0)
                    blocks = [block for block in kept if block.seq > since]
                    last_seq = kept[-1].seq if kept else 0
                    return [encode(Blocks(id=request_id, blocks=blocks, last_seq=last_seq))]
                case TasksRequest(id=request_id, session_id=session_id):
                    tasks = self._server.source.tasks(request)
                    return [encode(tasks if tasks is not None else _no_session(request_id, session_id))]
                case StacksRequest():
                    return [encode(self._server.source.stacks(request))]
                case ByeRequest(id=request_id):
                    return [encode(Done(id=request_id))]
        except Exception as error:
            return [_internal(request.id, error)]

    def _start_watch(self, request: WatchRequest) -> Message:
        if request.id in self._watches:
            problem = f"a watch has the id {request.id!r} already"
            return [encode(Error(id=request.id, code="bad-request", message=problem))]
        if len(self._watches) >= self._limits.watches:
            problem = f"this connection has {self._limits.watches} watches already: cancel one first"
            return [encode(Error(id=request.id, code="too-many-watches", message=problem))]
        self._watches[request.id] = cancelled = anyio.Event()
        self._group.start_soon(self._watch, request, cancelled)
        return []

    def _cancel(self, request_id: RequestId) -> Message:
        cancelled = self._watches.pop(request_id, None)
        if cancelled is None:
            problem = f"no watch has the id {request_id!r}"
            return [encode(Error(id=request_id, code="bad-request", message=problem))]
        cancelled.set()
        return [encode(Done(id=request_id))]

    async def _watch(self, request: WatchRequest, cancelled: anyio.Event) -> None:
        while not cancelled.is_set():
            due = self._server.clock() + request.interval_s
            async with self._writing:
                await self._until_all_is_read()
                if cancelled.is_set():
                    return
                try:
                    frame = await self._server.paced(lambda: self._server.shared.message(request.id))
                except Exception as error:
                    del self._watches[request.id]
                    await self._write([_internal(request.id, error)])
                    return
                await self._write(frame)
            with anyio.move_on_after(due - self._server.clock()):
                await cancelled.wait()


def _no_session(request_id: RequestId, session_id: str) -> Error:
    problem = f"no live session has the id {session_id!r:.{_LONGEST_PROBLEM}}"
    return Error(id=request_id, code="not-found", message=problem)


def _internal(request_id: RequestId, error: Exception) -> bytes:
    problem = f"{type(error).__name__}: {error}"[:_LONGEST_PROBLEM]
    return encode(Error(id=request_id, code="internal", message=problem))


def _hung_up(connection: socket.socket) -> bool:
    """Whether the peer has closed; on Linux False where it has only ended its own side."""
    poll = select.poll()
    poll.register(connection, 0)
    return bool(poll.poll(0))


def _shut_down(connection: socket.socket) -> None:
    # close() alone would leave it open where the host's process has forked meanwhile.
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
