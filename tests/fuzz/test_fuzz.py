"""The wire against any bytes: at random here, and with all that coverage-guided runs have found."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrtc_introspect_testing._frames import golden_frames, refused_lines

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


_stream = st.lists(_mutated(), max_size=6).map(b"\n".join)
_quietly = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


@_quietly
@given(size=st.binary(min_size=1, max_size=1), stream=_stream)
def test_any_stream_is_cut_the_same_in_any_pieces(size: bytes, stream: bytes) -> None:
    """Lines and lines that are too long."""
    targets.lines(size + stream)


@_quietly
@given(line=_mutated())
def test_any_line_is_a_request_or_refused(line: bytes) -> None:
    """And the refusal can be sent."""
    targets.request(line)


@_quietly
@given(line=_mutated())
def test_any_line_of_a_worker_is_a_message_or_a_protocol_error(line: bytes) -> None:
    """Nothing else comes out of the decoder."""
    targets.reply(line)


@settings(_quietly, max_examples=60)
@given(size=st.binary(min_size=1, max_size=1), stream=_stream)
def test_any_conversation_is_answered_line_by_line(size: bytes, stream: bytes) -> None:
    """And the connection ends when the client has left."""
    targets.conversation(size + stream)


@pytest.mark.parametrize("target", targets.TARGETS)
def test_what_was_found_before_is_harmless(target: str) -> None:
    """Each input that a coverage-guided run has kept."""
    kept = targets.corpus(target)
    assert len(kept) >= 10
    for data in kept:
        targets.TARGETS[target](data)
