"""Notice every Trio run that begins. Loaded only once Trio is.

A run that begins gets an instrument that Trio calls in the run, right before its first step. A run that has begun
already, as a guest of the code under test (anyio's plugin keeps one for its fixtures), is noticed at its next turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio._core import _run as trio_run

Seen = Callable[[trio.lowlevel.TrioToken], object]


def see_runs(patch: pytest.MonkeyPatch, seen: Seen) -> None:
    """Call `seen` in each run that begins, until `patch` is undone.

    In a guest run it is called at each turn.
    """
    set_up, guest_tick = trio_run.setup_runner, trio_run.GuestState.guest_tick

    def setup_runner(clock: Any, instruments: Any, *arguments: Any, **options: Any) -> trio_run.Runner:
        return set_up(clock, [*instruments, _FirstStep(seen)], *arguments, **options)

    def tick(guest: trio_run.GuestState) -> None:
        if trio.lowlevel.in_trio_run():  # between its turns it is still the run of its thread
            seen(trio.lowlevel.current_trio_token())
        guest_tick(guest)

    patch.setattr(trio_run, "setup_runner", setup_runner)
    patch.setattr(trio_run.GuestState, "guest_tick", tick)


class _FirstStep(trio.abc.Instrument):
    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        trio.lowlevel.remove_instrument(self)
        self._seen(trio.lowlevel.current_trio_token())
