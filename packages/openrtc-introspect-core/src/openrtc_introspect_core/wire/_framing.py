"""Bytes to messages and back; no I/O here.

One message is one JSON object on one line, ended by a newline. A reader never holds more than one
line and one read, however small the pieces are that the line comes in: a line over the limit is an
error at the moment the limit is passed, not when its newline comes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from .._base.errors import ProtocolError, RequestFailed
from ._messages import (
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    Envelope,
    Error,
    ErrorCode,
    Hello,
    Request,
    RequestId,
    ServerMessage,
)

_encoder = msgspec.json.Encoder()
_request_decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_server_decoder: msgspec.json.Decoder[ServerMessage] = msgspec.json.Decoder(ServerMessage)
_envelope_decoder = msgspec.json.Decoder(Envelope)
_id_type: Any = RequestId
_request_types: frozenset[str] = frozenset(member.__struct_config__.tag for member in Request.__args__)


class LineTooLong(ProtocolError):
    """The peer sent more than the limit without a newline."""


class RequestError(ProtocolError):
    """A line that is no acceptable request.

    `reply` is the error message to answer with.
    """

    def __init__(self, reply: Error) -> None:
        super().__init__(reply.message)
        self.reply = reply


class LineBuffer:
    """Cuts a byte stream into lines of at most `limit` bytes, newline included."""

    __slots__ = ("_limit", "_pending")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines that `data` completes, without newlines, without empty lines.

        Raises LineTooLong.
        """
        if b"\n" not in data:  # a piece of a long line is copied once
            complete, rest = [], data
        else:
            *complete, rest = data.split(b"\n")
        for piece in complete:
            if len(self._pending) + len(piece) >= self._limit:
                raise self._too_long()
            if self._pending:
                self._pending += piece
                piece = bytes(self._pending)
                self._pending = bytearray()
            if line := piece.strip():
                yield line
        if len(self._pending) + len(rest) > self._limit:
            raise self._too_long()
        self._pending += rest

    def _too_long(self) -> LineTooLong:
        self._pending = bytearray()
        return LineTooLong(f"a line of more than {self._limit} bytes, the longest that is read")


def to_json(message: msgspec.Struct) -> bytes:
    """Return the message's JSON, on one line, without the newline."""
    return _encoder.encode(message)


def encode(message: msgspec.Struct) -> bytes:
    """Return the message as it goes over the wire."""
    return _encoder.encode(message) + b"\n"


def decode_request(line: bytes) -> Request:
    """Return a client's line as a request.

    Raises RequestError, which carries the reply.
    """
    try:
        return _request_decoder.decode(line)
    except msgspec.ValidationError as error:
        raise RequestError(_refusal(line, str(error))) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RequestError(Error(code="bad-json", message=f"not a JSON object on one line: {error}")) from None


def _refusal(line: bytes, problem: str) -> Error:
    try:
        envelope = _envelope_decoder.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return Error(code="bad-request", message=problem)
    try:
        request_id = msgspec.convert(envelope.id, _id_type)
    except msgspec.ValidationError:
        request_id = None
    code: ErrorCode = "bad-request"
    if isinstance(envelope.type, str) and envelope.type not in _request_types:
        code = "unsupported"
        problem = f"request type {envelope.type[:64]!r} is not one of {', '.join(sorted(_request_types))}"
    return Error(id=request_id, code=code, message=problem)


def decode_server_message(line: bytes) -> ServerMessage:
    """Return a server's line as a message. Raises ProtocolError."""
    try:
        return _server_decoder.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the worker sent {line[:80]!r}, which is no message of this protocol: {error}") from None


def decode_hello(line: bytes) -> Hello:
    """Return the server's first line as its hello.

    Raises ProtocolError, which names both versions if the majors differ, and RequestFailed if the
    worker refused the connection.
    """
    ours = f"{PROTOCOL_MAJOR}.{PROTOCOL_MINOR}"
    # The version is read before anything else: another major may have changed everything else.
    claimed = re.search(rb'"protocol"\s*:\s*"(\d{1,9})\.(\d{1,9})"', line)
    if claimed is not None and int(claimed[1]) != PROTOCOL_MAJOR:
        theirs = claimed[0].split(b'"')[-2].decode("ascii")
        raise ProtocolError(
            f"the worker speaks protocol {theirs}, this client {ours}: "
            "use openrtc-introspect-core of the same major version on both sides"
        )
    message = decode_server_message(line)
    if isinstance(message, Error):
        raise RequestFailed(message.code, message.message)
    if not isinstance(message, Hello) or claimed is None:
        raise ProtocolError(f"the worker began with {line[:80]!r} instead of a hello")
    return message
