from __future__ import annotations

import json
import re
import threading
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrtc_introspect_core import ProtocolError, RequestFailed
from openrtc_introspect_core.wire import (
    MAX_REQUEST_BYTES,
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    BlocksRequest,
    Error,
    Hello,
    LineBuffer,
    Request,
    Snapshot,
    SnapshotRequest,
    WatchRequest,
    WorkerInfo,
    decode_hello,
    decode_request,
    decode_server_message,
    encode,
    fields,
    to_json,
)
from openrtc_introspect_core.wire import _messages as messages
from openrtc_introspect_core.wire._framing import LineTooLong, RequestError
from openrtc_introspect_testing._workers.golden_frames import GoldenFrame, RefusedLine, golden_frames, refused_lines

OURS = rf"{PROTOCOL_MAJOR}\.{PROTOCOL_MINOR}"
HELLO = Hello(protocol="1.0", worker="w", pid=1)


def refusal(line: bytes) -> Error:
    with pytest.raises(RequestError) as caught:
        decode_request(line)
    return caught.value.reply


LATER_FIELDS = {
    name
    for kind in vars(messages).values()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__module__ == messages.__name__
    for name, text in fields.docstrings(kind.__name__).items()
    if re.search(r"Since 1\.\d+\.", text)
}
"""The fields that a minor version has added. A line of an earlier one, without them, stays a valid line."""


def without_later_fields(value: Any, golden: Any) -> Any:
    """Return the value without the later fields that `golden`, its golden counterpart, does not have."""
    if isinstance(value, dict) and isinstance(golden, dict):
        kept = {name: inner for name, inner in value.items() if name in golden or name not in LATER_FIELDS}
        return {name: without_later_fields(inner, golden.get(name)) for name, inner in kept.items()}
    if isinstance(value, list) and isinstance(golden, list) and len(value) == len(golden):
        return [without_later_fields(*pair) for pair in zip(value, golden, strict=True)]
    return value


def decode_or_refuse(line: bytes) -> Request | Error:
    try:
        return decode_request(line)
    except RequestError as error:
        return error.reply


# --- lines ---------------------------------------------------------------------------------------


def cut(data: bytes, sizes: list[int], limit: int = MAX_REQUEST_BYTES) -> list[bytes]:
    buffer = LineBuffer(limit)
    lines: list[bytes] = []
    start = 0
    for size in [*sizes, len(data)]:
        lines += buffer.feed(data[start : start + size])
        start += size
    return lines


@settings(deadline=None)
@given(
    lines=st.lists(st.binary(min_size=1, max_size=40).filter(lambda line: b"\n" not in line and line.strip())),
    sizes=st.lists(st.integers(0, 12), max_size=60),
)
def test_pieces_of_any_size_make_the_same_lines(lines: list[bytes], sizes: list[int]) -> None:
    """The places at which a stream is cut do not change its lines."""
    assert cut(b"".join(line + b"\n" for line in lines), sizes) == [line.strip() for line in lines]


@settings(deadline=None)
@given(data=st.binary(max_size=300), sizes=st.lists(st.integers(0, 30), max_size=30))
def test_any_bytes_are_lines_or_too_long(data: bytes, sizes: list[int]) -> None:
    """Any input gives lines or LineTooLong, and the sizes of its pieces do not matter."""

    def outcome(sizes: list[int]) -> list[bytes] | str:
        try:
            return cut(data, sizes, limit=16)
        except LineTooLong as error:
            return str(error)

    assert outcome(sizes) == outcome([])


@pytest.mark.parametrize("frame", golden_frames, ids=lambda frame: frame.name)
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_golden_lines_arrive_whole(frame: GoldenFrame, size: int) -> None:
    """A golden line that comes in pieces of 1, 2, 3 or 7 bytes is read as one line."""
    buffer = LineBuffer(MAX_REQUEST_BYTES)
    pieces = [frame.line[start : start + size] for start in range(0, len(frame.line), size)]
    assert [line for piece in pieces for line in buffer.feed(piece)] == [frame.line[:-1]]


def test_a_line_of_exactly_the_limit_is_read() -> None:
    """The limit includes the newline."""
    line = b"x" * (MAX_REQUEST_BYTES - 1)
    assert list(LineBuffer(MAX_REQUEST_BYTES).feed(line + b"\n")) == [line]


def test_one_byte_more_is_too_long() -> None:
    """The line is too long whether or not its newline has come."""
    for data in (b"x" * MAX_REQUEST_BYTES + b"\n", b"x" * (MAX_REQUEST_BYTES + 1)):
        with pytest.raises(LineTooLong, match="a line of more than 65536 bytes"):
            list(LineBuffer(MAX_REQUEST_BYTES).feed(data))


def test_lines_before_one_that_is_too_long_are_kept() -> None:
    """The lines before it were complete and must be answered."""
    lines = LineBuffer(4).feed(b"a\nb\n123456")
    assert next(lines) == b"a"
    assert next(lines) == b"b"
    with pytest.raises(LineTooLong):
        next(lines)


def test_blank_lines_and_carriage_returns_are_nothing() -> None:
    """Blank lines are skipped, and a carriage return before the newline is dropped."""
    assert cut(b"\n\r\n  \n{}\r\n\t{}\n", []) == [b"{}", b"{}"]


def test_an_unfinished_line_takes_little_more_than_its_bytes() -> None:
    """A line of 60,000 bytes in 30,000 pieces takes less than 100,000 bytes of memory."""
    buffer = LineBuffer(MAX_REQUEST_BYTES)
    tracemalloc.start()
    try:
        for _ in range(30_000):
            assert list(buffer.feed(b"[[")) == []
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()


# --- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", golden_frames, ids=lambda frame: frame.name)
def test_the_encoder_writes_the_golden_bytes(frame: GoldenFrame) -> None:
    """The bytes are equal, except for fields since 1.1 and later that the golden line does not have."""
    line = to_json(frame.message)
    assert encode(frame.message) == line + b"\n"
    if LATER_FIELDS:
        line = msgspec.json.encode(without_later_fields(json.loads(line), json.loads(frame.line)))
    assert line + b"\n" == frame.line


@pytest.mark.parametrize("frame", golden_frames, ids=lambda frame: frame.name)
def test_the_decoder_reads_the_golden_bytes(frame: GoldenFrame) -> None:
    """A golden line decodes to the message from which it was made."""
    decode = decode_request if frame.direction == "to worker" else decode_server_message
    assert decode(frame.line) == frame.message


@pytest.mark.parametrize("refused", refused_lines, ids=lambda refused: refused.name)
def test_what_is_no_request_is_refused(refused: RefusedLine) -> None:
    """The refusal carries the code, and the request's id if there is one."""
    reply = refusal(refused.line)
    assert (reply.code, reply.id) == (refused.code, refused.id)
    assert decode_server_message(encode(reply)) == reply


def test_unknown_fields_are_ignored() -> None:
    """A later minor version may send fields that this version does not know."""
    line = b'{"type":"watch","id":1,"depth":{"a":[1,2]},"interval_s":2,"x":null}'
    assert decode_request(line) == WatchRequest(id=1, interval_s=2.0)


def test_missing_fields_have_their_defaults() -> None:
    """An earlier version does not send fields that came later."""
    assert decode_request(b'{"id":1,"type":"watch"}') == WatchRequest(id=1, interval_s=1.0)
    assert decode_request(b'{"type":"blocks","id":"x"}') == BlocksRequest(id="x", since=0)


def test_the_reply_to_an_unknown_type_lists_the_types() -> None:
    """The message lists the types that are answered."""
    message = refusal(b'{"type":"reboot","id":1}').message
    assert message == "request type 'reboot' is not one of blocks, bye, cancel, snapshot, stacks, tasks, waits, watch"


def test_a_long_unknown_type_is_not_repeated_in_full() -> None:
    """A reply is not made longer by what a client sends."""
    assert len(refusal(b'{"type":"' + b"x" * 60_000 + b'","id":1}').message) < 200


def test_a_refused_field_is_named() -> None:
    """The refusal gives the path of the field that is wrong."""
    assert "$.interval_s" in refusal(b'{"type":"watch","id":1,"interval_s":[]}').message


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 10_000,
        b'{"type":"snapshot","id":1,"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"type":"snapshot","id":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"type":' + b"[" * 10_000 + b"]" * 10_000 + b',"id":1}',
        b'{"type":"nope","id":1,"x":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}",
        b'{"x":' * 10_900,
        b"[" * (MAX_REQUEST_BYTES - 1),
    ],
    ids=["array", "unknown field", "id", "type", "unknown type", "object", "to the limit"],
)
def test_deep_nesting_is_survived(line: bytes) -> None:
    """The line gives a request or a refusal, and no crash, on the smaller stack of a thread too."""
    outcomes: list[Request | Error] = []
    thread = threading.Thread(target=lambda: outcomes.append(decode_or_refuse(line)))
    thread.start()
    thread.join(20)
    assert len(outcomes) == 1


def test_a_name_that_occurs_twice_does_no_harm() -> None:
    """A second id overrides the first, and a second type is refused."""
    assert decode_request(b'{"id":1,"id":2,"type":"snapshot"}') == SnapshotRequest(id=2)
    assert refusal(b'{"type":"snapshot","type":"bye","id":1}').code == "bad-request"


@settings(deadline=None)
@given(line=st.binary(max_size=200))
def test_any_line_is_a_request_or_refused(line: bytes) -> None:
    """The refusal can be sent, as one line."""
    outcome = decode_or_refuse(line)
    assert encode(outcome).count(b"\n") == 1


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_types = (
    st.sampled_from(["snapshot", "watch", "cancel", "blocks", "tasks", "stacks", "waits", "bye", "hello", "profile"])
    | _json
)


@settings(deadline=None)
@given(request=st.fixed_dictionaries({}, optional={"type": _types, "id": _json, "interval_s": _json, "since": _json}))
def test_any_object_is_a_request_or_refused(request: dict[str, Any]) -> None:
    """A refusal carries the request's id or null."""
    outcome = decode_or_refuse(json.dumps(request).encode())
    assert outcome.id == request.get("id") or (isinstance(outcome, Error) and outcome.id is None)


# --- replies -------------------------------------------------------------------------------------


def test_a_reply_of_a_later_minor_version_is_read() -> None:
    """Unknown fields are ignored at every level."""
    line = (
        b'{"type":"snapshot","id":1,"seq":2,"new":[],"worker":{"name":"w","pid":1,"colour":"red"},'
        b'"sessions":[{"session_id":"a","agent_name":"b","mood":1}]}'
    )
    message = decode_server_message(line)
    assert isinstance(message, Snapshot)
    assert message.worker == WorkerInfo(name="w", pid=1)
    assert message.sessions[0].session_id == "a"


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b"[" * 10_000, b'{"type":"error","code":"nonsense"}', b'{"type":"done","id":"\xff"}', b"220 ESMTP"],
)
def test_what_is_no_reply_is_a_protocol_error(line: bytes) -> None:
    """A line that is no message of the protocol raises ProtocolError."""
    with pytest.raises(ProtocolError, match="which is no message of this protocol"):
        decode_server_message(line)


def test_the_hello_is_read() -> None:
    """The hello of a newer minor version is read, too."""
    newer = msgspec.structs.replace(HELLO, protocol="1.7")
    assert decode_hello(encode(HELLO)) == HELLO
    assert decode_hello(encode(newer)) == newer


@pytest.mark.parametrize("rest", [b'"worker":"w","pid":1}', b'"worker":{"all":"different"}}', b"}"])
def test_another_major_version_is_reported_with_both(rest: bytes) -> None:
    """The error names both versions, whatever else has changed in the hello."""
    with pytest.raises(ProtocolError, match=rf"the worker speaks protocol 2\.4, this client {OURS}:"):
        decode_hello(b'{"type":"hello", "protocol" : "2.4",' + rest)


def test_a_worker_may_be_called_like_a_version() -> None:
    """Text in the worker's name is not read as the protocol's version."""
    named = msgspec.structs.replace(HELLO, worker='"protocol":"9.0"')
    assert decode_hello(encode(named)) == named


@pytest.mark.parametrize("line", [b'{"type":"done","id":1}', b'{"type":"hello","protocol":"one","worker":"w","pid":1}'])
def test_another_beginning_is_a_protocol_error(line: bytes) -> None:
    """The first line must be a hello with a version."""
    with pytest.raises(ProtocolError, match="instead of a hello"):
        decode_hello(line)


def test_a_refused_connection_says_why() -> None:
    """RequestFailed carries the code of the refusal."""
    with pytest.raises(RequestFailed, match="too-many-clients: 32 clients") as caught:
        decode_hello(encode(Error(code="too-many-clients", message="32 clients are connected already")))
    assert caught.value.code == "too-many-clients"
