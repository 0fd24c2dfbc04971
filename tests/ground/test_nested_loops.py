"""nest_asyncio and nest-asyncio2: a task that runs the loop in the middle of its step.

Each patches the process, so a run of the program is a process of its own.
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

PROGRAM = Path(__file__).with_name("nested.py")
RAN = ["inner", "inner"]
HELD_S = 0.3
"""The seconds for which the session held the loop: two nested tasks, and the task around them."""

each = pytest.mark.parametrize("library", ["nest_asyncio", "nest_asyncio2"])
both_meters = pytest.mark.parametrize("meter", ["C", "Python"])


@functools.cache
def found(library: str, meter: str | None) -> dict[str, Any]:
    """Return what the program prints. meter: None, without introspection."""
    pytest.importorskip(library)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment["OPENRTC_INTROSPECT_METER"] = "python" if meter == "Python" else ""
    arguments = [library] if meter is not None else [library, "without"]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


@each
@both_meters
def test_nested_loops_run_as_without_us(library: str, meter: str) -> None:
    """With the same results."""
    assert found(library, meter)["ran"] == found(library, None)["ran"] == RAN


@each
@both_meters
def test_a_session_is_charged_once_with_what_its_nested_tasks_do(library: str, meter: str) -> None:
    """And the session beside it with its own steps only."""
    cpu_s = found(library, meter)["cpu_s"]
    assert cpu_s["s"] >= HELD_S
    assert cpu_s["quiet"] < 0.1 * cpu_s["s"]


@each
@both_meters
def test_each_block_is_of_the_session_and_at_its_line(library: str, meter: str) -> None:
    """In the nested tasks and around them. Blocks that a busy machine causes do not count."""
    seen = found(library, meter)
    if any(cause == "descheduled" for _, cause, _ in seen["blocks"]):
        pytest.skip("the machine was too busy")
    assert [(session, function) for session, _, function in seen["blocks"]] == [
        ("s", "inner"),
        ("s", "around"),
        ("s", "inner"),
    ], seen["blocks"]


@each
@both_meters
def test_tasks_have_the_names_that_they_have_without_us(library: str, meter: str) -> None:
    """Also none: nest_asyncio 1.6 shows no running task on Python 3.14."""
    assert found(library, meter)["name"] == found(library, None)["name"]
