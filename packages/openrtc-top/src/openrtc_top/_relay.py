"""The other side of `--via`: this user's workers on this machine, over one pair of byte streams.

Each worker is connected to when a client asks for it, so an unused relay costs the workers nothing.
A message is read from a worker only once the one before it was taken by whoever reads the relay: so a
slow link makes frames fewer and never makes a queue. Standard input's end is the end of it all.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from openrtc_introspect_core import IntrospectError, ProtocolError, __version__
from openrtc_introspect_core.wire import MAX_MESSAGE_BYTES, LineBuffer, WorkerSocket, dial, encode
from openrtc_top._connection import reason
from openrtc_top._relay_protocol import (
    MAX_CHANNELS,
    MAX_FROM_CLIENT,
    MAX_WORKERS,
    RELAY_MAJOR,
    RELAY_MINOR,
    Close,
    Closed,
    Offered,
    Open,
    RelayHello,
    ToWorker,
    Workers,
    decode_from_client,
    from_worker,
)
from openrtc_top._sockets import owner_name

if TYPE_CHECKING:
    from anyio.abc import ByteStream

    from openrtc_top._sockets import Find

RESCAN_S = 2.0
_READ_BYTES = 256 * 1024
_PIPE_BYTES = 4096
"""As much as a pipe that can be written to takes without waiting."""


async def relay(find: Find, stdin: int, stdout: int, tell: Callable[[str], None]) -> None:
    """Relay to the workers that `find` returns, until `stdin` ends or nobody reads `stdout` any more.

    `tell` is told in one line each what went wrong. Raises ProtocolError for a client that speaks
    another language.
    """
    problem: ProtocolError | None = None
    try:
        async with anyio.create_task_group() as tasks:
            session = _Session(find, _Writer(stdout), tasks.start_soon, tell)
            try:
                await session.begin()
                async for line in _lines(stdin):
                    await session.hear(line)
            except ProtocolError as error:
                problem = error
            tasks.cancel_scope.cancel()
    except* BrokenPipeError:
        pass
    if problem is not None:
        raise problem


class _Session:
    """What one client has opened."""

    def __init__(
        self,
        find: Find,
        writer: _Writer,
        start_soon: Callable[..., object],
        tell: Callable[[str], None],
    ) -> None:
        self._find = find
        self._writer = writer
        self._start_soon = start_soon
        self._tell = tell
        self._offered: dict[str, WorkerSocket] = {}
        self._scopes: dict[int, anyio.CancelScope] = {}
        self._streams: dict[int, ByteStream] = {}

    async def begin(self) -> None:
        """Say hello and which workers there are, and go on looking for others."""
        await self._writer.write(encode(RelayHello(relay=f"{RELAY_MAJOR}.{RELAY_MINOR}", version=__version__)))
        await self._offer()
        self._start_soon(self._rescan)

    async def hear(self, line: bytes) -> None:
        """Do what the client's line asks for."""
        match decode_from_client(line):
            case Open(channel=channel, socket=socket):
                await self._open(channel, socket)
            case ToWorker(channel=channel, message=message):
                if stream := self._streams.get(channel):  # else it is over, which the client is told already
                    await _send(stream, bytes(message) + b"\n")
            case Close(channel=channel):
                await self._close(channel)

    async def _rescan(self) -> None:
        while True:
            await anyio.sleep(RESCAN_S)
            await self._offer()

    async def _offer(self) -> None:
        """Tell which workers there are. It is told when nothing has changed too, as a sign of life."""
        found = await anyio.to_thread.run_sync(self._find, abandon_on_cancel=True)
        if len(found) > MAX_WORKERS and len(self._offered) < MAX_WORKERS:
            self._tell(f"{len(found)} workers run here; only the first {MAX_WORKERS} are relayed")
        self._offered = {str(worker.path): worker for worker in found[:MAX_WORKERS]}
        offers = [
            Offered(socket=socket, name=worker.name, pid=worker.pid, user=owner_name(worker))
            for socket, worker in self._offered.items()
        ]
        await self._writer.write(encode(Workers(workers=offers)))

    async def _open(self, channel: int, socket: str) -> None:
        problem = None
        if channel in self._scopes:
            raise ProtocolError(f"channel {channel} is open already")
        if len(self._scopes) >= MAX_CHANNELS:
            problem = f"{MAX_CHANNELS} channels are open already"
        elif socket not in self._offered:
            problem = "no such worker runs there"
        if problem is not None:
            await self._writer.write(encode(Closed(channel=channel, reason=problem)))
            return
        self._scopes[channel] = anyio.CancelScope()
        self._start_soon(self._carry, channel, Path(socket))

    async def _close(self, channel: int) -> None:
        if stream := self._streams.get(channel):
            await stream.aclose()  # its reader ends by that, and not in the middle of a line it writes
        elif scope := self._scopes.get(channel):
            scope.cancel()

    async def _carry(self, channel: int, path: Path) -> None:
        """Everything that a worker says on one connection, to the client."""
        why = "closed"
        try:
            with self._scopes[channel]:
                stream = await dial(path)
            if not self._scopes[channel].cancelled_caught:
                async with stream:
                    self._streams[channel] = stream
                    buffer = LineBuffer(MAX_MESSAGE_BYTES)
                    while True:
                        for line in buffer.feed(await stream.receive(_READ_BYTES)):
                            await self._writer.write(from_worker(channel, line))
        except anyio.EndOfStream:
            why = "it closed the connection"
        except anyio.ClosedResourceError:
            pass  # on demand
        except anyio.BrokenResourceError:
            why = "its connection broke"
        except IntrospectError as error:
            why = reason(error)
        finally:
            self._streams.pop(channel, None)
            self._scopes.pop(channel, None)
        await self._writer.write(encode(Closed(channel=channel, reason=why)))


async def _send(stream: ByteStream, data: bytes) -> None:
    try:
        await stream.send(data)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        return  # whoever reads from it notices too


class _Writer:
    """Whole messages to a descriptor, one after the other."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._turn = anyio.Lock()

    async def write(self, message: bytes) -> None:
        """Raises BrokenPipeError where nobody reads any more."""
        async with self._turn:
            rest = memoryview(message)
            while rest:
                await _ready(anyio.wait_writable, self._descriptor)
                rest = rest[os.write(self._descriptor, rest[:_PIPE_BYTES]) :]


async def _lines(descriptor: int) -> AsyncIterator[bytes]:
    buffer = LineBuffer(MAX_FROM_CLIENT)
    while True:
        await _ready(anyio.wait_readable, descriptor)
        data = os.read(descriptor, _READ_BYTES)
        if not data:
            return
        for line in buffer.feed(data):
            yield line


async def _ready(wait: Callable[[int], Awaitable[None]], descriptor: int) -> None:
    """A file is always ready, and cannot be waited for."""
    try:
        await wait(descriptor)
    except PermissionError:
        await anyio.lowlevel.checkpoint()
