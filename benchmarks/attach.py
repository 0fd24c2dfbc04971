"""The cost of attaching to a short loop and closing, as test suites do.

A short loop is made, runs one step and is closed: without introspection, with it, and watched by the pytest plugin. The
three take turns in one process, so that other work of the machine affects all of them. The first rounds, which load
modules and start our threads, do not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from . import _loops
from ._case import Case, Result, Results, Row, value

WARM_UP = 10


def cases(quick: bool) -> list[Case]:
    rounds = 40 if quick else 400
    found = []
    for loop in _loops.WITH_TRIO:
        needs = _loops.needs(loop)
        for name, socket in (("no socket", False), ("a socket", None)):
            arguments = {"loop": loop, "socket": socket, "rounds": rounds}
            found.append(Case(f"{loop} {name}", measure, arguments, needs=needs))
        arguments = {"loop": loop, "rounds": rounds}
        found.append(Case(f"{loop} plugin", measure_plugin, arguments, needs=(*needs, "pytest")))
    return found


def measure(loop: str, socket: Any, rounds: int) -> Result:
    """Measure attaching and closing, and a short loop with and without, in ms.

    The times are those of the loop's own thread.
    """
    from openrtc_introspect_core import Introspector

    attached: list[float] = []
    closed: list[float] = []

    async def introspected() -> None:
        began = time.perf_counter()
        introspector = Introspector(name="bench", socket_path=socket)
        introspector.attach()
        attached.append(time.perf_counter() - began)
        await _loops.sleep(0)
        began = time.perf_counter()
        await introspector.aclose()
        closed.append(time.perf_counter() - began)

    result = _take_turns(rounds, lambda: _loops.run(loop, _nothing()), lambda: _loops.run(loop, introspected()))
    steady = [1000.0 * (one + other) for one, other in zip(attached[WARM_UP:], closed[WARM_UP:], strict=True)]
    return {"attach_and_close_ms": median(steady), "attach_ms": 1000.0 * median(attached[WARM_UP:]), **result}


def measure_plugin(loop: str, rounds: int) -> Result:
    """Measure a short loop with and without the pytest plugin, in milliseconds."""
    from openrtc_introspect_testing._suite.loop_attacher import LoopAttacher

    def watched() -> None:
        with LoopAttacher(60_000.0, Path.cwd()) as attacher:
            _loops.run(loop, _nothing())
        assert attacher.loops == 1, attacher.faults

    return _take_turns(rounds, lambda: _loops.run(loop, _nothing()), watched)


async def _nothing() -> None:
    await _loops.sleep(0)


def _take_turns(rounds: int, plain: Callable[[], Any], introspected: Callable[[], Any]) -> Result:
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(WARM_UP + rounds):
        for run, taken in zip((plain, introspected), times, strict=True):
            began = time.perf_counter()
            run()
            taken.append(1000.0 * (time.perf_counter() - began))
    before, after = (median(taken[WARM_UP:]) for taken in times)
    return {"plain_ms": before, "introspected_ms": after, "ratio": after / before}


def rows(results: Results) -> list[Row]:
    found = []
    for loop in _loops.WITH_TRIO:
        for name in ("no socket", "a socket"):
            case = f"{loop} {name}"
            found.append(
                Row(f"{loop}, attach and close, {name}", value(results, case, "attach_and_close_ms"), "ms", must=1.0)
            )
            found.append(Row(f"{loop}, a short loop / plain, {name}", value(results, case, "ratio"), "×"))
        plugin = f"{loop} plugin"
        found.append(
            Row(f"{loop}, a short loop / plain, under the pytest plugin", value(results, plugin, "ratio"), "×")
        )
        found.append(Row(f"{loop}, a short loop, plain", value(results, plugin, "plain_ms"), "ms"))
    return found
