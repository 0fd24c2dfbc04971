"""A recording's lines: what is written down, and that it is read as it was."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from openrtc_introspect_core.wire import Block, Snapshot
from openrtc_top._model.box_reading import BoxReading
from openrtc_top._model.events import Blocked, Dropped, Event, Found, Frame, Gone, Key, Tick, Unanswered
from openrtc_top._recording.lines import NotARecording, Reader, Scribe, epoch_of, read_entry, read_first

DOCS = Path(__file__).parents[4] / "docs" / "recordings.md"
EXAMPLES = [
    line
    for block in re.findall(r"^```json\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
KEY = "/run/user/1000/openrtc-1000/voice-a-41213.sock"


def test_events_come_back_as_they_were(
    make_snapshot: Callable[..., Snapshot], make_past: Callable[..., Block], make_block: Callable[..., Block]
) -> None:
    """Workers, snapshots with their blocks in progress, blocks, losses, in the order they came."""
    events: list[Event] = [
        Found("b", "chat", None, "voice-3"),
        Found("a", "voice-a", 7),
        Frame("a", make_snapshot(blocks=[make_block()])),
        Blocked("a", [make_past(1), make_past(2)]),
        Gone("b", "it does not answer"),
        Dropped("b"),
        Frame("a", make_snapshot(taken_at=1001.0)),
    ]
    scribe, reader = Scribe(), Reader()
    entries = [read_entry(scribe.line(event, 5.0 + at)) for at, event in enumerate(events)]
    assert [entry.at for entry in entries if entry] == [5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]
    assert [reader.event(entry) for entry in entries if entry] == events
    assert (scribe.frames, scribe.heard) == (2, {"a"})


def test_what_is_no_news_is_left_out(make_snapshot: Callable[..., Snapshot]) -> None:
    """A worker that stays gone is written down once; keys and the clock are not."""
    scribe = Scribe()
    scribe.line(Found("a", "voice-a"), 0.0)
    gone = Gone("a", "it does not answer", 0.5)
    lines = [scribe.line(event, 1.0) for event in (gone, gone, Gone("a", "its socket is gone"), Key("q"), Tick(1.0))]
    assert [bool(line) for line in lines] == [True, False, True, False, False]
    scribe.line(Frame("a", make_snapshot()), 2.0)
    assert scribe.line(gone, 3.0)


def test_a_worker_gets_a_number_of_its_own() -> None:
    """Also after another was dropped."""
    scribe = Scribe()
    for event in (Found("a", "a"), Found("b", "b"), Dropped("a")):
        scribe.line(event, 0.0)
    assert json.loads(scribe.line(Found("c", "c"), 0.0))["worker"] > 2
    assert json.loads(scribe.line(Found("b", "b"), 0.0))["worker"] == 2


def test_examples_of_the_docs() -> None:
    """Are what is written, to the letter."""
    scribe = Scribe()
    head = read_first(EXAMPLES[0].encode())
    assert json.loads(scribe.begin(head.at, head.interval_s)) | {"version": "0.1.0"} == json.loads(EXAMPLES[0])
    events = [
        Found(KEY, "voice-a", 41213),
        Blocked(KEY, []),
        Gone(KEY, "it closed the connection"),
        Dropped(KEY),
    ]
    moments = [1760000000.25, 1760000000.5, 1760000001.0, 1760000002.0]
    written = [scribe.line(event, at).decode() for event, at in zip(events, moments, strict=True)]
    assert [*written, scribe.end(1760000003.0).decode()] == [line + "\n" for line in EXAMPLES[1:]]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "is no recording"),
        (b"root:x:0:0\n", "is no recording"),
        (b'{"type":"hello"}\n', "is no recording"),
        (b'{"type":"recording","format":"2.0"}\n', "of format 2, this version reads 1"),
        (b'{"type":"recording","format":"1.0"', "whose first line is broken"),
    ],
)
def test_what_is_no_recording(line: bytes, why: str) -> None:
    """It is neither one that is too new, nor one that is broken."""
    with pytest.raises(NotARecording, match=why):
        read_first(line)


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"message","at":1.0,"worker":9,"message":{"type":"blocks","id":0}}',
        b'{"type":"message","at":1.0,"worker":1,"message":{"type":"weather","id":0}}',
        b'{"type":"message","at":1.0,"worker":1,"message":{"type":"done","id":0}}',
        b'{"type":"weather","at":1.0,"worker":1,"sun":true}',
    ],
)
def test_what_a_later_version_may_write(line: bytes) -> None:
    """Is passed over: unknown types, numbers that nobody was given."""
    reader = Reader()
    first = read_entry(b'{"type":"worker","at":0.5,"worker":1,"key":"a","name":"a","new":[]}')
    assert first is not None
    assert reader.event(first) == Found("a", "a")
    entry = read_entry(line)
    assert entry is not None
    assert reader.event(entry) is None
    assert epoch_of(entry) is None


@pytest.mark.parametrize("line", [b'{"type":"message","at":1.0,"mess', b"[]", b"\xff", b"[" * 10_000, b'{"at":1.0}'])
def test_a_broken_line(line: bytes) -> None:
    """It is skipped."""
    assert read_entry(line) is None


def test_what_a_black_box_says_is_recorded_as_a_snapshot(
    make_snapshot: Callable[..., Snapshot], make_block: Callable[..., Block]
) -> None:
    """If the worker is frozen; a worker that is only slow has its own snapshot soon."""

    def unanswered(snapshot: Snapshot) -> Unanswered:
        reading = BoxReading(box="/b", worker="a", pid=7, alive=True, now=1009.0, at=1009.0, snapshot=snapshot)
        return Unanswered("a", reading)

    held = make_snapshot(blocks=[make_block(duration_ms=8200.0)])
    scribe, reader = Scribe(), Reader()
    lines = [scribe.line(event, 5.0) for event in (Found("a", "a"), unanswered(make_snapshot()), unanswered(held))]
    assert lines[1] == b""
    events = [reader.event(entry) for line in (lines[0], lines[2]) if (entry := read_entry(line)) is not None]
    assert events[1] == Frame("a", held)
    assert scribe.frames == 1
