"""The far side of a relay: this machine's workers over one pair of streams.

Each worker is connected to when a client asks for it, so an unused relay costs the workers nothing.
A message is read from a worker only once the reader of the relay has taken the one before it, so a slow link makes
frames fewer and never makes a queue. The relay ends when its standard input does.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from openrtc_introspect_core import BoxError, IntrospectError, ProtocolError, __version__
from openrtc_introspect_core.black_box import box_path
from openrtc_introspect_core.wire import MAX_MESSAGE_BYTES, LineBuffer, WorkerSocket, dial, encode
from openrtc_top._client.black_boxes import read_box
from openrtc_top._client.query import short_reason
from openrtc_top._client.targets import owner_name
from openrtc_top._relay.protocol import (
    MAX_BOXES,
    MAX_CHANNELS,
    MAX_DEAD,
    MAX_FROM_CLIENT,
    MAX_WORKERS,
    RELAY_MAJOR,
    RELAY_MINOR,
    Box,
    Close,
    Closed,
    Offered,
    Open,
    ReadBox,
    RelayHello,
    ToWorker,
    Workers,
    decode_from_client,
    from_worker,
)

if TYPE_CHECKING:
    from anyio.abc import ByteStream

    from openrtc_top._client.black_boxes import FindDead
    from openrtc_top._client.targets import Find

RESCAN_S = 2.0
_READ_BYTES = 256 * 1024
_PIPE_BYTES = 4096
"""As much as a pipe takes without waiting, once it can be written to."""


async def relay(
    find: Find,
    stdin: int,
    stdout: int,
    report: Callable[[str], None],
    find_dead: FindDead = lambda live: (),
    unseen: Callable[[], Sequence[str]] = list,
) -> None:
    """Relay to the workers that `find` returns, and tell about those of `find_dead`; if there is none, why: `unseen`.

    It ends when `stdin` does, or when nobody reads `stdout` any more. `report` is called with one line for each
    thing that goes wrong. Raises ProtocolError if the client sends what is no message to a relay.
    """
    problem: ProtocolError | None = None
    try:
        async with anyio.create_task_group() as tasks:
            session = _Session(find, find_dead, unseen, _Writer(stdout), tasks.start_soon, report)
            try:
                await session.begin()
                async for line in _lines(stdin):
                    await session.handle(line)
            except ProtocolError as error:
                problem = error
            tasks.cancel_scope.cancel()
    except* BrokenPipeError:
        pass
    if problem is not None:
        raise problem


class _Session:
    """One client, and the channels that it has opened."""

    def __init__(
        self,
        find: Find,
        find_dead: FindDead,
        unseen: Callable[[], Sequence[str]],
        writer: _Writer,
        start_soon: Callable[..., object],
        report: Callable[[str], None],
    ) -> None:
        self._find = find
        self._find_dead = find_dead
        self._unseen = unseen
        self._writer = writer
        self._start_soon = start_soon
        self._report = report
        self._offered: dict[str, WorkerSocket] = {}
        self._boxes: dict[str, int | None] = {}
        """The boxes that may be read, and who owns them."""
        self._reading = 0
        self._scopes: dict[int, anyio.CancelScope] = {}
        self._streams: dict[int, ByteStream] = {}

    async def begin(self) -> None:
        """Send hello and the workers there are, and start to scan for others."""
        await self._writer.write(encode(RelayHello(relay=f"{RELAY_MAJOR}.{RELAY_MINOR}", version=__version__)))
        await self._offer()
        self._start_soon(self._rescan)

    async def handle(self, line: bytes) -> None:
        """Do what the client's line asks for. Raises ProtocolError."""
        match decode_from_client(line):
            case Open(channel=channel, socket=socket):
                await self._open(channel, socket)
            case ToWorker(channel=channel, message=message):
                if stream := self._streams.get(channel):  # else it is over, and the client knows
                    await _send(stream, bytes(message) + b"\n")
            case Close(channel=channel):
                await self._close(channel)
            case ReadBox(request=request, box=box):
                await self._start_reading(request, box)

    async def _rescan(self) -> None:
        while True:
            await anyio.sleep(RESCAN_S)
            await self._offer()

    async def _offer(self) -> None:
        """Send the workers there are, also if nothing has changed, as a sign of life."""
        found = await anyio.to_thread.run_sync(self._find, abandon_on_cancel=True)
        if len(found) > MAX_WORKERS and len(self._offered) < MAX_WORKERS:
            self._report(f"{len(found)} workers run here; only the first {MAX_WORKERS} are relayed")
        self._offered = {str(worker.path): worker for worker in found[:MAX_WORKERS]}
        offers = [
            Offered(socket=socket, name=worker.name, pid=worker.pid, user=owner_name(worker))
            for socket, worker in self._offered.items()
        ]
        dead = (await anyio.to_thread.run_sync(self._find_dead, found, abandon_on_cancel=True))[:MAX_DEAD]
        self._boxes = {each.box: None for each in dead}
        self._boxes |= {str(box_path(worker.path)): worker.owner for worker in self._offered.values()}
        unseen = [] if found else await anyio.to_thread.run_sync(self._unseen, abandon_on_cancel=True)
        await self._writer.write(encode(Workers(workers=offers, dead=list(dead), unseen=list(unseen))))

    async def _start_reading(self, request: int, path: str) -> None:
        problem = None
        if self._reading >= MAX_BOXES:
            problem = f"{MAX_BOXES} black boxes are being read already"
        elif path not in self._boxes:
            problem = "no such worker runs or died there"
        if problem is not None:
            await self._writer.write(encode(Box(request=request, reason=problem)))
            return
        self._reading += 1
        self._start_soon(self._read_box, request, path, self._boxes[path])

    async def _read_box(self, request: int, path: str, owner: int | None) -> None:
        try:
            reading = await anyio.to_thread.run_sync(read_box, Path(path), owner, abandon_on_cancel=True)
            answer = Box(request=request, reading=reading)
        except BoxError as error:
            answer = Box(request=request, reason=str(error))
        finally:
            self._reading -= 1
        await self._writer.write(encode(answer))

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
        """Pass on all that a worker sends on one connection."""
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
            pass  # the client asked for it
        except anyio.BrokenResourceError:
            why = "its connection broke"
        except IntrospectError as error:
            why = short_reason(error)
        finally:
            self._streams.pop(channel, None)
            self._scopes.pop(channel, None)
        await self._writer.write(encode(Closed(channel=channel, reason=why)))


async def _send(stream: ByteStream, data: bytes) -> None:
    try:
        await stream.send(data)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        return  # the reader of the stream notices too


class _Writer:
    """Writes whole messages to a descriptor, one after the other."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._turn = anyio.Lock()

    async def write(self, message: bytes) -> None:
        """Write a message. Raises BrokenPipeError if nobody reads any more."""
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
    """Wait for a descriptor. A file is always ready, and cannot be waited for."""
    try:
        await wait(descriptor)
    except PermissionError:
        await anyio.lowlevel.checkpoint()
