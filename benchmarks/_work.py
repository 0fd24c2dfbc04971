"""Work whose true cost is known: kinds of busy code, and the account a session's task keeps of itself.

The truth is the time from a task being resumed to its yielding to the loop, read by the task itself
in its outermost frame. The busy code alone would be less than what the loop was held for: resuming
the frames, setting a timer and making a future are part of the step as well.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Coroutine, Generator
from functools import lru_cache
from types import coroutine
from typing import Any

from . import _loops

Work = Callable[[], None]
now = time.perf_counter

KINDS = ("python", "native", "sleep")
"""A loop in Python; one C call that holds the GIL; a call that releases it."""


class Held:
    """How long one task has held the loop, by its own clock."""

    __slots__ = ("seconds", "steps")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.steps = 0


@coroutine
def observed(coro: Coroutine[Any, Any, None], held: Held) -> Generator[Any, Any, None]:
    """Runs `coro`, adding to `held` how long each of its steps takes."""
    send = coro.send
    value: Any = None  # asyncio sends None, Trio what was waited for
    try:
        while True:
            began = now()
            try:
                item = send(value)
            except StopIteration:
                return
            finally:
                held.seconds += now() - began
                held.steps += 1
            value = yield item
    finally:
        coro.close()


async def keep_working(held: Held, work: Work, period_s: float, spread: random.Random | None = None) -> None:
    """`work` once per period, until cancelled; with `spread`, at irregular times."""
    await observed(_work_on(work, period_s, spread), held)


async def _work_on(work: Work, period_s: float, spread: random.Random | None) -> None:
    while True:
        began = now()
        work()
        pause = period_s * (spread.uniform(0.5, 1.5) if spread is not None else 1.0)
        await _loops.sleep(max(0.0, pause - (now() - began)))


def work(kind: str, seconds: float) -> Work:
    """Busy code of this kind that takes about this long."""
    if kind == "sleep":
        return lambda: time.sleep(seconds)
    if kind == "python":
        return lambda: spin(seconds)
    make = _NATIVE[kind]
    size = max(1, round(seconds / _seconds_each(kind)))
    return make(size)


def spin(seconds: float) -> None:
    until = now() + seconds
    while now() < until:
        pass


@lru_cache
def _seconds_each(kind: str) -> float:
    """Seconds that a unit of this kind's work takes here, in work large enough to tell."""
    size, least = 10_000, 0.0
    while least < 0.02:
        size *= 3
        run = _NATIVE[kind](size)
        least = min(_timed(run) for _ in range(3))
    return least / size


def _timed(run: Work) -> float:
    began = now()
    run()
    return now() - began


def _native(size: int) -> Work:
    return lambda: _drop(sum(range(size)))


def _sorted(size: int) -> Work:
    chooser = random.Random(size)
    values = [chooser.random() for _ in range(size)]
    return lambda: _drop(sorted(values))


def _json(size: int) -> Work:
    values = [number * 1.5 for number in range(size)]
    return lambda: _drop(json.dumps(values))


def _hashlib(size: int) -> Work:
    return lambda: _drop(hashlib.pbkdf2_hmac("sha256", b"password", b"salt", size))


def _drop(_value: object) -> None: ...


_NATIVE: dict[str, Callable[[int], Work]] = {
    "native": _native, "sorted": _sorted, "json.dumps": _json, "hashlib": _hashlib,
}  # fmt: skip
