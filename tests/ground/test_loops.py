"""Every event loop of asyncio's interface is called by its name, and what it does not show is null, never wrong.

The truth is what the program on the loop has measured itself. A loop whose package is missing is skipped.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("loop_program.py")

HIDDEN = ("uvloop", "rloop", "zuvloop", "qasync", "QtAsyncio")
"""The loops that do not show their iterations."""
LOOPS = ("asyncio", *HIDDEN)

LATE_MS = 200.0
"""Half of the time for which the program lets nothing hold the loop.

A busy machine is late by less; the lag of a false block would be all of it.
"""

NEEDS = {"qasync": ("qasync", "PySide6"), "QtAsyncio": ("PySide6", "PySide6.QtAsyncio")}
NAMES = {"QtAsyncio": "PySide6"}


@functools.cache
def reported_by(loop: str, meter: str) -> Any:
    """Return what the program prints on this loop."""
    environ = {**os.environ, "OPENRTC_INTROSPECT_METER": meter, "QT_QPA_PLATFORM": "offscreen"}
    ran = subprocess.run([sys.executable, PROGRAM, loop], env=environ, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture(params=["c", "python"])
def meter(request: pytest.FixtureRequest) -> str:
    meter: str = request.param
    return meter


@pytest.fixture
def reported(request: pytest.FixtureRequest, meter: str) -> Any:
    loop: str = request.param
    for package in NEEDS.get(loop, (loop,)):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    return {**reported_by(loop, meter), "name": NAMES.get(loop, loop)}


def on(*loops: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("reported", loops, indirect=True)


@on(*LOOPS)
def test_a_loop_is_called_by_the_package_that_runs_it(reported: Any) -> None:
    assert reported["before"]["loop"] == reported["name"]
    assert [name for name, *_ in reported["activity"]] == [reported["name"]]


@on(*LOOPS)
def test_a_loop_that_nothing_holds_has_no_block(reported: Any) -> None:
    """Neither over nor in progress, and its lag is not the time for which nothing held it."""
    before = reported["before"]
    assert before["in_progress"] == []
    assert before["sessions"]["quiet"]["blocks"] == 0
    assert (before["lag_max_ms"] or 0.0) <= before["late_max_ms"] + LATE_MS


@on(*LOOPS)
def test_lag_is_the_longest_time_that_the_loop_was_held(reported: Any) -> None:
    """On a loop with a heartbeat, at least the beat's lateness."""
    end = reported["end"]
    assert end["lag_max_ms"] >= 1000.0 * max(seconds for _, seconds in reported["held"]) - 50.0
    assert end["lag_max_ms"] <= end["late_max_ms"] + LATE_MS


@on(*HIDDEN)
def test_what_a_loop_does_not_show_is_null(reported: Any) -> None:
    for moment in ("before", "after", "end"):
        said = reported[moment]
        assert (said["idle_pct"], said["other_pct"], said["iterations_per_s"]) == (None, None, None)
        assert {row["delayed_s"] for row in said["sessions"].values()} <= {None}
    assert {block["delayed"] for block in reported["blocks"]} == {None}
    ((_, iterations, _, asleep),) = reported["activity"]
    assert (iterations, asleep) == (None, None)


@on(*HIDDEN)
def test_lag_is_that_of_a_heartbeat(reported: Any) -> None:
    assert reported["end"]["lag_method"] == "heartbeat"


@on(*LOOPS)
def test_each_block_has_its_session_its_cause_and_its_line(reported: Any) -> None:
    """A step's block is no shorter than what held the loop; another one is the heartbeat's lateness at least."""
    lines, held = reported["lines"], dict(reported["held"])
    expected = [
        ("task waits", "busy", "sync-call", {lines["wait"]}),
        ("task computes", "busy", "cpu", set(lines["compute"])),
        ("callback waits", None, "callback", {lines["wait"]}),
        ("older task waits", "main", "sync-call", {lines["wait"]}),
    ]
    known = {lines["wait"], *lines["compute"]}
    blocks = [block for block in reported["blocks"] if block["line"] in known]
    for (what, session, cause, at), block in zip(expected, blocks, strict=True):
        if block["cause"] != "descheduled":  # the machine took the processor away
            assert (block["session"], block["cause"]) == (session, cause)
        assert block["line"] in at
        assert block["ms"] >= 1000.0 * held[what] - (50.0 if session is None else 0.0)
    # On a machine that is short of processors there are others.
    assert {block["session"] for block in reported["blocks"] if block["line"] not in known} <= {None}


@on(*LOOPS)
def test_the_stack_of_a_task_begins_in_the_task(reported: Any) -> None:
    """Not at the line that runs the loop: all frames are the program's, and the outermost is the task's."""
    for block in reported["blocks"]:
        if block["session"] is not None and block["ms"] >= 100.0:
            assert {place.partition(":")[0] for place in block["stack"]} == {PROGRAM.name}
            assert len(block["stack"]) == {"busy": 3, "main": 2}[block["session"]]


@on(*LOOPS)
def test_steps_of_a_task_that_is_older_than_the_introspector_are_exact(reported: Any) -> None:
    main = reported["after"]["sessions"]["main"]
    assert main["cpu_s"] >= dict(reported["held"])["older task waits"]
    assert main["blocks"] == 1


@on(*LOOPS)
def test_the_loop_is_restored(reported: Any) -> None:
    assert reported["restored"] == []


@on(*LOOPS)
def test_a_note_says_that_a_loop_mixes_sessions_up(reported: Any) -> None:
    """QtAsyncio runs all tasks in one context, so a variable that one task sets is set for all."""
    assert [note.partition(":")[0] for note in reported["end"]["notes"]] == (
        ["this loop runs all callbacks in one context"] if reported["name"] == "PySide6" else []
    )
