"""Work of known cost: kinds of busy code, and tasks that measure their steps.

The truth is the time from the moment a task is resumed until it yields to the loop. The task itself reads the clock for
it, in its outermost frame. The busy code alone would be less than the time in which the loop was held: resuming the
frames, setting a timer and making a future are part of the step as well.
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
"""A loop in Python; one C call that holds the GIL; a call that releases the GIL."""


class Held:
    """The time in which one task has held the loop, by the task's own clock."""

    __slots__ = ("seconds", "steps")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.steps = 0


@coroutine
def observed(coro: Coroutine[Any, Any, None], held: Held) -> Generator[Any, Any, None]:
    """Run `coro`, and add the length of each of its steps to `held`."""
    send = coro.send
    value: Any = None  # asyncio sends None, Trio the outcome of the wait
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


async def take_turns(count: int) -> None:
    """Do nothing in so many steps of asyncio but let other tasks take theirs."""
    for _ in range(count):
        await _yield()


@coroutine
def _yield() -> Generator[None, None, None]:
    yield


async def keep_working(held: Held, work: Work, period_s: float, spread: random.Random | None = None) -> None:
    """Do `work` once per period until cancelled; with `spread`, at irregular times."""
    await observed(_work_on(work, period_s, spread), held)


async def _work_on(work: Work, period_s: float, spread: random.Random | None) -> None:
    while True:
        began = now()
        work()
        pause = period_s * (spread.uniform(0.5, 1.5) if spread is not None else 1.0)
        await _loops.sleep(max(0.0, pause - (now() - began)))


def work(kind: str, seconds: float) -> Work:
    """Return busy code of this kind that takes about `seconds`."""
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
    """Measure the seconds for a unit of this work, in a run of 20 ms or more."""
    size, shortest = 10_000, 0.0
    while shortest < 0.02:
        size *= 3
        run = _NATIVE[kind](size)
        shortest = min(_timed(run) for _ in range(3))
    return shortest / size


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
