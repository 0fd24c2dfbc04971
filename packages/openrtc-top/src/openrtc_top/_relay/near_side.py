"""The near side of a relay: the command of `--via`, and its host's workers.

The command is a child process: started, read, started again when it ends, and ended with this one. The last line
of its stderr is why it failed. It has no terminal, so a command that would ask for a password fails instead of
asking in the middle of a screen.
"""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING, TypeVar

import anyio

from openrtc_introspect_core import ConnectionFailed, ProtocolError
from openrtc_introspect_core.wire import LineBuffer, greet
from openrtc_top._client.targets import RemoteWorker, choose
from openrtc_top._relay.channels import Link
from openrtc_top._relay.child import StderrTail, end_process, start_process, wait_for_end
from openrtc_top._relay.command import RELAY
from openrtc_top._relay.protocol import (
    MAX_DEAD,
    MAX_FROM_RELAY,
    MAX_UNSEEN,
    MAX_WORKERS,
    Box,
    Closed,
    FromWorker,
    RelayHello,
    Workers,
    decode_from_relay,
    decode_relay_hello,
    minor_of,
)

if TYPE_CHECKING:
    from anyio.abc import Process, TaskStatus
    from anyio.from_thread import BlockingPortal

    from openrtc_introspect_core.wire import Client
    from openrtc_top._model.box_reading import BoxReading, DeadWorker

BACKOFF_S = 1.0
MAX_BACKOFF_S = 10.0
HELLO_S = 30.0
"""A connection may have to be made first, through a proxy perhaps."""
SILENCE_S = 15.0
"""A relay that is silent for so long is out of reach: it gives a sign of life every two seconds."""
_DEADLINE_STEP_S = 0.5
"""The end of the patience is put off in steps of this length, not with each message."""
_READ_BYTES = 256 * 1024
_NOT_THERE = "openrtc-top must be installed there: "
"""Shells and engines of containers end with 126 or 127 if there is no such command."""
_INPUT_ENDED = "the relay's input ended: docker exec, podman exec and kubectl exec need -i"
"""A relay ends by itself, with exit code 0, only when its input does, and this side has not closed it."""
_T = TypeVar("_T")


class RelayClient:
    """The connection to one host, pod, or whatever else the command reaches.

    label: what the view calls it.
    words: the whole command, which runs a relay at the other end.
    wanted: names or process ids of the only workers to show; empty for all.
    """

    def __init__(self, label: str, words: Sequence[str], wanted: Sequence[str] = ()) -> None:
        self.label = label
        self.words = list(words)
        self.wanted = list(wanted)
        self.workers: list[RemoteWorker] = []
        """The workers that the relay offered last, also while it cannot be reached."""
        self.dead: list[DeadWorker] = []
        """The workers that died there, by the last offer; none of an older relay."""
        self.unseen: list[str] = []
        """If there is no worker: why some may not be seen there."""
        self.problem: str | None = "not connected yet"
        """The reason why the relay cannot be reached now. None: it can."""
        self._link: Link | None = None
        self._portal: BlockingPortal | None = None

    @property
    def via(self) -> str:
        """The value of `--via` that reaches the host."""
        return shlex.join(self.words[: -len(RELAY)] if tuple(self.words[-len(RELAY) :]) == RELAY else self.words)

    async def run(self, changed: Callable[[], None]) -> None:
        """Keep the command running until cancelled.

        Calls `changed` when `workers` or `problem` may have changed: first once the workers are known, or the first
        try has failed.
        """
        delay = BACKOFF_S
        try:
            while True:
                problem = await self._run_command(changed)
                if self._link is not None:
                    delay = BACKOFF_S
                    self._link.close(problem)
                    self._link = None
                self.problem = problem
                changed()
                await anyio.sleep(delay)
                delay = min(delay * 2, MAX_BACKOFF_S)
        finally:
            self.problem = "not connected any more"
            self._link = None

    @contextlib.asynccontextmanager
    async def open(self, worker: RemoteWorker) -> AsyncIterator[Client]:
        """Connect to a worker that was offered. Raises ConnectionFailed."""
        link = self._link
        if link is None:
            raise ConnectionFailed(f"no worker answers at {str(worker.path)!r}: {self.problem}")
        try:
            channel = await link.open(worker.socket)
        except anyio.BrokenResourceError as error:
            raise ConnectionFailed(f"no worker answers at {str(worker.path)!r}: {error.__cause__}") from None
        async with channel:
            yield await greet(channel, worker.path, timeout_s=SILENCE_S)

    async def box(self, path: str) -> BoxReading | str:
        """Return what a black box of that host says, or why there is nothing to be had of it."""
        return f"{self.label}: {self.problem}" if self._link is None else await self._link.read_box(path)

    def call(self, question: Callable[[], Awaitable[_T]]) -> _T:
        """Return the question's answer, asked in the thread in which this is `running`.

        Raises ConnectionFailed.
        """
        if self._portal is None:
            raise ConnectionFailed(f"{self.label} is not connected")
        return self._portal.call(question)

    async def _run_command(self, changed: Callable[[], None]) -> str:
        """Run the command once. Return why it ended."""
        try:
            process = await start_process(self.words, PIPE)
        except OSError as error:
            return f"{self.words[0]}: {error.strerror or error}"
        tail = StderrTail()
        problem: str | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(tail.listen, process)
                try:
                    await self._read(process, changed)
                except (ProtocolError, TimeoutError) as error:
                    problem = str(error)
                await wait_for_end(process, tail, patient=problem is None)
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await end_process(process)
        if problem is not None:
            return f"{problem}; it said: {tail.last}" if tail.last else problem
        code = process.returncode or 0
        if tail.last:
            return f"{_NOT_THERE if code in (126, 127) else ''}{tail.last}"
        if code < 0:
            return f"{self.words[0]} was ended by signal {-code}"
        if code:
            return f"{self.words[0]} ended with exit code {code}"
        return "the connection ended" if self._link is None else _INPUT_ENDED

    async def _read(self, process: Process, changed: Callable[[], None]) -> None:
        """Take in all that the relay sends, until it ends.

        Raises ProtocolError, TimeoutError.
        """
        assert process.stdout is not None
        buffer = LineBuffer(MAX_FROM_RELAY)
        patience_s = HELLO_S
        with anyio.CancelScope(deadline=anyio.current_time() + patience_s) as heard:
            while True:
                try:
                    data = await process.stdout.receive(_READ_BYTES)
                except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    return
                for line in buffer.feed(data):
                    if self._link is None:
                        hello = decode_relay_hello(line)
                        self._link = Link(process, minor_of(hello))
                        self.problem = None
                        patience_s = SILENCE_S
                    else:
                        self._handle(self._link, line, changed)
                deadline = anyio.current_time() + patience_s
                if heard.deadline + _DEADLINE_STEP_S < deadline:
                    heard.deadline = deadline
        raise TimeoutError(f"nothing heard for {patience_s:g} s")

    def _handle(self, link: Link, line: bytes, changed: Callable[[], None]) -> None:
        match decode_from_relay(line):
            case Workers(workers=offers, dead=dead, unseen=unseen):
                offered = [
                    RemoteWorker(
                        path=Path(f"{self.label}:{offer.socket}"),
                        name=offer.name,
                        pid=offer.pid,
                        user=offer.user,
                        socket=offer.socket,
                        relay=self,
                    )
                    for offer in offers[:MAX_WORKERS]
                ]
                self.workers = choose(offered, self.wanted)
                self.dead = choose(dead[:MAX_DEAD], self.wanted, self.label)
                self.unseen = unseen[:MAX_UNSEEN]
                changed()
            case FromWorker(channel=number, message=message):
                link.deliver(number, bytes(message) + b"\n")
            case Box() as box:
                link.answer(box)
            case Closed(channel=number, reason=reason):
                link.end(number, reason)
            case RelayHello():
                raise ProtocolError("the relay said hello twice")


@contextlib.contextmanager
def running(relays: Sequence[RelayClient], patience_s: float = math.inf) -> Iterator[None]:
    """Keep the commands running in a thread, while the `with` block lasts.

    The block begins once each relay has offered its workers or failed, or after so many seconds;
    `RelayClient.problem` says why.
    """
    if not relays:
        yield
        return
    from anyio.from_thread import start_blocking_portal

    with start_blocking_portal() as portal:
        running, _ = portal.start_task(_run_all, relays, patience_s)
        for relay in relays:
            relay._portal = portal
        try:
            yield
        finally:
            for relay in relays:
                relay._portal = None
            running.cancel()
            with contextlib.suppress(CancelledError):
                running.result()


async def _run_all(relays: Sequence[RelayClient], patience_s: float, *, task_status: TaskStatus[None]) -> None:
    awaited = set(relays)
    none_left = anyio.Event()

    def heard(relay: RelayClient) -> None:
        awaited.discard(relay)
        if not awaited:
            none_left.set()

    async with anyio.create_task_group() as tasks:
        for relay in relays:
            tasks.start_soon(relay.run, partial(heard, relay))
        with anyio.move_on_after(patience_s):
            await none_left.wait()
        for relay in awaited:
            relay.problem = f"nothing heard for {patience_s:g} s"
        task_status.started()
