"""The server's side of one connection, apart from its I/O.

Bytes and the time go in, messages come out.

It has no socket, never sleeps and reads no clock. Its driver asks `next_action` what comes next:

    connection = ServerConnection(hello, source, snapshot, clock())
    write(connection.greeting())
    while (action := connection.next_action(clock())) is not Action.CLOSE:
        if action is Action.WAIT:
            connection.receive(read(until=connection.wake_at))
        elif message := connection.message(clock()):
            write(message)
            connection.sent(clock())

The rules:
- Buffers are bounded: one piece of what the client sent, and one line that has not ended. No further
  piece is taken before all requests in this one are answered.
- A message is built when `message` is called, which is when the driver can send it: none is queued.
- Requests are answered in the order in which they came. While frames are due all the time, a frame
  and a request take turns, and between two frames the driver is asked to read.
- A watch's next frame is due one interval after the last one came up, however long that one took, and
  up to a quarter later: watches of one interval drift into phase, and share their frames (see `next_due`).
- The client's errors become replies, and so do the source's ("internal"). Only the driver's own errors,
  calls out of order, raise: RuntimeError.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from ._framing import LineBuffer, LineTooLong, RequestError, decode_request, encode
from ._messages import (
    Blocks,
    BlocksRequest,
    ByeRequest,
    CancelRequest,
    Done,
    Error,
    Hello,
    Limits,
    Request,
    RequestId,
    SnapshotRequest,
    StacksRequest,
    TasksRequest,
    WaitsRequest,
    WatchRequest,
)
from ._source import Message, Source

_LONGEST_PROBLEM = 200
"""Characters of an error's text that reach the client."""


IN_PHASE = 0.1
"""The part of an interval within which frames of several watches are due at the same time: they are of one snapshot."""
_MAX_AGE_S = 0.1
"""The age of a watch's frame, if it was made for another watch, at the most."""
_DRIFT = 0.25
"""The part of its interval by which a watch that is out of phase waits longer."""


class Action(enum.Enum):
    """The next action of a connection's driver."""

    REPLY = enum.auto()
    """Build a message and send it. An empty one needs no sending: blank lines, half a line, a new watch."""
    FRAME = enum.auto()
    """The same for a watch's frame, which may wait until the client has read all that was sent before."""
    WAIT = enum.auto()
    """Read what the client sends, and wait for it until `wake_at` at most."""
    CLOSE = enum.auto()


class Snapshots(Protocol):
    """The latest snapshot, encoded, as all connections share it."""

    def message(self, request_id: RequestId, within_s: float = 0.0) -> Message:
        """Return a snapshot. One that is `within_s` seconds old is good enough."""

    def frame(self, request_id: RequestId, base: int, within_s: float = 0.0) -> tuple[int, Message]:
        """Return its `seq`, and a frame of what has changed since the frame `base`, or of everything."""


@dataclass(slots=True)
class _Watch:
    request: WatchRequest
    due: float
    begun: bool = False
    """Whether it has had a frame."""
    base: int = 0
    """The last frame that was made for it; 0: none, or it does not ask for changes."""


class ServerConnection:
    """What one client asks and watches, and what it is owed.

    hello: the first message; its capabilities and limits are kept to.
    source: what is served.
    snapshots: builds the replies to snapshot requests, and the frames of watches.
    now: the time, in seconds of any clock that does not go back.
    """

    def __init__(self, hello: Hello, source: Source, snapshots: Snapshots, now: float) -> None:
        self.has_asked = False
        """Whether a line has come."""
        self.ended = False
        """Whether the client sends no more; it may still read."""
        self._hello = hello
        self._limits = hello.limits
        self._source = source
        self._snapshots = snapshots
        self._deltas = "deltas" in hello.capabilities
        self._buffer = LineBuffer(self._limits.request_bytes)
        self._piece = b""
        self._lines: deque[bytes] = deque()
        self._too_long: LineTooLong | None = None
        self._watches: dict[RequestId, _Watch] = {}
        self._frame: _Watch | None = None
        self._frame_was_last = False
        self._active_at = now
        self._over = False

    def greeting(self) -> Message:
        """Return the hello, which is sent first."""
        return [encode(self._hello)]

    # --- what the client sends -----------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take a piece of what the client sent; b"" means that it sends no more.

        Raises RuntimeError before all requests of the last piece are answered, and after the end.
        """
        if self._has_input() or self.ended:
            raise RuntimeError("a connection takes data only when its next action is to wait, and none after the end")
        self._piece = data
        self.ended = not data
        self.has_asked = self.has_asked or b"\n" in data

    def _has_input(self) -> bool:
        return bool(self._piece or self._lines) or self._too_long is not None

    # --- what comes next -----------------------------------------------------------------------------

    def next_action(self, now: float) -> Action:
        """Return what the driver does next."""
        if self._over:
            return Action.CLOSE
        if self._frame is None:
            self._frame = self._due_frame(now)
        if self._frame is not None:
            return Action.FRAME
        if self._has_input():
            return Action.REPLY
        self._frame_was_last = False
        if not self._watches and (self.ended or now >= self.wake_at):
            return Action.CLOSE
        return Action.WAIT

    def _due_frame(self, now: float) -> _Watch | None:
        if self._frame_was_last and not (self.ended and not self._has_input()):
            return None  # the client's requests have their turn
        watch = min(self._watches.values(), key=lambda each: each.due, default=None)
        if watch is None or watch.due > now:
            return None
        watch.due = next_due(now, watch.request.interval_s)
        return watch

    @property
    def wake_at(self) -> float:
        """The time at which the driver asks again even if nothing has come.

        A frame is due then, or the client has been idle for too long.
        """
        if self._watches:
            return min(watch.due for watch in self._watches.values())
        return self._active_at + self._limits.idle_timeout_s

    def message(self, now: float) -> Message:
        """Build what is to be sent now. Empty: nothing is.

        Raises RuntimeError if the next action is neither REPLY nor FRAME.
        """
        if self._frame is not None:
            watch, self._frame = self._frame, None
            self._frame_was_last = True
            return self._next_frame(watch)
        if not self._has_input():
            raise RuntimeError("a connection builds a message only when its next action is to send one")
        self._frame_was_last = False
        self._cut()
        if self._lines:
            self._active_at = now
            return self.answer(self._lines.popleft(), now)
        if self._too_long is not None:
            self._over = True
            return [encode(Error(code="line-too-long", message=str(self._too_long)))]
        return []

    def sent(self, now: float) -> None:
        """Take note that the last message was sent."""
        self._active_at = now

    # --- answers -------------------------------------------------------------------------------------

    def _cut(self) -> None:
        piece, self._piece = self._piece, b""
        try:
            self._lines.extend(self._buffer.feed(piece))
        except LineTooLong as error:
            self._too_long = error

    def _next_frame(self, watch: _Watch) -> Message:
        request = watch.request
        within_s = min(IN_PHASE * request.interval_s, _MAX_AGE_S) if watch.begun else 0.0
        watch.begun = True
        try:
            if not (request.deltas and self._deltas):
                return self._snapshots.message(request.id, within_s)
            watch.base, message = self._snapshots.frame(request.id, watch.base, within_s)
            return message
        except Exception as error:
            del self._watches[request.id]
            return [_internal(request.id, error)]

    def answer(self, line: bytes, now: float) -> Message:
        """Return the reply to one line of the client; empty if none is due at once.

        The one seam for servers that break the protocol on purpose: a subclass may return another reply.
        What it raises, `message` raises.
        """
        try:
            request = decode_request(line)
        except RequestError as error:
            return [encode(error.reply)]
        kind = request.__struct_config__.tag
        if kind not in self._hello.capabilities:
            problem = f"this worker does not answer requests of type {kind!r}"
            return [encode(Error(id=request.id, code="unsupported", message=problem))]
        try:
            return self._carry_out(request, now)
        except Exception as error:
            return [_internal(request.id, error)]

    def _carry_out(self, request: Request, now: float) -> Message:
        match request:
            case SnapshotRequest(id=request_id, base=base):
                if base is None or not self._deltas:
                    return self._snapshots.message(request_id)
                return self._snapshots.frame(request_id, base)[1]
            case WatchRequest():
                return self._watch(request, now)
            case CancelRequest(id=request_id):
                return self._cancel(request_id)
            case BlocksRequest(id=request_id, since=since):
                kept = self._source.blocks(0)
                blocks = [block for block in kept if block.seq > since]
                last_seq = kept[-1].seq if kept else 0
                return [encode(Blocks(id=request_id, blocks=blocks, last_seq=last_seq))]
            case TasksRequest(id=request_id, session_id=session_id):
                tasks = self._source.tasks(request)
                return [encode(tasks if tasks is not None else _no_session(request_id, session_id))]
            case StacksRequest():
                return [encode(self._source.stacks(request))]
            case WaitsRequest():
                return [encode(self._source.waits(request))]
            case ByeRequest(id=request_id):
                self._over = True
                return [encode(Done(id=request_id))]

    def _watch(self, request: WatchRequest, now: float) -> Message:
        if request.id in self._watches:
            problem = f"a watch has the id {request.id!r} already"
            return [encode(Error(id=request.id, code="bad-request", message=problem))]
        if len(self._watches) >= self._limits.watches:
            problem = f"this connection has {self._limits.watches} watches already: cancel one first"
            return [encode(Error(id=request.id, code="too-many-watches", message=problem))]
        self._watches[request.id] = _Watch(request, due=now)
        return []

    def _cancel(self, request_id: RequestId) -> Message:
        watch = self._watches.pop(request_id, None)
        if watch is None:
            problem = f"no watch has the id {request_id!r}"
            return [encode(Error(id=request_id, code="bad-request", message=problem))]
        return [encode(Done(id=request_id))]


def next_due(now: float, interval_s: float) -> float:
    """Return when a watch's next frame is due: an interval from now, or up to a quarter of it later.

    The delay brings it towards the next multiple of its interval, which is the same moment for all watches of that
    interval.
    """
    due = now + interval_s
    late = due % interval_s
    return due if late <= IN_PHASE * interval_s else due + min(_DRIFT * interval_s, interval_s - late)


def refusal(limits: Limits) -> bytes:
    """Return what a client hears for which there is no room.

    It stands instead of the hello, or behind it.
    """
    message = f"{limits.clients} clients are connected already: close one, then connect again"
    return encode(Error(code="too-many-clients", message=message))


def _no_session(request_id: RequestId, session_id: str) -> Error:
    problem = f"no live session has the id {session_id!r:.{_LONGEST_PROBLEM}}"
    return Error(id=request_id, code="not-found", message=problem)


def _internal(request_id: RequestId, error: Exception) -> bytes:
    problem = f"{type(error).__name__}: {error}"[:_LONGEST_PROBLEM]
    return encode(Error(id=request_id, code="internal", message=problem))
