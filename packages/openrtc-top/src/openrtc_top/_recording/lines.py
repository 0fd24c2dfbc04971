"""A recording's lines: events to JSON and back, without I/O.

docs/recordings.md is the contract.

The first line says what the file is. Each other line has a `type` and the moment `at` which the event was heard; a
worker's message is in it as the worker sent it.
"""

from __future__ import annotations

import itertools
import re

import msgspec
from msgspec import Raw, Struct

from openrtc_introspect_core import ProtocolError, __version__
from openrtc_introspect_core.wire import (
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    Blocks,
    Snapshot,
    decode_server_message,
    encode,
    to_json,
)
from openrtc_top._model.events import Blocked, Dropped, Event, Found, Frame, Gone, Unanswered

FORMAT_MAJOR = 1
FORMAT_MINOR = 0


class NotARecording(ValueError):
    """The file is no recording, or one that this version cannot read."""


class RecordingLine(Struct, frozen=True, kw_only=True, tag="recording"):
    """The first line."""

    format: str
    """"major.minor" of this format."""
    protocol: str
    """"major.minor" of the wire protocol that the messages are in."""
    version: str
    """The version of openrtc-top that recorded."""
    at: float
    """When recording began; Unix time, seconds, as all moments are."""
    interval_s: float
    """Seconds from one snapshot of a worker to the next, at the least."""


class WorkerLine(Struct, frozen=True, kw_only=True, tag="worker"):
    """A worker was found. The lines about it have its number."""

    at: float
    worker: int
    key: str
    """Its identity: its socket's path, after the host's name and a colon if it is on another host."""
    name: str
    pid: int | None
    host: str | None


class MessageLine(Struct, frozen=True, kw_only=True, tag="message"):
    """A worker's message: a snapshot, or blocks."""

    at: float
    worker: int
    message: Raw


class GoneLine(Struct, frozen=True, kw_only=True, tag="gone"):
    """A worker could not be read."""

    at: float
    worker: int
    reason: str


class DroppedLine(Struct, frozen=True, kw_only=True, tag="dropped"):
    """A host's stand-in is gone: the host has workers now."""

    at: float
    worker: int


class EndLine(Struct, frozen=True, kw_only=True, tag="end"):
    """The end of the recording. Without this line it was cut off."""

    at: float


class Entry(Struct, frozen=True):
    """Any line but the first, as far as a reader needs it. Other fields are ignored."""

    type: str
    at: float
    worker: int = 0
    key: str = ""
    name: str = ""
    pid: int | None = None
    host: str | None = None
    reason: str = ""
    message: Raw = Raw(b"")


class Head(Struct, frozen=True):
    """The part of a snapshot that an index needs."""

    class Worker(Struct, frozen=True):
        epoch: str = ""

    type: str = ""
    worker: Worker = Worker()


_entry = msgspec.json.Decoder(Entry)
_head = msgspec.json.Decoder(Head)


class Scribe:
    """Turns events into lines, and skips those without news."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._next = itertools.count(1)
        self._reasons: dict[str, str] = {}
        self.frames = 0
        """The number of snapshots that were written down."""
        self.heard: set[str] = set()
        """The keys of the workers that sent them."""

    def begin(self, at: float, interval_s: float) -> bytes:
        """Return the first line."""
        protocol = f"{PROTOCOL_MAJOR}.{PROTOCOL_MINOR}"
        form = f"{FORMAT_MAJOR}.{FORMAT_MINOR}"
        return encode(RecordingLine(format=form, protocol=protocol, version=__version__, at=at, interval_s=interval_s))

    def line(self, event: Event, at: float) -> bytes:
        """Return the event's line; empty if there is nothing to keep."""
        match event:
            case Found(key, name, pid, host):
                number = self._numbers.setdefault(key, next(self._next))
                self._reasons.pop(key, None)
                return encode(WorkerLine(at=at, worker=number, key=key, name=name, pid=pid, host=host))
            case Frame(key, snapshot):
                return self._snapshot(key, snapshot, at)
            case Unanswered(key, reading) if reading.held is not None:  # as the view shows it
                return self._snapshot(key, reading.snapshot, at)
            case Blocked(key, blocks):
                message = Blocks(id=0, blocks=list(blocks), last_seq=blocks[-1].seq if blocks else 0)
                return encode(MessageLine(at=at, worker=self._numbers[key], message=Raw(to_json(message))))
            case Gone(key, reason) if self._reasons.get(key) != reason:
                self._reasons[key] = reason
                return encode(GoneLine(at=at, worker=self._numbers[key], reason=reason))
            case Dropped(key) if key in self._numbers:
                return encode(DroppedLine(at=at, worker=self._numbers.pop(key)))
        return b""

    def _snapshot(self, key: str, snapshot: Snapshot, at: float) -> bytes:
        self._reasons.pop(key, None)
        self.frames += 1
        self.heard.add(key)
        return encode(MessageLine(at=at, worker=self._numbers[key], message=Raw(to_json(snapshot))))

    def end(self, at: float) -> bytes:
        """Return the last line."""
        return encode(EndLine(at=at))


def read_first(line: bytes) -> RecordingLine:
    """Decode the first line. Raises NotARecording."""
    claimed = re.match(rb'\{"type":"recording","format":"(\d{1,9})\.', line)
    if claimed is None:
        raise NotARecording("is no recording of `openrtc record`")
    if int(claimed[1]) != FORMAT_MAJOR:
        raise NotARecording(
            f"is a recording of format {int(claimed[1])}, this version reads {FORMAT_MAJOR}: use a newer openrtc-top"
        )
    try:
        return msgspec.json.decode(line, type=RecordingLine)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotARecording(f"is a recording whose first line is broken: {error}") from None


def read_entry(line: bytes) -> Entry | None:
    """Decode a line. None: it is broken, or cut off."""
    try:
        return _entry.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def epoch_of(entry: Entry) -> str | None:
    """Return the worker's epoch, if the line is a snapshot. None: it is not."""
    if entry.type != "message":
        return None
    try:
        head = _head.decode(entry.message)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    return head.worker.epoch if head.type == "snapshot" else None


class Reader:
    """Turns entries into events again."""

    def __init__(self) -> None:
        self._keys: dict[int, str] = {}

    def event(self, entry: Entry) -> Event | None:
        """Return the line's event. None: its type or its worker is not known."""
        if entry.type == "worker":
            self._keys[entry.worker] = entry.key
            return Found(entry.key, entry.name, entry.pid, entry.host)
        key = self._keys.get(entry.worker)
        if key is None:
            return None
        if entry.type == "gone":
            return Gone(key, entry.reason)
        if entry.type == "dropped":
            return Dropped(key)
        if entry.type == "message":
            try:
                message = decode_server_message(bytes(entry.message))
            except ProtocolError:  # of a later minor version
                return None
            if isinstance(message, Snapshot):
                return Frame(key, message)
            if isinstance(message, Blocks):
                return Blocked(key, message.blocks)
        return None
