"""The messages between `--via` and the `openrtc relay` on the other side, and their limits; no I/O here.

docs/relay.md is the contract. A channel is one connection to one worker; what goes through it are
the worker's own messages, untouched.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from openrtc_introspect_core import ProtocolError
from openrtc_introspect_core.wire import MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES

RELAY_MAJOR = 1
RELAY_MINOR = 0

MAX_WORKERS = 256
"""The most workers that a relay offers; those that are left out are told of on its stderr."""
MAX_CHANNELS = 256
"""The most connections at a time through one relay."""
MAX_ENVELOPE_BYTES = 256
"""What stands around a worker's message at the most."""
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
    """Its socket's path on that host, which is what tells it from the others."""
    name: str
    pid: int | None = None
    """None: the socket's name does not tell."""
    user: str | None = None
    """Whose it is. None: the relay's own user's."""


class Workers(Struct, frozen=True, kw_only=True, tag="workers"):
    """All workers that run there now: at first, and again when they are others."""

    workers: list[Offered]


class FromWorker(Struct, frozen=True, kw_only=True, tag="message"):
    """A message of the worker at the end of a channel."""

    channel: ChannelId
    message: Raw


class Closed(Struct, frozen=True, kw_only=True, tag="closed"):
    """A channel is over, or could not be opened."""

    channel: ChannelId
    reason: str = ""
    """One line for people."""


FromRelay = RelayHello | Workers | FromWorker | Closed


# --- client to relay -----------------------------------------------------------------------------


class Open(Struct, frozen=True, kw_only=True, tag="open"):
    """Connect to a worker that was offered; its hello is the first message of the channel."""

    channel: ChannelId
    socket: str


class ToWorker(Struct, frozen=True, kw_only=True, tag="message"):
    """A request for the worker at the end of a channel."""

    channel: ChannelId
    message: Raw


class Close(Struct, frozen=True, kw_only=True, tag="close"):
    """Disconnect from the worker. There is no answer."""

    channel: ChannelId


FromClient = Open | ToWorker | Close

_from_relay: msgspec.json.Decoder[FromRelay] = msgspec.json.Decoder(FromRelay)
_from_client: msgspec.json.Decoder[FromClient] = msgspec.json.Decoder(FromClient)
_json = msgspec.json.Decoder(Raw)


def decode_from_relay(line: bytes) -> FromRelay:
    """A relay's line as a message. Raises ProtocolError."""
    try:
        return _from_relay.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise ProtocolError(f"the other side sent {_shown(line)}, which is no message of a relay") from None


def decode_relay_hello(line: bytes) -> RelayHello:
    """The relay's first line. Raises ProtocolError, naming both versions where the major differs."""
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


def decode_from_client(line: bytes) -> FromClient:
    """A client's line as a message. Raises ProtocolError."""
    try:
        return _from_client.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"{_shown(line)} is no message to a relay: {error}") from None


def from_worker(channel: int, line: bytes) -> bytes:
    """A worker's line, ready to be sent to the client. Raises ProtocolError where it is no JSON."""
    try:
        _json.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise ProtocolError(f"the worker sent {_shown(line)}, which is no JSON") from None
    return b'{"type":"message","channel":%d,"message":%b}\n' % (channel, line)


def to_worker(channel: int, line: bytes) -> bytes:
    """A request, ready to be sent to the relay."""
    return b'{"type":"message","channel":%d,"message":%b}\n' % (channel, line.rstrip())


def _shown(line: bytes) -> str:
    return repr(line[:60].decode(errors="replace"))
