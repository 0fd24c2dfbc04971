"""The clock of the meter in C is time.perf_counter."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from openrtc_introspect_core._accounting.ledger import Ledger
from openrtc_introspect_core._native import native
from openrtc_introspect_testing._loops.fake_clock import FakeClock

pytestmark = pytest.mark.skipif(native is None, reason="the meter in C is not installed")

TOLERANCE_S = 20e-6
"""Seconds by which the processor's counter may be off before it is set right."""


@pytest.fixture(params=[True, False], ids=["counter", "no counter"])
def counts(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Have ledgers read the processor's counter, or not."""
    before = native.ticks(request.param)
    if request.param and not native.ticks(None):
        pytest.skip("the kernel does not keep its clock by the processor's counter")
    yield request.param
    native.ticks(before)


def ledger_of(clock: Any) -> Ledger:
    return Ledger(ContextVar("binding"), clock, 60.0)


def test_it_shows_the_time_of_perf_counter(counts: bool) -> None:
    """At any moment: right after the first reading, and while the counter is set right again and again."""
    ledger = ledger_of(time.perf_counter)
    until = time.perf_counter() + 0.1
    while time.perf_counter() < until:
        before = time.perf_counter()
        now = native.now(ledger)
        after = time.perf_counter()
        assert before - TOLERANCE_S <= now <= after + TOLERANCE_S


def test_it_does_not_drift_while_nobody_reads_it(counts: bool) -> None:
    """A reading after a pause is right."""
    ledger = ledger_of(time.perf_counter)
    for pause in (0.0, 0.002, 0.02, 0.2):
        native.now(ledger)
        time.sleep(pause)
        before = time.perf_counter()
        now = native.now(ledger)
        assert before - TOLERANCE_S <= now <= time.perf_counter() + TOLERANCE_S


def test_any_other_clock_is_called() -> None:
    """A fake clock shows what it is set to."""
    clock = FakeClock()
    ledger = ledger_of(clock)
    first = native.now(ledger)
    clock.advance(5.0)
    assert native.now(ledger) - first == 5.0


def test_an_error_of_a_clock_is_its_own() -> None:
    """It is raised as it is."""

    def broken() -> float:
        raise LookupError("no time")

    ledger = ledger_of(FakeClock())
    ledger.clock = broken
    with pytest.raises(LookupError, match="no time"):
        native.now(ledger)


def test_what_is_no_ledger_has_no_clock() -> None:
    """The error says what is accepted."""
    with pytest.raises(TypeError, match="takes a ledger"):
        native.now(object())
