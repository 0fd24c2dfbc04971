"""Clients: `connect` for async code; `read_snapshot`, `read_blocks` for scripts."""

from __future__ import annotations

import itertools
import math
import os
import socket
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .._base.errors import ArgumentError, ConnectionFailed, ProtocolError, RequestFailed
from ._endpoint import check_path, discover
from ._frame_reader import FrameReader, OutOfStep
from ._framing import LineBuffer, decode_hello, decode_server_message, encode
from ._messages import (
    MAX_MESSAGE_BYTES,
    Blocks,
    BlocksRequest,
    CancelRequest,
    Error,
    Frame,
    Hello,
    RequestId,
    Snapshot,
    SnapshotRequest,
    Stacks,
    StacksRequest,
    Tasks,
    TasksRequest,
    Waits,
    WaitsRequest,
    WatchRequest,
)
from ._peer import may_serve, peer_uid
from ._refusals import closed, failed, silent

if TYPE_CHECKING:
    from anyio.abc import ByteStream

CONNECT_TIMEOUT_S = 5.0
_READ_BYTES = 64 * 1024
"""The memory of a piece of this size is used again; that of a larger one comes from the system each time."""
_RETRY_S = 0.01
_Reply = TypeVar("_Reply", Snapshot, Frame, Blocks, Tasks, Stacks, Waits)
_Asked = SnapshotRequest | BlocksRequest | TasksRequest | StacksRequest | WaitsRequest


def read_snapshot(path: str | os.PathLike[str] | None = None, *, timeout_s: float = 5.0) -> Snapshot:
    """Return one snapshot of a worker; no event loop is needed.

    path: the worker's socket. None: this user's only worker.
    timeout_s: seconds, for all of it.

    Raises ConnectionFailed if nothing answers in time, ArgumentError if no path is given and there is
    not exactly one worker, ProtocolError, RequestFailed.
    """
    return _ask(path, SnapshotRequest(id=1), Snapshot, timeout_s)


def read_blocks(path: str | os.PathLike[str] | None = None, *, since: int = 0, timeout_s: float = 5.0) -> Blocks:
    """Return the blocks kept whose number is above `since`, oldest first.

    Connects and raises as `read_snapshot` does.
    """
    if since < 0:
        raise ArgumentError(f"since must be 0 or more, got {since!r}")
    return _ask(path, BlocksRequest(id=1, since=since), Blocks, timeout_s)


def _ask(path: str | os.PathLike[str] | None, request: _Asked, kind: type[_Reply], timeout_s: float) -> _Reply:
    if not (0.0 < timeout_s < math.inf):
        raise ArgumentError(f"timeout_s must be more than 0 seconds and finite, got {timeout_s!r}")
    target = _path(path)
    deadline = time.monotonic() + timeout_s
    buffer = LineBuffer(MAX_MESSAGE_BYTES)
    lines: list[bytes] = []

    def next_line(connection: socket.socket) -> bytes:
        while not lines:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            connection.settimeout(remaining)
            data = connection.recv(_READ_BYTES)
            if not data:
                raise ConnectionError("the worker closed the connection")
            lines.extend(buffer.feed(data))
        return lines.pop(0)

    try:
        while (reached := reach(target)) is None:
            if time.monotonic() >= deadline:
                raise TimeoutError
            time.sleep(_RETRY_S)
        with reached as connection:
            try:
                hello = next_line(connection)
            except ConnectionError as error:
                raise closed(target, connection, error) from None
            decode_hello(hello)
            connection.sendall(encode(request))
            reply = decode_server_message(next_line(connection))
    except TimeoutError:
        raise silent(target, timeout_s) from None
    except ConnectionFailed:
        raise
    except OSError as error:
        raise failed(target, error) from None
    if isinstance(reply, Error):
        raise RequestFailed(reply.code, reply.message)
    if not isinstance(reply, kind):
        wanted, got = kind.__name__.lower(), type(reply).__name__.lower()
        raise ProtocolError(f"the worker answered a {wanted} request with {got!r}")
    return reply


@asynccontextmanager
async def connect(path: str | os.PathLike[str] | None = None) -> AsyncIterator[Client]:
    """Connect to a worker while the block lasts.

    path: the worker's socket. None: this user's only worker.

    Raises ConnectionFailed, ProtocolError (another major version, or no worker's socket), RequestFailed
    (the worker has too many clients), and ArgumentError if no path is given and there is not exactly
    one worker.
    """
    target = _path(path)
    async with await dial(target) as stream:
        yield await greet(stream, target, timeout_s=CONNECT_TIMEOUT_S)


async def dial(path: Path) -> ByteStream:
    """Return a connection to the worker at `path`, on which nothing has been read.

    Raises ConnectionFailed.
    """
    import anyio
    from anyio.abc import UNIXSocketStream

    try:
        with anyio.fail_after(CONNECT_TIMEOUT_S):
            while (reached := reach(path)) is None:  # noqa: ASYNC110 - nothing reports when there is room
                await anyio.sleep(_RETRY_S)
        return await UNIXSocketStream.from_socket(reached)
    except TimeoutError:
        raise silent(path, CONNECT_TIMEOUT_S) from None
    except ConnectionFailed:
        raise
    except OSError as error:
        raise failed(path, error) from None


async def greet(stream: ByteStream, path: Path, *, timeout_s: float) -> Client:
    """Return the client on a stream to a worker, once the worker has said hello.

    stream: a stream that `connect` does not make; it stays the caller's to close.
    path: the name of the worker in errors.

    Raises ConnectionFailed if no hello comes within `timeout_s` seconds, ProtocolError, RequestFailed.
    """
    import anyio
    from anyio.abc import SocketAttribute

    client = Client(stream, path)
    try:
        with anyio.fail_after(timeout_s):
            client.hello = decode_hello(await client._next_line())
    except TimeoutError:
        raise silent(path, timeout_s) from None
    except ConnectionFailed as error:
        raw = stream.extra(SocketAttribute.raw_socket, None)  # a relay's channel has none
        raise (error if raw is None else closed(path, raw, error)) from None
    return client


class Client:
    """One connection to a worker, for one task at a time."""

    hello: Hello

    def __init__(self, stream: ByteStream, path: Path) -> None:
        self.path = path
        self._stream = stream
        self._buffer = LineBuffer(MAX_MESSAGE_BYTES)
        self._lines: deque[bytes] = deque()
        self._ids = itertools.count(1)
        self._watching: RequestId | None = None
        self._frames = FrameReader()

    @property
    def _deltas(self) -> bool:
        """Whether the worker sends what has changed, so that all is sent once only."""
        return "deltas" in self.hello.capabilities

    async def snapshot(self) -> Snapshot:
        """Return everything at one moment. Ends a watch that is under way.

        Of a worker that can, only what has changed since this connection's last snapshot is sent.
        """
        if not self._deltas:
            request = SnapshotRequest(id=next(self._ids))
            await self._request(request)
            return await self._reply(request.id, Snapshot)
        try:
            return await self._changes()
        except OutOfStep:
            self._frames = FrameReader()
        try:
            return await self._changes()
        except OutOfStep as error:
            raise ProtocolError(f"the worker was asked for everything: {error}") from None

    async def _changes(self) -> Snapshot:
        request = SnapshotRequest(id=next(self._ids), base=self._frames.seq)
        await self._request(request)
        return self._frames.read(await self._reply(request.id, Frame))

    async def blocks(self, since: int = 0) -> Blocks:
        """Return the blocks that are still kept and numbered above `since`, oldest first.

        Ends a watch that is under way.
        """
        if since < 0:
            raise ArgumentError(f"since must be 0 or more, got {since!r}")
        request = BlocksRequest(id=next(self._ids), since=since)
        await self._request(request)
        return await self._reply(request.id, Blocks)

    async def tasks(self, session_id: str) -> Tasks:
        """Return a live session's tasks: where each waits, and for which others.

        Ends a watch that is under way. Raises RequestFailed with the code "not-found" if no live session
        has that id, and with "unsupported" if the worker does not report tasks.
        """
        request = TasksRequest(id=next(self._ids), session_id=session_id)
        await self._request(request)
        return await self._reply(request.id, Tasks)

    async def stacks(self) -> Stacks:
        """Return where all threads are, those of event loops first.

        Ends a watch that is under way.
        """
        request = StacksRequest(id=next(self._ids))
        await self._request(request)
        return await self._reply(request.id, Stacks)

    async def waits(self) -> Waits:
        """Return what the tasks of all sessions wait for, grouped, and what holds it.

        Ends a watch that is under way.
        """
        request = WaitsRequest(id=next(self._ids))
        await self._request(request)
        return await self._reply(request.id, Waits)

    def watch(self, interval_s: float = 1.0) -> Watch:
        """Return an iterator over snapshots: one now, then one each `interval_s`.

        interval_s: 0.1–60 seconds.

        A reader that is slower gets fewer snapshots, never old ones. The watch ends with the next
        request on this connection, or with the connection.
        """
        limits = self.hello.limits
        if not limits.min_interval_s <= interval_s <= limits.max_interval_s:
            accepted = f"{limits.min_interval_s:g}–{limits.max_interval_s:g}"
            raise ArgumentError(f"interval_s must be within {accepted} seconds, got {interval_s!r}")
        return Watch(self, interval_s)

    def _watch_request(self, interval_s: float) -> WatchRequest:
        return WatchRequest(id=next(self._ids), interval_s=interval_s, deltas=self._deltas)

    async def _request(self, message: _Asked | WatchRequest) -> None:
        if self._watching is not None:
            await self._send(CancelRequest(id=self._watching))
            self._watching = None
        await self._send(message)
        if isinstance(message, WatchRequest):
            self._watching = message.id

    async def _send(self, message: Any) -> None:
        import anyio

        try:
            await self._stream.send(encode(message))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
            raise failed(self.path, error) from None

    async def _reply(self, request_id: RequestId, kind: type[_Reply]) -> _Reply:
        while True:
            message = decode_server_message(await self._next_line())
            if isinstance(message, Error) and message.id in (request_id, None):
                raise RequestFailed(message.code, message.message)
            if isinstance(message, Hello) or message.id != request_id:
                continue  # a message that was under way when an earlier request was given up
            if not isinstance(message, kind):
                found, expected = type(message).__name__.lower(), kind.__name__.lower()
                raise ProtocolError(f"the worker answered with {found!r} where {expected!r} was asked for")
            return message

    async def _next_line(self) -> bytes:
        import anyio

        while not self._lines:
            try:
                data = await self._stream.receive(_READ_BYTES)
            except anyio.EndOfStream:
                raise ConnectionFailed(f"worker at {str(self.path)!r} closed the connection") from None
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
                raise failed(self.path, error) from None
            self._lines.extend(self._buffer.feed(data))
        return self._lines.popleft()


class Watch:
    """The snapshots of one watch, as an async iterator."""

    def __init__(self, client: Client, interval_s: float) -> None:
        self._client = client
        self._interval_s = interval_s
        self._request: WatchRequest | None = None

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Snapshot:
        client = self._client
        if self._request is None:
            await self._begin()
        elif client._watching != self._request.id:
            raise StopAsyncIteration
        try:
            return await self._next()
        except OutOfStep:
            await self._begin()  # the first frame has everything
        except RequestFailed:  # this ends the watch
            client._watching = None
            raise
        try:
            return await self._next()
        except OutOfStep as error:
            raise ProtocolError(f"the worker was asked for everything: {error}") from None

    async def _begin(self) -> None:
        self._request = self._client._watch_request(self._interval_s)
        await self._client._request(self._request)

    async def _next(self) -> Snapshot:
        client, request = self._client, self._request
        assert request is not None
        if not request.deltas:
            return await client._reply(request.id, Snapshot)
        return client._frames.read(await client._reply(request.id, Frame))


def _path(path: str | os.PathLike[str] | None) -> Path:
    if path is not None:
        target = Path(path)
        check_path(target)
        return target
    workers = discover()
    if not workers:
        raise ConnectionFailed("no worker of this user is running: start one, or name its socket")
    if len(workers) > 1:
        names = ", ".join(f"{worker.name} ({worker.path})" for worker in workers)
        raise ArgumentError(f"{len(workers)} workers are running, name the socket of one: {names}")
    return workers[0].path


def reach(path: Path) -> socket.socket | None:
    """Return a connection to a server that may be believed.

    None: too many connections wait to be accepted.

    anyio's connect_unix does not do: on asyncio it spins until there is room, on Trio it goes on unconnected.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        try:
            connection.connect(os.fspath(path))
        except BlockingIOError:
            connection.close()
            return None
        uid = peer_uid(connection)
        if not may_serve(uid):
            raise ConnectionFailed(f"the server at {str(path)!r} runs as uid {uid}, which is not to be trusted")
    except BaseException:
        connection.close()
        raise
    return connection
