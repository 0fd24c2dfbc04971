"""The waits that were seen in a span that holds the loop."""

from __future__ import annotations

from typing import Any, cast

from openrtc_introspect_core._blocks.waits_of_blocks import INTERVAL_S, NOTHING, WaitsOfBlocks
from openrtc_introspect_core._waits.blocked_loop import BlockedLoop, LoopWait

LOCK, EVENT = LoopWait("threading.Lock (lock)", None), LoopWait("a threading.Event", None)


class Scripted:
    """A loop's thread that waits for one thing after the other."""

    def __init__(self, *waits: LoopWait | None) -> None:
        self._waits = list(waits)

    def look(self) -> LoopWait | None:
        return self._waits.pop(0)


def waits_of(*waits: LoopWait | None) -> WaitsOfBlocks:
    return WaitsOfBlocks(cast(BlockedLoop, cast(Any, Scripted(*waits))))


def test_a_block_in_progress_has_what_it_waits_for_now() -> None:
    waits = waits_of(LOCK, None)
    waits.see(1.0, 1.1)
    assert waits.of(1.0, "sync-call", over=False) == LOCK
    waits.see(1.0, 1.2 + INTERVAL_S)
    assert waits.of(1.0, "sync-call", over=False) == NOTHING


def test_a_block_that_is_over_has_what_it_waited_for_last() -> None:
    waits = waits_of(EVENT, LOCK, None)
    for number in range(3):
        waits.see(1.0, 1.1 + number * (INTERVAL_S + 0.1))
    assert waits.of(1.0, "sync-call", over=True) == LOCK


def test_it_looks_again_only_after_a_while() -> None:
    waits = waits_of(LOCK, EVENT)
    for now in (1.1, 1.2, 1.3):
        waits.see(1.0, now)
    assert waits.of(1.0, "sync-call", over=False) == LOCK


def test_a_step_that_has_ended_keeps_its_wait_while_its_iteration_is_looked_at() -> None:
    """The watchdog may do so before the step's block is recorded."""
    waits = waits_of(LOCK, None)
    waits.see(1.0, 1.1)
    waits.see(0.9, 1.2)
    assert waits.of(1.0, "sync-call", over=True) == LOCK
    assert waits.of(0.9, "callback", over=True) == NOTHING


def test_a_span_that_was_not_looked_at_has_no_wait() -> None:
    waits = waits_of(LOCK)
    waits.see(1.0, 1.1)
    assert waits.of(2.0, "sync-call", over=True) == NOTHING


def test_a_block_of_another_cause_has_no_wait() -> None:
    waits = waits_of(LOCK)
    waits.see(1.0, 1.1)
    assert waits.of(1.0, "cpu", over=True) == NOTHING
