"""A server of the wire protocol that is easy to get wrong on purpose.

It keeps to docs/wire-protocol.md in the plainest way, a thread for each connection and no pacing.
A subclass of `Conversation` does one thing otherwise; so clients meet misbehaving workers, and the
conformance checker is shown servers that break one rule each.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from openrtc_introspect_core.wire import (
    Block,
    Blocks,
    BlocksRequest,
    ByeRequest,
    CancelRequest,
    Done,
    Error,
    Hello,
    LineBuffer,
    Request,
    ServerMessage,
    Snapshot,
    SnapshotRequest,
    Stacks,
    StacksRequest,
    TaskInfo,
    Tasks,
    TasksRequest,
    ThreadStack,
    WatchRequest,
    decode_request,
    encode,
)
from openrtc_introspect_core.wire._framing import LineTooLong, RequestError

_POLL_S = 0.02
_SEND_WITHIN_S = 5.0
Id = int | str
ANSWERED = ("snapshot", "watch", "cancel", "blocks", "tasks", "stacks", "bye")
"""The capabilities to put into its hello, or some of them: a request that it does not list is unsupported."""


class RawServer:
    """Serves on a listening socket while the `with` block lasts; the listener stays the caller's to close."""

    def __init__(
        self,
        listener: socket.socket,
        hello: Hello,
        snapshot: Callable[[], Snapshot],
        blocks: Sequence[Block] = (),
        conversation: type[Conversation] | None = None,
        *,
        tasks: Mapping[str, Sequence[TaskInfo]] | None = None,
        stacks: Sequence[ThreadStack] = (),
    ) -> None:
        self.hello = hello
        self.snapshot = snapshot
        self.blocks = list(blocks)
        self.tasks = {session_id: list(infos) for session_id, infos in (tasks or {}).items()}
        """By session; one that is not here is not found."""
        self.stacks = list(stacks)
        self.over = threading.Event()
        self.heard: list[list[bytes]] = []
        """The lines that each connection sent, in the order in which they connected."""
        self.clients = 0
        self._conversation = conversation or Conversation
        self._listener = listener
        self._threads = [threading.Thread(target=self._accept, name="openrtc-raw-server", daemon=True)]

    def __enter__(self) -> RawServer:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in list(self._threads):
            thread.join()

    def settle(self) -> None:
        """Waits until what clients sent before they closed is heard."""
        deadline = time.monotonic() + _SEND_WITHIN_S
        while self.clients and time.monotonic() < deadline:
            time.sleep(_POLL_S / 4)

    def _accept(self) -> None:
        while not self.over.is_set():
            if not select.select([self._listener], [], [], _POLL_S)[0]:
                continue
            with contextlib.suppress(OSError):
                connection, _ = self._listener.accept()
                self.clients += 1
                thread = threading.Thread(
                    target=self._serve, args=(connection,), name="openrtc-raw-client", daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_SEND_WITHIN_S)
            heard: list[bytes] = []
            self.heard.append(heard)
            try:
                self._conversation(self, connection, heard).run()
            finally:
                self.clients -= 1
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class Conversation:
    """One client's connection, answered by the book."""

    def __init__(self, server: RawServer, connection: socket.socket, heard: list[bytes]) -> None:
        self.server = server
        self.socket = connection
        self.heard = heard
        self.limits = server.hello.limits
        self.watches: dict[Id, tuple[float, float]] = {}
        """By id: the interval, and when the next frame is due."""

    # --- what is said ------------------------------------------------------------------------------

    def greeting(self) -> bytes:
        return encode(self.server.hello)

    def refusal(self) -> bytes:
        message = f"{self.limits.clients} clients are connected already: close one, then connect again"
        return encode(Error(code="too-many-clients", message=message))

    def too_long(self, error: Exception) -> bytes:
        return encode(Error(code="line-too-long", message=str(error)))

    def say(self, message: ServerMessage) -> None:
        self.send(encode(message))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    # --- requests ----------------------------------------------------------------------------------

    def answer(self, line: bytes) -> bool:
        """False: the client has said bye."""
        try:
            request = decode_request(line)
        except RequestError as error:
            self.say(error.reply)
            return True
        try:
            return self.carry_out(request)
        except OSError:
            raise
        except Exception as error:  # the script's
            self.say(Error(id=request.id, code="internal", message=f"{type(error).__name__}: {error}"))
            return True

    def carry_out(self, request: Request) -> bool:
        if request.__struct_config__.tag not in self.server.hello.capabilities:
            answered = ", ".join(self.server.hello.capabilities)
            self.say(Error(id=request.id, code="unsupported", message=f"answered are {answered}"))
            return True
        match request:
            case SnapshotRequest(id=request_id):
                self.say(self.snapshot(request_id))
            case WatchRequest():
                self.watch(request)
            case CancelRequest(id=request_id):
                self.cancel(request_id)
            case BlocksRequest(id=request_id, since=since):
                self.say(self.blocks(request_id, since))
            case TasksRequest(id=request_id, session_id=session_id):
                self.say(self.tasks(request_id, session_id))
            case StacksRequest(id=request_id):
                self.say(self.stacks(request_id))
            case ByeRequest(id=request_id):
                self.say(Done(id=request_id))
                return False
        return True

    def snapshot(self, request_id: Id) -> Snapshot:
        return msgspec.structs.replace(self.server.snapshot(), id=request_id)

    def blocks(self, request_id: Id, since: int) -> Blocks:
        kept = self.server.blocks
        newer = [block for block in kept if block.seq > since]
        return Blocks(id=request_id, blocks=newer, last_seq=kept[-1].seq if kept else 0)

    def tasks(self, request_id: Id, session_id: str) -> Tasks | Error:
        tasks = self.server.tasks.get(session_id)
        if tasks is None:
            return Error(id=request_id, code="not-found", message=f"no live session has the id {session_id!r}")
        return Tasks(id=request_id, session_id=session_id, taken_at=time.time(), tasks=tasks)

    def stacks(self, request_id: Id) -> Stacks:
        return Stacks(id=request_id, taken_at=time.time(), threads=self.server.stacks)

    def watch(self, request: WatchRequest) -> None:
        if request.id in self.watches:
            self.say(Error(id=request.id, code="bad-request", message="a watch has that id already"))
        elif len(self.watches) >= self.limits.watches:
            self.say(Error(id=request.id, code="too-many-watches", message="cancel one first"))
        else:
            self.watches[request.id] = request.interval_s, time.monotonic()

    def cancel(self, request_id: Id) -> None:
        if self.watches.pop(request_id, None) is None:
            self.say(Error(id=request_id, code="bad-request", message="no watch has that id"))
        else:
            self.say(Done(id=request_id))

    # --- the connection ----------------------------------------------------------------------------

    def run(self) -> None:
        if self.server.clients > self.limits.clients:
            self.send(self.refusal())
            return
        self.send(self.greeting())
        lines = self.buffer()
        reading, active_at = True, time.monotonic()
        while not self.server.over.is_set():
            if not self.watches and time.monotonic() - active_at > self.limits.idle_timeout_s:
                return
            if reading and select.select([self.socket], [], [], self._pause())[0]:
                data = self.socket.recv(65536)
                reading = bool(data)
                try:
                    for line in lines.feed(data):
                        self.heard.append(line)
                        active_at = time.monotonic()
                        if not self.answer(line):
                            return
                except LineTooLong as error:
                    self.send(self.too_long(error))
                    return
            elif not reading:
                if not self.watches or self.hung_up():
                    return
                time.sleep(self._pause())
            self._frames()

    def buffer(self) -> LineBuffer:
        return LineBuffer(self.limits.request_bytes)

    def _pause(self) -> float:
        dues = [due - time.monotonic() for _, due in self.watches.values()]
        return max(0.0, min([_POLL_S, *dues]))

    def _frames(self) -> None:
        for request_id, (interval_s, due) in list(self.watches.items()):
            if due <= (now := time.monotonic()):
                self.watches[request_id] = interval_s, now + interval_s
                self.say(self.snapshot(request_id))

    def hung_up(self) -> bool:
        poll = select.poll()
        poll.register(self.socket, 0)
        return bool(poll.poll(0))
