"""A program whose steps hold the loop in real time. It prints its blocks, and the line at which each spent its time."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._blocks.stall_thread import blind
from openrtc_introspect_core._native import meter

AMOUNT = 2_000_000
LONG_S = 0.7


def compute(seconds: float) -> None:
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        pass


@functools.cache
def per_s() -> float:
    """Return how many numbers C code adds in a second."""

    def pace() -> float:
        began = time.perf_counter()
        sum(range(AMOUNT))
        return AMOUNT / (time.perf_counter() - began)

    return max(pace() for _ in range(8))


def small_call() -> None:
    sum(range(int(0.08 * per_s())))


def long_call() -> None:
    sum(range(int(LONG_S * per_s())))


def waits_with_the_gil() -> None:
    ctypes.PyDLL(None).usleep(int(LONG_S * 1e6))


def waits() -> None:
    time.sleep(0.3)


STEPS: dict[str, Callable[[], Any]] = {
    "Python for 30 ms, then C": lambda: (compute(0.03), long_call()),
    "Python for 100 ms, then C": lambda: (compute(0.1), long_call()),
    "Python for 250 ms, then C": lambda: (compute(0.25), long_call()),
    "a small C call, then C": lambda: (small_call(), long_call()),
    "C, then Python for 100 ms": lambda: (long_call(), compute(0.1)),
    "C, then Python for 250 ms": lambda: (long_call(), compute(0.25)),
    "a wait of 100 ms, then C": lambda: (time.sleep(0.1), long_call()),
    "C": lambda: (long_call(),),
    "C that waits": lambda: (waits_with_the_gil(),),
}


async def healthy(introspector: Introspector) -> None:
    with introspector.session("healthy", agent_name="a"):
        while True:
            await asyncio.sleep(0.02)


async def steps() -> dict[str, Any]:
    """Each step is of a session of its own, beside a healthy one."""
    per_s()  # measured before the first step, which would be longer
    async with Introspector(socket_path=False) as introspector:
        other = asyncio.create_task(healthy(introspector))
        for name, step in STEPS.items():
            with introspector.session(name, agent_name="a"):

                async def turn(step: Callable[[], Any] = step) -> None:
                    await asyncio.sleep(0.1)
                    step()

                await asyncio.create_task(turn())
        await asyncio.sleep(0.05)
        other.cancel()
        return found(introspector)


async def no_session() -> dict[str, Any]:
    """The step that starts introspection, the main task later, an untagged task."""
    async with Introspector(socket_path=False) as introspector:
        waits()
        await asyncio.sleep(0.6)
        waits()
        await asyncio.sleep(0.01)

        async def untagged() -> None:
            await asyncio.sleep(0.3)
            waits()

        await asyncio.create_task(untagged(), name="untagged")
        await asyncio.sleep(0.01)
        return found(introspector)


def found(introspector: Introspector) -> dict[str, Any]:
    functions = (long_call, waits_with_the_gil, waits)
    return {
        "meter": meter,
        "blind": blind() is not None,
        "lines": {function.__name__: function.__code__.co_firstlineno + 1 for function in functions},
        "blocks": [
            {
                "session": block.session_id,
                "task": block.task_name,
                "ms": block.duration_ms,
                "cause": block.cause,
                "detail": block.detail,
                "line": block.location.line if block.location is not None else None,
                "stack": [location.function for location in block.stack],
            }
            for block in introspector.blocks()
        ],
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run({"steps": steps, "no_session": no_session}[sys.argv[1]]())))
