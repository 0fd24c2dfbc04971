"""Parts of a step, each on one line of a function of its own: Python code, C code that keeps the GIL, calls that wait.

C code cannot look at the clock, so it gets an amount of work for so many seconds.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from itertools import repeat

now = time.perf_counter
Part = Callable[[float], None]
"""Runs for so many seconds; C code for about so many."""

_CALIBRATED = 400_000


def parse(seconds: float) -> None:
    ends = now() + seconds
    while now() < ends: pass  # fmt: skip  # noqa: E701


def score(seconds: float) -> None:
    ends = now() + seconds
    total = 0
    while now() < ends: total += 1  # fmt: skip  # noqa: E701


def add(seconds: float) -> None:
    amount = _amount(add, seconds)
    sum(range(amount))


def search(seconds: float) -> None:
    """Search by the operator `in`: after it, nothing gives the GIL away until the next call or loop."""
    amount = _amount(search, seconds)
    _ = 1 in repeat(0, amount)


def drain(seconds: float) -> None:
    amount = _amount(drain, seconds)
    deque(repeat(None, amount), maxlen=0)


def wait(seconds: float) -> None:
    time.sleep(seconds)


PARTS: dict[str, tuple[Part, ...]] = {
    "Python": (parse, score),
    "C with the GIL": (add, search, drain),
    "a call that waits": (wait,),
}
LINES = {
    part: part.__code__.co_firstlineno + after
    for part, after in ((parse, 2), (score, 3), (add, 2), (search, 3), (drain, 2), (wait, 1))
}
"""The line of each part at which it spends its time."""

_per_second: dict[Part, float] = {}


def calibrate() -> None:
    """Measure the pace of the parts that are C code."""
    for part in PARTS["C with the GIL"]:
        _per_second[part] = 1.0
        _per_second[part] = _CALIBRATED / min(_timed(part) for _ in range(5))


def _timed(part: Part) -> float:
    began = now()
    part(_CALIBRATED)
    return now() - began


def _amount(part: Part, seconds: float) -> int:
    return int(seconds * _per_second[part])
