"""Notice every Trio run that begins. Loaded only once Trio is.

A run that begins gets an instrument that Trio calls in the run, right before its first step. A run that has begun
already, as a guest of the host's code (anyio's plugin for pytest keeps one for its fixtures), is noticed at its next
turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
from trio._core import _run as trio_run

from .._base.replaced_method import Replaced

Seen = Callable[[trio.lowlevel.TrioToken], object]


def see_runs(seen: Seen) -> list[Replaced]:
    """Call `seen` in each run that begins, until what is returned is put back.

    In a guest run it is called at each turn.
    """

    def setting_up(before: Callable[..., Any] | None) -> Callable[..., Any]:
        set_up: Any = before

        def setup_runner(module: Any, clock: Any, instruments: Any, *arguments: Any, **options: Any) -> Any:
            return set_up(clock, [*instruments, _FirstStep(seen)], *arguments, **options)

        return setup_runner

    def ticking(before: Callable[..., Any] | None) -> Callable[..., Any]:
        guest_tick: Any = before

        def tick(guest: trio_run.GuestState) -> None:
            if trio.lowlevel.in_trio_run():  # between its turns it is still the run of its thread
                seen(trio.lowlevel.current_trio_token())
            guest_tick(guest)

        return tick

    replaced = [Replaced(trio_run, "setup_runner", setting_up)]
    try:
        replaced.append(Replaced(trio_run.GuestState, "guest_tick", ticking))
    except BaseException:
        replaced[0].put_back()
        raise
    return replaced


class _FirstStep(trio.abc.Instrument):
    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        trio.lowlevel.remove_instrument(self)
        self._seen(trio.lowlevel.current_trio_token())
