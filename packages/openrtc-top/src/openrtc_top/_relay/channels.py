"""The channels through a running relay: each is a byte stream to one worker."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from typing import TYPE_CHECKING

import anyio
from anyio.abc import ByteStream

from openrtc_introspect_core.wire import encode
from openrtc_top._relay.protocol import BOX_MINOR, Box, Close, Open, ReadBox, to_worker

if TYPE_CHECKING:
    from anyio.abc import Process

    from openrtc_top._model.box_reading import BoxReading

_CLOSE_S = 1.0
_REASON_S = 10.0
"""A channel that breaks waits so long for the reason, which is known once the command has ended."""
_BOX_S = 15.0
_MAX_WAITING_MESSAGES = 16


class Link:
    """A relay that is running, and the channels through it."""

    def __init__(self, process: Process, minor: int = 0) -> None:
        self._process = process
        self._minor = minor
        self._boxes: dict[int, BoxRequest] = {}
        self._numbers = itertools.count(1)
        self._channels: dict[int, Channel] = {}
        self._turn = anyio.Lock(fast_acquire=True)

    async def open(self, socket: str) -> Channel:
        """Open a channel to the worker of this socket."""
        number = next(self._numbers)
        channel = self._channels[number] = Channel(self, number)
        await channel.write(encode(Open(channel=number, socket=socket)))
        return channel

    def deliver(self, number: int, line: bytes) -> None:
        """Hand a worker's message to its channel."""
        if channel := self._channels.get(number):  # else it was closed here
            channel.deliver(line)

    def end(self, number: int, why: str) -> None:
        """End one channel."""
        if channel := self._channels.pop(number, None):
            channel.end(why)

    def close(self, why: str) -> None:
        """End all channels and requests."""
        for number in list(self._channels):
            self.end(number, why)
        for number in list(self._boxes):
            self.answer(Box(request=number, reason=why))

    async def read_box(self, path: str) -> BoxReading | str:
        """Return what a black box of that host says, or why there is nothing to be had of it."""
        if self._minor < BOX_MINOR:
            return "the openrtc-top there is too old to read black boxes"
        number = next(self._numbers)
        request = self._boxes[number] = BoxRequest()
        try:
            await self.send(encode(ReadBox(request=number, box=path)))
            with anyio.fail_after(_BOX_S):
                await request.answered.wait()
        except (OSError, TimeoutError):
            return "its black box cannot be asked for: the connection does not answer"
        finally:
            self._boxes.pop(number, None)
        answer = request.answer
        return answer.reading if answer.reading is not None else answer.reason

    def answer(self, box: Box) -> None:
        """Hand an answer to whoever waits for it."""
        if request := self._boxes.get(box.request):  # else it was given up
            request.answer = box
            request.answered.set()

    async def leave(self, number: int) -> None:
        """Ask the relay to close a channel, if it is still open."""
        if self._channels.pop(number, None):
            with anyio.move_on_after(_CLOSE_S, shield=True), contextlib.suppress(OSError):
                await self.send(encode(Close(channel=number)))

    async def send(self, message: bytes) -> None:
        """Send a message to the relay. Raises OSError if the command no longer reads."""
        assert self._process.stdin is not None
        try:
            async with self._turn:
                await self._process.stdin.send(message)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise BrokenPipeError("the connection ended") from None


class BoxRequest:
    """A request for a black box, which waits for its answer."""

    def __init__(self) -> None:
        self.answered = anyio.Event()
        self.answer = Box(request=0)


class Channel(ByteStream):
    """A stream to one worker."""

    def __init__(self, link: Link, number: int) -> None:
        self._link = link
        self._number = number
        self._lines: deque[bytes] = deque()
        self._news = anyio.Event()
        self._ended = anyio.Event()
        self._why = "the connection ended"

    def deliver(self, line: bytes) -> None:
        """Queue a message of the worker; end the channel if too many wait."""
        if len(self._lines) >= _MAX_WAITING_MESSAGES:
            self._link.end(self._number, "it sends more than it was asked for")
            return
        self._lines.append(line)
        self._news.set()

    def end(self, why: str) -> None:
        """Let readers and writers fail for this reason."""
        self._why = why
        self._ended.set()
        self._news.set()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return one message, whatever its size."""
        while not self._lines:
            if self._ended.is_set():
                raise anyio.BrokenResourceError from ConnectionError(self._why)
            self._news = anyio.Event()
            await self._news.wait()
        return self._lines.popleft()

    async def send(self, item: bytes) -> None:
        await self.write(to_worker(self._number, item))

    async def write(self, message: bytes) -> None:
        """Send a message to the relay itself.

        Raises BrokenResourceError, caused by why the channel ended.
        """
        try:
            await self._link.send(message)
        except OSError:
            with anyio.move_on_after(_REASON_S):
                await self._ended.wait()
            raise anyio.BrokenResourceError from ConnectionError(self._why)

    async def send_eof(self) -> None:
        """Raise NotImplementedError: a relay's channel has no half-close."""
        raise NotImplementedError

    async def aclose(self) -> None:
        self.end("closed")
        await self._link.leave(self._number)
