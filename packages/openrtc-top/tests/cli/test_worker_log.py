"""What becomes of the workers that a command follows is told on stderr, each change once."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from openrtc_introspect_core.wire import Block, Snapshot
from openrtc_top._cli.worker_log import WorkerLog
from openrtc_top._model.box_reading import BoxReading
from openrtc_top._model.events import Dropped, Event, Found, Frame, Gone, Listed, Unanswered

MakeSnapshot = Callable[..., Snapshot]


def reading(snapshot: Snapshot) -> BoxReading:
    return BoxReading(box="/b", worker="voice-a", pid=7, alive=True, now=1009.0, at=1009.0, snapshot=snapshot)


def told(capsys: pytest.CaptureFixture[str], *events: Event) -> list[str]:
    log = WorkerLog()
    for event in events:
        log.take(event)
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_a_worker_that_is_lost_and_comes_back(make_snapshot: MakeSnapshot, capsys: pytest.CaptureFixture[str]) -> None:
    """However often it is tried meanwhile."""
    gone = Gone("w", "it closed the connection", 0.5)
    events = [Found("w", "voice-a", 7), gone, gone, *[Frame("w", make_snapshot())] * 2, gone]
    lost = "voice-a: it closed the connection; trying again"
    assert told(capsys, *events) == [lost, "voice-a: connected again", lost]


def test_a_worker_that_is_frozen_and_goes_on(make_snapshot: MakeSnapshot, capsys: pytest.CaptureFixture[str]) -> None:
    """If its black box says what holds its loop."""
    held = Block(seq=0, session_id="job-1", started_at=1000.0, duration_ms=8200.0, in_progress=True)
    quiet = Unanswered("w", reading(make_snapshot()))
    frozen = Unanswered("w", reading(msgspec.structs.replace(make_snapshot(), blocks_in_progress=[held])))
    first, last = told(capsys, Found("w", "voice-a", 7), quiet, frozen, frozen, Frame("w", make_snapshot()))
    assert first.startswith("voice-a pid 7 does not answer: job-1 had held the loop for 8.2 s ")
    assert last == "voice-a: answers again"


def test_two_workers_of_one_name_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """By their process ids; those of another host have its name."""
    found = [Found("a", "voice", 7), Found("b", "voice", 8), Found("c", "voice", 9, "web-1")]
    gone = [Gone(key, "no connection", 0.5) for key in "abc"]
    assert told(capsys, *found, *gone) == [
        "voice pid 7: no connection; trying again",
        "voice pid 8: no connection; trying again",
        "web-1:voice: no connection; trying again",
    ]


def test_one_that_is_dropped_is_forgotten(capsys: pytest.CaptureFixture[str]) -> None:
    """The other one of its name needs no process id then, and it is told anew if it is found again."""
    gone = Gone("b", "no connection", 0.5)
    events = [Found("a", "voice", 7), Found("b", "voice", 8), Dropped("a"), gone, Dropped("b"), Dropped("b")]
    line = "voice: no connection; trying again"
    assert told(capsys, *events, Found("b", "voice", 8), gone) == [line, line]


def test_hosts_that_cannot_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Why; and nothing when they can again."""
    assert told(capsys, Listed("sh: it ended with exit code 7"), Listed(None)) == [
        "--via-each: sh: it ended with exit code 7"
    ]
