"""Steps that hold the loop in real time, in processes of their own, with both meters."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from typing import Any

import pytest
import real_steps

METERS = ("C", "Python")
CROWDED = "descheduled"
"""A block of this cause is the machine's: what was to be seen of it, a busy one may have hidden."""

pytestmark = [pytest.mark.slow, pytest.mark.gil]


RUNS = {"C": 6, "Python": 6}
"""One of so many runs shows that a call is seen; mostly the first. The meter in Python sees by lateness. With the meter
in C the stall sampler may get no processor, or the watchdog the GIL between a step's end and its record."""


@functools.cache
def run(what: str, meter: str, number: int) -> dict[str, Any]:
    """Return what the program has found in its n-th run."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment["OPENRTC_INTROSPECT_METER"] = "" if meter == "C" else "python"
    done = subprocess.run(
        [sys.executable, real_steps.__file__, what], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def found_by(what: str, meter: str, number: int = 0) -> dict[str, Any]:
    found = run(what, meter, number)
    if found["meter"] != meter:
        pytest.skip("the meter in C is not installed")
    return found


def longest(found: dict[str, Any], **fields: str | None) -> dict[str, Any]:
    """Return the longest block that has these fields."""
    blocks = [block for block in found["blocks"] if all(block[name] == value for name, value in fields.items())]
    return max(blocks, key=lambda block: float(block["ms"]))


@pytest.mark.parametrize("meter", METERS)
@pytest.mark.parametrize("step", [name for name in real_steps.STEPS if name != "C that waits"])
def test_the_line_is_that_of_the_call_that_took_the_time(step: str, meter: str) -> None:
    """Whatever the step did before it and after it. Where nobody could see it, the detail says so."""
    blocks = []
    for number in range(RUNS[meter]):
        found = found_by("steps", meter, number)
        block = longest(found, session=step)
        unseen = found["blind"] and "C code kept the GIL" in (block["detail"] or "")
        right = unseen or block["line"] == found["lines"]["long_call"]
        if block["cause"] == CROWDED or (block["cause"] == "native" and right):
            return
        blocks.append(block)
    raise AssertionError(blocks)


@pytest.mark.parametrize("meter", METERS)
def test_c_code_that_waits_while_it_keeps_the_gil(meter: str) -> None:
    """It is its session's, where samples without the GIL have seen it. Else nobody is blamed."""
    for number in range(RUNS[meter]):
        found = found_by("steps", meter, number)
        sure = not found["blind"] and meter == "C"
        session = "C that waits" if sure else None
        causes = {block["cause"] for block in found["blocks"] if block["session"] == session}
        if not causes.isdisjoint({CROWDED, "native" if sure else "gil-contention"}):
            break
    block = longest(found, session=session)
    if block["cause"] != CROWDED:
        assert block["ms"] >= 1000 * real_steps.LONG_S
        assert block["line"] in (found["lines"]["waits_with_the_gil"], *([] if sure else [None])), block
        assert block["cause"] == ("native" if sure else "gil-contention")


@pytest.mark.parametrize("meter", METERS)
def test_no_innocent_session_is_blamed(meter: str) -> None:
    """It has waited for all of them."""
    assert [block for block in found_by("steps", meter)["blocks"] if block["session"] == "healthy"] == []


@pytest.mark.parametrize("meter", METERS)
def test_a_block_while_no_session_lives_has_cause_line_and_stack(meter: str) -> None:
    """In the step that starts introspection, in the main task, in an untagged task."""
    found = found_by("no_session", meter)
    blocks = [block for block in found["blocks"] if block["ms"] >= 300.0]
    assert [block["session"] for block in blocks] == [None] * 3
    assert blocks[2]["task"] == "untagged"
    for block in blocks:
        if block["cause"] != CROWDED:
            assert (block["line"], block["cause"]) == (found["lines"]["waits"], "sync-call"), block
            assert block["stack"][-1] == "waits"
