"""The wire and the black box take any bytes: random ones, and all inputs that coverage-guided runs have found."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrtc_introspect_testing._workers.golden_frames import golden_frames, refused_lines

if sys.platform == "win32":
    pytest.skip("serves no socket", allow_module_level=True)


def _targets() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_targets", Path(__file__).with_name("targets.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


targets = _targets()

# Lines that are nearly right reach further than noise does.
_known = [frame.line.rstrip(b"\n") for frame in golden_frames] + [refused.line for refused in refused_lines]
_line = st.one_of(st.sampled_from(_known), st.binary(max_size=80))


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    line = bytearray(draw(_line))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(line)))
        line[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(line)


_fields = ("at", "state", "since", "threads", "memory", "blocks", "snapshot", "stack", "worker", "pid", "sections", "x")
_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(_fields), inner, min_size=1, max_size=5)
    ),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode())

_stream = st.lists(_mutated(), max_size=6).map(b"\n".join)
_quietly = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


@_quietly
@given(size=st.binary(min_size=1, max_size=1), stream=_stream)
def test_any_stream_is_cut_the_same_in_any_pieces(size: bytes, stream: bytes) -> None:
    """The lines do not depend on the pieces, and neither does the limit on their length."""
    targets.lines(size + stream)


@_quietly
@given(line=_mutated())
def test_any_line_is_a_request_or_refused(line: bytes) -> None:
    """A request survives encoding and decoding, and a refusal can be sent."""
    targets.request(line)


@_quietly
@given(line=_mutated())
def test_any_line_of_a_worker_is_a_message_or_a_protocol_error(line: bytes) -> None:
    """Nothing else comes out of the decoder, except a refusal as the first line."""
    targets.reply(line)


@_quietly
@given(size=st.binary(min_size=1, max_size=1), stream=_stream)
def test_any_conversation_is_answered_line_by_line(size: bytes, stream: bytes) -> None:
    """Each line gets a reply or begins a watch, and the connection ends when the client has left."""
    targets.conversation(size + stream)


@settings(_quietly, max_examples=60)
@given(size=st.binary(min_size=1, max_size=1), stream=_stream)
def test_any_conversation_over_a_socket_is_answered_too(size: bytes, stream: bytes) -> None:
    """Each line gets a reply unless the server closes first, and the server ends with its client."""
    targets.served(size + stream)


@_quietly
@given(kind=st.integers(0, 5), data=st.one_of(st.binary(max_size=90), _json))
def test_any_box_is_read_or_an_error(kind: int, data: bytes) -> None:
    """Whatever its header, its records and the rest are."""
    targets.box(bytes([kind]) + data)


@pytest.mark.parametrize("target", targets.TARGETS)
def test_what_was_found_before_is_harmless(target: str) -> None:
    """Each input that a coverage-guided run has kept passes its target."""
    kept = targets.corpus(target)
    assert len(kept) >= 10
    for data in kept:
        targets.TARGETS[target](data)
