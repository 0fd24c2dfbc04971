"""A command that leads to a relay, and the workers on the other side of it.

The command is a process of ours: started, read, started again when it ends, and ended with us. What its
stderr said last is why it failed. It has no terminal, so a command that would ask for a password fails
instead of asking in the middle of a screen.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio.abc import ByteStream

from openrtc_introspect_core import ConnectionFailed, ProtocolError
from openrtc_introspect_core.wire import LineBuffer, encode, greet
from openrtc_top._relay_protocol import (
    MAX_FROM_RELAY,
    MAX_WORKERS,
    Close,
    Closed,
    FromWorker,
    Open,
    RelayHello,
    Workers,
    decode_from_relay,
    decode_relay_hello,
    to_worker,
)
from openrtc_top._sockets import RemoteWorker, choose

if TYPE_CHECKING:
    from anyio.abc import Process, TaskStatus
    from anyio.from_thread import BlockingPortal

    from openrtc_introspect_core.wire import Client

BACKOFF_S = 1.0
BACKOFF_MOST_S = 10.0
HELLO_S = 30.0
"""A connection may have to be made first, through a proxy perhaps."""
SILENCE_S = 15.0
"""A relay that says nothing for so long is out of reach: it gives a sign of life every two seconds."""
END_S = 1.0
_END_TOLD_S = 10.0
_READ_BYTES = 256 * 1024
_STDERR_BYTES = 4096
_LONGEST_PROBLEM = 200
_MESSAGES_WAITING = 16
_T = TypeVar("_T")


class Via:
    """One host, or pod, or whatever the command reaches.

    label: what the view calls it.
    words: the whole command, which runs a relay at the other end.
    wanted: names or process ids of the only workers to show; empty for all.
    """

    def __init__(self, label: str, words: Sequence[str], wanted: Sequence[str] = ()) -> None:
        self.label = label
        self.words = list(words)
        self.wanted = list(wanted)
        self.workers: list[RemoteWorker] = []
        """Those that the relay offered last, also while it cannot be reached."""
        self.problem: str | None = "not connected yet"
        """Why it cannot be reached now. None: it can."""
        self._link: _Link | None = None
        self._portal: BlockingPortal | None = None

    async def run(
        self, changed: Callable[[], None], *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Keep the command running until cancelled; `changed` is called when `workers` or `problem` may have.

        Has started once the workers are known, or the first try has failed.
        """
        first = True

        def news() -> None:
            nonlocal first
            if first:
                first = False
                task_status.started()
            changed()

        delay = BACKOFF_S
        try:
            while True:
                problem = await self._serve(news)
                if self._link is not None:
                    delay = BACKOFF_S
                    self._link.close(problem)
                    self._link = None
                self.problem = problem
                news()
                await anyio.sleep(delay)
                delay = min(delay * 2, BACKOFF_MOST_S)
        finally:
            self.problem = "not connected any more"
            self._link = None

    @contextlib.asynccontextmanager
    async def open(self, worker: RemoteWorker) -> AsyncIterator[Client]:
        """A connection to a worker that was offered."""
        link = self._link
        if link is None:
            raise ConnectionFailed(f"no worker answers at {str(worker.path)!r}: {self.problem}")
        try:
            channel = await link.open(worker.socket)
        except anyio.BrokenResourceError as error:
            raise ConnectionFailed(f"no worker answers at {str(worker.path)!r}: {error.__cause__}") from None
        async with channel:
            yield await greet(channel, worker.path, timeout_s=SILENCE_S)

    def call(self, question: Callable[[], Awaitable[_T]]) -> _T:
        """What the question answers, asked where this is `running`."""
        if self._portal is None:
            raise ConnectionFailed(f"{self.label} is not connected")
        return self._portal.call(question)

    async def _serve(self, changed: Callable[[], None]) -> str:
        """Run the command once. Returns why it ended."""
        try:
            process = await anyio.open_process(self.words, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True)
        except OSError as error:
            return f"{self.words[0]}: {error.strerror or error}"
        said = _Said()
        problem: str | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(said.listen, process)
                try:
                    await self._read(process, changed)
                except (ProtocolError, TimeoutError) as error:
                    problem = str(error)
                with anyio.move_on_after(END_S if problem is None else 0):
                    await process.wait()
                    await said.all.wait()
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)
        if problem is not None:
            return f"{problem}; it said: {said.last}" if said.last else problem
        if said.last:
            return said.last
        code = process.returncode or 0
        if code < 0:
            return f"{self.words[0]} was ended by signal {-code}"
        return f"{self.words[0]} ended with exit code {code}" if code else "the connection ended"

    async def _read(self, process: Process, changed: Callable[[], None]) -> None:
        """Everything that the relay says, until it ends. Raises ProtocolError, TimeoutError."""
        assert process.stdout is not None
        buffer = LineBuffer(MAX_FROM_RELAY)
        patience_s = HELLO_S
        while True:
            with anyio.move_on_after(patience_s) as waited:
                try:
                    data = await process.stdout.receive(_READ_BYTES)
                except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    return
            if waited.cancelled_caught:
                raise TimeoutError(f"nothing heard for {patience_s:g} s")
            for line in buffer.feed(data):
                if self._link is None:
                    decode_relay_hello(line)
                    self._link = _Link(process)
                    self.problem = None
                    patience_s = SILENCE_S
                else:
                    self._hear(self._link, line, changed)

    def _hear(self, link: _Link, line: bytes, changed: Callable[[], None]) -> None:
        match decode_from_relay(line):
            case Workers(workers=offers):
                offered = [
                    RemoteWorker(
                        path=Path(f"{self.label}:{offer.socket}"),
                        name=offer.name,
                        pid=offer.pid,
                        user=offer.user,
                        socket=offer.socket,
                        via=self,
                    )
                    for offer in offers[:MAX_WORKERS]
                ]
                self.workers = choose(offered, self.wanted)
                changed()
            case FromWorker(channel=number, message=message):
                link.deliver(number, bytes(message) + b"\n")
            case Closed(channel=number, reason=reason):
                link.end(number, reason)
            case RelayHello():
                raise ProtocolError("the relay said hello twice")


class _Link:
    """A relay that is running, and the channels through it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self._channels: dict[int, _Channel] = {}
        self._turn = anyio.Lock()

    async def open(self, socket: str) -> _Channel:
        number = next(self._numbers)
        channel = self._channels[number] = _Channel(self, number)
        await channel.write(encode(Open(channel=number, socket=socket)))
        return channel

    def deliver(self, number: int, line: bytes) -> None:
        if channel := self._channels.get(number):  # else it was closed here
            channel.deliver(line)

    def end(self, number: int, why: str) -> None:
        if channel := self._channels.pop(number, None):
            channel.end(why)

    def close(self, why: str) -> None:
        """No channel leads anywhere any more."""
        for number in list(self._channels):
            self.end(number, why)

    async def leave(self, number: int) -> None:
        if self._channels.pop(number, None):
            with anyio.move_on_after(END_S, shield=True), contextlib.suppress(OSError):
                await self.send(encode(Close(channel=number)))

    async def send(self, message: bytes) -> None:
        """Raises OSError where the command does not read any more."""
        assert self._process.stdin is not None
        try:
            async with self._turn:
                await self._process.stdin.send(message)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise BrokenPipeError("the connection ended") from None


class _Channel(ByteStream):
    """A stream to one worker."""

    def __init__(self, link: _Link, number: int) -> None:
        self._link = link
        self._number = number
        self._lines: deque[bytes] = deque()
        self._news = anyio.Event()
        self._ended = anyio.Event()
        self._why = "the connection ended"

    def deliver(self, line: bytes) -> None:
        if len(self._lines) >= _MESSAGES_WAITING:
            self._link.end(self._number, "it sends more than it was asked for")
            return
        self._lines.append(line)
        self._news.set()

    def end(self, why: str) -> None:
        self._why = why
        self._ended.set()
        self._news.set()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """One message, whatever its size."""
        while not self._lines:
            if self._ended.is_set():
                raise anyio.BrokenResourceError from ConnectionError(self._why)
            self._news = anyio.Event()
            await self._news.wait()
        return self._lines.popleft()

    async def send(self, item: bytes) -> None:
        await self.write(to_worker(self._number, item))

    async def write(self, message: bytes) -> None:
        try:
            await self._link.send(message)
        except OSError:
            with anyio.move_on_after(_END_TOLD_S):  # the command ends; why, is known when it has
                await self._ended.wait()
            raise anyio.BrokenResourceError from ConnectionError(self._why)

    async def send_eof(self) -> None:
        """A relay's channel has no half-close."""
        raise NotImplementedError

    async def aclose(self) -> None:
        self.end("closed")
        await self._link.leave(self._number)


class _Said:
    """What a process writes to stderr: only its last line counts."""

    def __init__(self) -> None:
        self.last = ""
        self.all = anyio.Event()
        """It will say no more."""

    async def listen(self, process: Process) -> None:
        assert process.stderr is not None
        rest = b""
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                rest = (rest + await process.stderr.receive(_STDERR_BYTES))[-_STDERR_BYTES:]
                lines = [line.strip() for line in rest.decode(errors="replace").splitlines() if line.strip()]
                if lines:
                    self.last = lines[-1][:_LONGEST_PROBLEM]
        self.all.set()


async def _end(process: Process) -> None:
    """End the command and what it started: politely, by the end of its input, then by force."""
    assert process.stdin is not None
    with contextlib.suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        await process.stdin.aclose()
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
        with anyio.move_on_after(END_S):
            await process.wait()
            break
    with contextlib.suppress(OSError, anyio.BrokenResourceError):
        await process.aclose()


@contextlib.contextmanager
def running(vias: Sequence[Via]) -> Iterator[None]:
    """Keep the commands running in a thread, for code without an event loop, while the block lasts.

    Begins once each has offered its workers or failed; `Via.problem` tells which.
    """
    if not vias:
        yield
        return
    from anyio.from_thread import start_blocking_portal

    with start_blocking_portal() as portal:
        running, _ = portal.start_task(_run_all, vias)
        for via in vias:
            via._portal = portal
        try:
            yield
        finally:
            for via in vias:
                via._portal = None
            running.cancel()
            with contextlib.suppress(CancelledError):
                running.result()


async def _run_all(vias: Sequence[Via], *, task_status: TaskStatus[None]) -> None:
    async with anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as starting:
            for via in vias:
                starting.start_soon(tasks.start, via.run, lambda: None)
        task_status.started()
