"""The messages between the two sides of a relay, and their limits; no I/O.

docs/relay.md is the contract. A channel is one connection to one worker; the worker's own messages go through it
untouched.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from openrtc_introspect_core import ProtocolError
from openrtc_introspect_core.wire import MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES
from openrtc_top._model.box_reading import BoxReading, DeadWorker

RELAY_MAJOR = 1
RELAY_MINOR = 2
BOX_MINOR = 1
"""Relays of this minor version and above read black boxes."""

MAX_WORKERS = 256
"""The most workers that a relay offers; if there are more, its stderr says so."""
MAX_CHANNELS = 256
"""The most connections at a time through one relay."""
MAX_BOXES = 16
"""The most black boxes that are read at a time."""
MAX_DEAD = 64
"""The most dead workers in a list."""
MAX_UNSEEN = 8
"""The most reasons that are taken in."""
MAX_ENVELOPE_BYTES = 256
"""The most bytes that stand around a worker's message."""
MAX_FROM_CLIENT = MAX_REQUEST_BYTES + MAX_ENVELOPE_BYTES
MAX_FROM_RELAY = MAX_MESSAGE_BYTES + MAX_ENVELOPE_BYTES

ChannelId = Annotated[int, Meta(ge=0, le=2**53 - 1)]


# --- relay to client -----------------------------------------------------------------------------


class RelayHello(Struct, frozen=True, kw_only=True, tag="relay"):
    """The relay's first line."""

    relay: str
    """"major.minor" of this protocol."""
    version: str = ""
    """The version of openrtc-top that relays."""


class Offered(Struct, frozen=True, kw_only=True):
    """A worker that the relay can open a channel to."""

    socket: str
    """Its socket's path on that host, by which it is known there."""
    name: str
    pid: int | None = None
    """None: the socket's name does not hold it."""
    user: str | None = None
    """Its owner. None: the user that the relay runs as."""


class Workers(Struct, frozen=True, kw_only=True, tag="workers"):
    """All workers that run there now: sent at first, and again and again."""

    workers: list[Offered]
    dead: list[DeadWorker] = []
    """The workers that died there and left a black box, the latest first. Since 1.1."""
    unseen: list[str] = []
    """If there is no worker: why some may not be seen there, a line each, for people. Since 1.2."""


class FromWorker(Struct, frozen=True, kw_only=True, tag="message"):
    """A message of the worker at the end of a channel."""

    channel: ChannelId
    message: Raw


class Closed(Struct, frozen=True, kw_only=True, tag="closed"):
    """A channel is over, or could not be opened."""

    channel: ChannelId
    reason: str = ""
    """One line for people."""


class Box(Struct, frozen=True, kw_only=True, tag="box"):
    """What a black box says. Since 1.1."""

    request: ChannelId
    """The number of the request that this answers."""
    reading: BoxReading | None = None
    """None: it could not be read, or its worker is not asked for in that way."""
    reason: str = ""
    """The reason why there is no reading, in one line for people."""


FromRelay = RelayHello | Workers | FromWorker | Closed | Box


# --- client to relay -----------------------------------------------------------------------------


class Open(Struct, frozen=True, kw_only=True, tag="open"):
    """Connect to a worker that was offered.

    Its hello is the first message of the channel.
    """

    channel: ChannelId
    socket: str


class ToWorker(Struct, frozen=True, kw_only=True, tag="message"):
    """A request for the worker at the end of a channel."""

    channel: ChannelId
    message: Raw


class Close(Struct, frozen=True, kw_only=True, tag="close"):
    """Disconnect from the worker. There is no answer."""

    channel: ChannelId


class ReadBox(Struct, frozen=True, kw_only=True, tag="read-box"):
    """Read the black box beside the socket of a worker that was offered, or of a dead one. Since 1.1."""

    request: ChannelId
    """A number that the client chooses, and the answer repeats."""
    box: str
    """The path of the box there."""


FromClient = Open | ToWorker | Close | ReadBox

_from_relay: msgspec.json.Decoder[FromRelay] = msgspec.json.Decoder(FromRelay)
_from_client: msgspec.json.Decoder[FromClient] = msgspec.json.Decoder(FromClient)
_json = msgspec.json.Decoder(Raw)


def decode_from_relay(line: bytes) -> FromRelay:
    """Return a relay's line as a message. Raises ProtocolError."""
    try:
        return _from_relay.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise ProtocolError(f"the other side sent {_shown(line)}, which is no message of a relay") from None


def decode_relay_hello(line: bytes) -> RelayHello:
    """Return the relay's first line.

    Raises ProtocolError, with both versions if the major differs.
    """
    claimed = re.match(rb'\{"type":"relay","relay":"(\d{1,9})\.', line)
    if claimed is None:
        raise ProtocolError(f"the other side began with {_shown(line)} instead of a relay's hello")
    if int(claimed[1]) != RELAY_MAJOR:
        raise ProtocolError(
            f"the other side's relay speaks version {int(claimed[1])}, this one {RELAY_MAJOR}: "
            "install openrtc-top of the same version on both sides"
        )
    message = decode_from_relay(line)
    assert isinstance(message, RelayHello)
    return message


def minor_of(hello: RelayHello) -> int:
    """Return the minor version that a relay speaks."""
    minor = hello.relay.partition(".")[2].partition(".")[0]
    return int(minor) if minor.isascii() and minor.isdigit() and len(minor) < 10 else 0


def decode_from_client(line: bytes) -> FromClient:
    """Return a client's line as a message. Raises ProtocolError."""
    try:
        return _from_client.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"{_shown(line)} is no message to a relay: {error}") from None


def from_worker(channel: int, line: bytes) -> bytes:
    """Return a worker's line in its envelope to the client.

    Raises ProtocolError if it is no JSON.
    """
    try:
        _json.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise ProtocolError(f"the worker sent {_shown(line)}, which is no JSON") from None
    return b'{"type":"message","channel":%d,"message":%b}\n' % (channel, line)


def to_worker(channel: int, line: bytes) -> bytes:
    """Return a request in its envelope to the relay."""
    return b'{"type":"message","channel":%d,"message":%b}\n' % (channel, line.rstrip())


def _shown(line: bytes) -> str:
    return repr(line[:60].decode(errors="replace"))
