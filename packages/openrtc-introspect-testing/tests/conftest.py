"""What the tests of this package share: a measurement that is taken again on a busy machine."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

WITHIN_S = 60.0
"""Seconds for which a measurement is taken again: a machine that is busy with something else disturbs some of them."""


def measured(once: Callable[[], float], is_good: Callable[[float], bool]) -> list[float]:
    """Measure until a value is good, or for WITHIN_S seconds; return all values, the last one last."""
    deadline = time.monotonic() + WITHIN_S
    values = [once()]
    while not is_good(values[-1]) and time.monotonic() < deadline:
        values.append(once())
    return values


@pytest.fixture(name="measured")
def measured_() -> Callable[[Callable[[], float], Callable[[float], bool]], list[float]]:
    return measured
