"""The lines about workers that do not answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from openrtc_introspect_core.black_box import LoopState
from openrtc_introspect_core.wire import Block, Snapshot
from openrtc_introspect_core.wire._messages import Meter
from openrtc_top._model.box_reading import BoxReading, DeadHere, DeadWorker
from openrtc_top._view.quantity import ago
from openrtc_top._view.unanswered import dead_line, dead_lines, frozen_line

MakeSnapshot = Callable[..., Snapshot]
MakeBlock = Callable[..., Block]
NOBODY = {"session_id": None, "agent_name": None, "location": None, "cause": None}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1.0, "0 s"), (0.9, "0 s"), (59.9, "59 s"), (60.0, "1 min"), (3599.0, "59 min"), (7200.0, "2 h"), (2e5, "2 d")],
)
def test_ago(seconds: float, text: str) -> None:
    """In one unit, never more than has passed."""
    assert ago(seconds) == text


def reading(snapshot: Snapshot, **fields: Any) -> BoxReading:
    return BoxReading(box="/b", worker="w", pid=7, alive=True, now=1009.0, at=1009.0, snapshot=snapshot, **fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "job-c1d550 has held the loop for 8.2 s at agents/restaurant.py:42 in lookup_menu (sync-call)"),
        ({**NOBODY, "task_name": "main"}, "task main has held the loop for 8.2 s"),
        (NOBODY, "its loop has been held for 8.2 s"),
    ],
)
def test_frozen(fields: dict[str, Any], said: str, make_snapshot: MakeSnapshot, make_block: MakeBlock) -> None:
    """Who holds the loop, as far as it is known; nobody is guessed."""
    told = reading(make_snapshot(blocks=[make_block(duration_ms=8200.0, **fields)]), loops=[LoopState(state="held")])
    assert frozen_line("voice-a", told) == f"voice-a pid 7 does not answer: {said}; the rest is as of 9 s ago"


def test_a_worker_that_is_silent(make_snapshot: MakeSnapshot) -> None:
    """Its loop is free, or it has not come to write anything."""
    text = frozen_line("w", reading(make_snapshot(), loops=[LoopState()]))
    assert text == "w pid 7 does not answer: its black box says no more than what it did; the rest is as of 9 s ago"
    assert frozen_line("w", reading(make_snapshot(), recorded=False)).endswith("; nothing else is known of it")


BLIND = "no thread of it can look while C code keeps the GIL"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "job-c1d550 had held the loop for 900 ms at agents/restaurant.py:42 in lookup_menu (sync-call)"),
        (NOBODY, "its loop had been held for 900 ms"),
    ],
)
@pytest.mark.parametrize(("meter", "why"), [("Python", f"{BLIND}, and the meter in C can"), ("C", BLIND)])
def test_a_worker_in_which_nothing_could_look(
    fields: dict[str, Any], said: str, meter: Meter, why: str, make_snapshot: MakeSnapshot, make_block: MakeBlock
) -> None:
    """What it saw is as of its last look; that it is so still is not claimed."""

    def line(*blocks: Block) -> str:
        told = make_snapshot(blocks=blocks)
        told = structs.replace(told, worker=structs.replace(told.worker, meter=meter))
        return frozen_line("w", reading(told))

    block = make_block(duration_ms=900.0, **fields)
    assert line(block) == f"w pid 7 does not answer: {said} at the last look, 9 s ago: {why}"
    assert line() == (
        f"w pid 7 does not answer: its black box says no more than what it did: {why}; the rest is as of 9 s ago"
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "while job-c1d550 held the loop for 8.2 s at agents/restaurant.py:42 in lookup_menu"),
        (NOBODY, "while its loop was held for 8.2 s"),
    ],
)
def test_dead(fields: dict[str, Any], said: str, make_block: MakeBlock) -> None:
    """The command that says more is one that a shell takes as it is."""
    held = make_block(duration_ms=8200.0, **fields)
    line = dead_line(DeadHere(None, DeadWorker(box="/b", name="eu west", pid=7, age_s=61.0, held=held)))
    text = "".join(text for text, _, _ in line.segments)
    assert text == f"eu west pid 7 died 1 min ago {said}: openrtc postmortem 'eu west'"


@pytest.mark.parametrize(
    ("vias", "user", "said"),
    [
        (["ssh voice-3"], None, "openrtc postmortem --via 'ssh voice-3'"),
        (["env"], None, "openrtc postmortem --via env"),
        (["ssh voice-3", "ssh voice-4"], None, "openrtc postmortem --via …"),
        (["ssh voice-3", None], None, "openrtc postmortem --via …"),
        ([None], "alice", "openrtc postmortem --all-users"),
        (["ssh voice-3"], "alice", "openrtc postmortem --via 'ssh voice-3'"),
    ],
)
def test_dead_elsewhere(vias: list[str | None], user: str | None, said: str) -> None:
    """The command finds its box there: it has the `--via` of that host, or what makes root see another user's."""
    dead = [
        DeadHere(via and "voice", DeadWorker(box="/b", name="eu", pid=7, age_s=61.0, user=user), via) for via in vias
    ]
    texts = ["".join(text for text, _, _ in line.segments) for line in dead_lines(dead, 8)]
    if len(dead) == 1:
        assert texts[0].endswith(f" died 1 min ago: {said} eu")
    alike = "".join(text for text, _, _ in dead_lines(dead * 2, 1)[0].segments)
    assert alike == f"{2 * len(dead)} workers died, the last one 1 min ago: {said}"
