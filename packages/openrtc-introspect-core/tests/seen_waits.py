"""What tasks wait for, as a test sees it from another thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import anyio
from anyio.to_thread import run_sync

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._waits.survey import survey
from openrtc_introspect_core._waits.task_wait import wait_of
from openrtc_introspect_core._waits.tasks_waited import name_of_task
from openrtc_introspect_core.wire import WaitGroup, Waits

GENEROUS_S = 20.0


class Wait(NamedTuple):
    """What a task waits for."""

    kind: str
    what: str
    target: Any
    since: float | None
    state: str
    functions: list[str]


def all_waits(introspector: Introspector) -> dict[str, Wait]:
    """Return what each suspended task waits for, by its name. Called on another thread than the loop's."""
    seen = {}
    for loop in parts_of(introspector).loops:
        for suspended in loop.hook.suspended():
            found = wait_of(suspended)
            functions = [call.function.rpartition(".")[2] for call in found.calls]
            seen[name_of_task(suspended.task)] = Wait(
                found.kind, found.what, found.target, suspended.since, suspended.state, functions
            )
    return seen


async def wait_seen(introspector: Introspector, name: str, kind: str = "") -> Wait:
    """Return what the task of this name waits for, as soon as it waits, for something of this kind if one is given."""
    seen = await until(introspector, lambda waits: name in waits and waits[name].kind in (kind or waits[name].kind))
    return seen[name]


async def until(introspector: Introspector, holds: Callable[[dict[str, Wait]], bool]) -> dict[str, Wait]:
    """Return what all tasks wait for, as soon as this holds of it."""
    deadline = time.monotonic() + GENEROUS_S
    while True:
        seen: dict[str, Wait] = await run_sync(all_waits, introspector)
        if holds(seen) or time.monotonic() > deadline:
            return seen
        await anyio.sleep(0.01)


async def survey_of(introspector: Introspector) -> Waits:
    """Return the survey, made on another thread. A fault in it fails the test."""
    answers: list[Waits] = []
    faults: list[Exception] = []
    parts = parts_of(introspector)
    hooks, shared = [loop.hook for loop in parts.loops], parts.shared

    def ask() -> None:
        answers.append(survey(hooks, shared.places, shared.clock, shared.wall, faults.append))

    thread = threading.Thread(target=ask)
    thread.start()
    while thread.is_alive():
        await anyio.sleep(0.005)
    assert faults == []
    return answers[0]


async def group_seen(introspector: Introspector, holds: Callable[[WaitGroup], bool]) -> WaitGroup:
    """Return the group of which this holds, as soon as there is one; fail after a generous time."""
    deadline = time.monotonic() + GENEROUS_S
    while True:
        answer = await survey_of(introspector)
        for group in answer.groups:
            if holds(group):
                return group
        assert time.monotonic() < deadline, answer.groups
        await anyio.sleep(0.01)
