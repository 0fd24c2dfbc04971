"""Profilers, tracers and coverage under metering: they see what they see without it, and are charged to who has them.

Each runs in a process of its own, because it patches the process.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("instrumented.py")

WRAPPERS = {"sentry": "sentry_sdk", "ddtrace": "ddtrace", "opentelemetry": "opentelemetry.instrumentation.asyncio"}
"""The instruments that hold the loop in the session's tasks themselves, and their modules."""
PROFILERS = ("yappi", "viztracer", "pyinstrument")
HELD_S = 0.1
MACHINE_S = ("descheduled", "import")
"""Causes of blocks that are the machine's, or of the instrument that is loaded after introspection."""

both_meters = pytest.mark.parametrize("meter", ["C", "Python"])
both_orders = pytest.mark.parametrize("order", ["first", "after"])


@functools.cache
def found(instrument: str, order: str, meter: str = "C", *more: str, core: str = "") -> dict[str, Any]:
    """Return what the program prints. core: of coverage's ways to measure, the one to use."""
    pytest.importorskip(WRAPPERS.get(instrument, instrument))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment["OPENRTC_INTROSPECT_METER"] = "" if meter == "C" else "python"
    if core:
        environment["COVERAGE_CORE"] = core
    done = subprocess.run(
        [sys.executable, str(PROGRAM), instrument, order, *more],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def of_the_host(seen: dict[str, Any]) -> list[Any]:
    return [seen[name] for name in ("result", "error", "names")]


@both_meters
@both_orders
@pytest.mark.parametrize("instrument", WRAPPERS)
def test_what_a_wrapper_does_in_the_session_s_tasks_is_the_session_s(instrument: str, order: str, meter: str) -> None:
    """Whether it was there before introspection or came later. Its blocks are the session's, too."""
    seen = found(instrument, order, meter)
    own_s = seen["held_s"] - HELD_S
    assert own_s >= 0.05
    assert seen["cpu_s"] >= seen["held_s"]
    assert {session for session, cause in seen["blocks"] if cause not in MACHINE_S} <= {"s"}, seen["blocks"]


@both_meters
@both_orders
@pytest.mark.parametrize("instrument", [*WRAPPERS, *PROFILERS, "coverage"])
def test_the_host_sees_what_it_sees_without_us(instrument: str, order: str, meter: str) -> None:
    """Results, errors and the names of tasks, which sentry-sdk changes on Python 3.14 and not on 3.13.

    The numbers of unnamed tasks do not count: the program with introspection makes one task more.
    """
    without, seen = found(instrument, "without"), found(instrument, order, meter)
    named = [[name.rstrip("0123456789") for name in each["names"][:2]] for each in (without, seen)]
    assert named[0] == named[1]
    assert of_the_host(seen)[:2] == of_the_host(without)[:2]


@both_meters
@both_orders
def test_sentry_sdk_sends_the_error_of_a_metered_task(order: str, meter: str) -> None:
    """Once."""
    assert found("sentry", order, meter)["found"] == found("sentry", "without")["found"] == 1


@both_meters
@both_orders
def test_ddtrace_begins_each_metered_task(order: str, meter: str) -> None:
    """It wraps the three coroutines of the session's tasks."""
    assert found("ddtrace", order, meter)["found"] >= 3


@both_meters
@both_orders
def test_opentelemetry_traces_a_metered_coroutine(order: str, meter: str) -> None:
    """It has one span, of the coroutine's name."""
    assert found("opentelemetry", order, meter)["found"] == found("opentelemetry", "without")["found"] != []


@both_meters
@both_orders
@pytest.mark.parametrize("instrument", PROFILERS)
def test_a_profiler_has_the_functions_of_a_metered_coroutine(instrument: str, order: str, meter: str) -> None:
    """With their time, and yappi with their calls: one of each."""
    for name, figures in found(instrument, order, meter)["found"].items():
        calls, seconds = figures if isinstance(figures, list) else (1, figures)
        assert (name, calls) in {("work", 1), ("inner", 1), ("held", 1)}
        assert seconds >= 0.9 * HELD_S


@both_meters
@both_orders
@pytest.mark.parametrize("core", ["ctrace", "sysmon"])
def test_coverage_has_the_lines_of_a_metered_coroutine(core: str, order: str, meter: str) -> None:
    """By either of its ways to measure."""
    if core == "sysmon" and sys.version_info < (3, 12):
        pytest.skip("sys.monitoring came with Python 3.12")
    seen, without = found("coverage", order, meter, core=core), found("coverage", "without", core=core)
    assert seen["found"] == without["found"]
    assert len(seen["found"][1]) >= 5
