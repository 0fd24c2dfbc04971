"""Scripts of tasks end metered as plain, with the same accounts by both meters.

Each script is played plain, with the meter of this process, and, in a process that is kept for all of them, with the
other meter. See metered_scripts.py for the operations of scripts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import metered_scripts as scripts
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PLAYER = Path(scripts.__file__)

Op = list[Any]
Script = dict[str, Any]


class OtherMeter:
    """A process that plays scripts with the step meter that this one does not have."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment.pop("OPENRTC_INTROSPECT_METER", None)
        if scripts.METER == "C":
            environment["OPENRTC_INTROSPECT_METER"] = "python"
        self.process = subprocess.Popen(
            [sys.executable, str(PLAYER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.meter = self._line().strip()

    def play(self, script: Script) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(script) + "\n")
        self.process.stdin.flush()
        outcome: dict[str, Any] = json.loads(self._line())
        return outcome

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def end(self) -> None:
        with self.process:
            self.process.kill()


@pytest.fixture(scope="module")
def other_meter() -> Iterator[OtherMeter | None]:
    """Start the process with the other meter. None: there is only that in Python."""
    other = OtherMeter()
    try:
        yield other if other.meter != scripts.METER else None
    finally:
        other.end()


# --- scripts -------------------------------------------------------------------------------------

SHORT = st.integers(0, 9)
FEW = st.integers(0, 5)
SLOT = st.integers(0, 1)
ERROR = st.sampled_from(sorted(scripts.ERRORS))
HOW = st.sampled_from(["plain", "unbound", "other's", "eager"])


def _op(name: str, *given: st.SearchStrategy[Any]) -> st.SearchStrategy[Op]:
    return st.tuples(st.just(name), *given).map(list)


OPS = st.one_of(
    _op("hold", st.sampled_from([1, 2, 3, 60])),
    _op("yield"),
    _op("bare yield"),
    _op("sleep", SHORT),
    _op("wait", SLOT),
    _op("set", SLOT),
    _op("begin", FEW, HOW, st.booleans()),
    _op("nest", FEW),
    _op("by hand", FEW, st.integers(0, 3), st.sampled_from(["throw", "close"])),
    _op("join", FEW),
    _op("await", FEW),
    _op("cancel", FEW),
    _op("raise", ERROR),
    _op("enter", SLOT),
    _op("leave", SLOT),
    _op("generator", st.integers(1, 2), st.sampled_from(["close", "keep", "drop"])),
    _op("drop", st.integers(1, 2)),
    _op("async generator", st.integers(1, 2), st.sampled_from(["close", "drop"])),
    _op("collect", st.integers(1, 2)),
    _op("call soon", st.integers(1, 2), st.booleans()),
    _op("switch", SHORT),
    _op("sample", st.sampled_from([1, 2, 50])),
    _op("detach"),
    _op("close"),
)
BODIES = st.recursive(
    st.lists(OPS, max_size=5),
    lambda body: st.lists(
        st.one_of(OPS, _op("catch", body), _op("scope", body), _op("finally", body, body)), max_size=5
    ),
    max_leaves=5,
)
SCRIPTS = st.fixed_dictionaries(
    {
        "programs": st.lists(BODIES, min_size=2, max_size=5),
        "roots": st.integers(1, 3),
        "older": st.booleans(),
        "factory": st.sampled_from([None, None, "eager", "portal"]),
    }
).map(lambda script: {**script, "roots": min(script["roots"], len(script["programs"]))})


def script(*programs: list[Op], roots: int = 1, older: bool = False, factory: str | None = None) -> Script:
    return {"programs": list(programs), "roots": roots, "older": older, "factory": factory}


KNOWN: dict[str, Script] = {
    "a step, an iteration inside of it, a step inside of that": script(
        [["scope", [["hold", 3], ["nest", 0], ["hold", 60], ["yield"], ["hold", 1]]]],
        [["scope", [["hold", 5], ["sleep", 2], ["hold", 7]]]],
    ),
    "an iteration inside of a step of an older task": script(
        [["yield"]],
        [["scope", [["hold", 3], ["nest", 0], ["hold", 4]]]],
        [["hold", 5], ["yield"]],
        older=True,
    ),
    "a step left in the middle, another's meanwhile": script(
        [["scope", [["hold", 3], ["switch", 5], ["hold", 60], ["yield"], ["hold", 2]]]],
        [["scope", [["hold", 5], ["yield"], ["hold", 7], ["sleep", 9], ["hold", 1]]]],
        roots=2,
        factory="portal",
    ),
    "a task made in a step that goes on after it was left in the middle": script(
        [["scope", [["hold", 1], ["switch", 0], ["begin", 1, "plain", False], ["hold", 2], ["join", 1]]]],
        [["hold", 3], ["yield"], ["hold", 5]],
        factory="portal",
    ),
    "a step left in the middle and cancelled": script(
        [["begin", 1, "plain", False], ["yield"], ["yield"], ["cancel", 1], ["join", 1]],
        [["yield"]],
        [["scope", [["hold", 3], ["catch", [["switch", 9]]], ["hold", 2], ["switch", 3], ["hold", 1]]]],
        factory="portal",
    ),
    "eager tasks": script(
        [["scope", [["hold", 1], ["begin", 0, "plain", False], ["hold", 2], ["await", 1], ["hold", 3]]]],
        [["scope", [["hold", 4], ["yield"], ["hold", 5], ["raise", "error"]]]],
        factory="eager",
    ),
    "scopes left out of order, and elsewhere": script(
        [["enter", 0], ["hold", 1], ["enter", 1], ["hold", 2], ["leave", 0], ["hold", 3], ["yield"], ["hold", 4]],
        [["yield"], ["hold", 5], ["leave", 1], ["hold", 6]],
        roots=2,
    ),
    "cancelled before the first step": script(
        [["scope", [["begin", 0, "plain", True], ["begin", 0, "unbound", True], ["join", 1], ["join", 2]]]],
        [["hold", 1]],
    ),
    "closed in mid-step": script(
        [["scope", [["hold", 1], ["close"], ["hold", 2], ["yield"], ["hold", 3]]]],
        [["scope", [["hold", 1], ["yield"], ["hold", 1], ["yield"], ["raise", "base"]]]],
        roots=2,
    ),
    "detached in mid-step": script(
        [["scope", [["hold", 1], ["detach"], ["begin", 0, "plain", False], ["hold", 2], ["yield"], ["hold", 3]]]],
        [["scope", [["hold", 1], ["yield"], ["hold", 1], ["yield"], ["raise", "base"]]]],
        roots=2,
        older=True,
    ),
    "an interrupt in a step inside of another": script(
        [["scope", [["hold", 1], ["catch", [["nest", 0]]], ["hold", 2], ["yield"], ["hold", 3]]]],
        [["scope", [["hold", 1], ["yield"], ["raise", "interrupt"]]]],
    ),
    "an interrupt in a step of an older task": script(
        [["yield"]],
        [["scope", [["hold", 1], ["yield"], ["hold", 2], ["raise", "interrupt"]]]],
        older=True,
    ),
    "callbacks after the last steps of nested iterations": script(
        [["nest", 0]], [["nest", 0]], [["call soon", 1, False]], roots=2
    ),
    "an interrupt in the first step of an older task since we attached": script(
        [], [["generator", 1, "keep"], ["raise", "interrupt"]], older=True
    ),
    "an interrupt in the first iteration": script([["hold", 1], ["raise", "interrupt"]]),
    "a scope in an older task, a timer that is due with what is ready behind it": script(
        [["sleep", 5], ["hold", 1]],
        [["sleep", 5], ["begin", 2, "plain", False]],
        [["sleep", 6], ["yield"]],
        [["enter", 0], ["sleep", 1]],
        [["bare yield"], ["yield"]],
        [["yield"]],
        roots=3,
        older=True,
    ),
    "steps that are not sampled": script(
        [["sample", 3], *([["scope", [["hold", 1], ["yield"], ["hold", 2]]], ["yield"]] * 5)],
        [["scope", [["hold", 1], ["yield"], ["sample", 1], ["hold", 2]]]],
        roots=2,
    ),
    "a collection in a step inside of a step": script(
        [["scope", [["hold", 1], ["collect", 5], ["by hand", 0, 2, "throw"], ["hold", 2]]]],
        [["scope", [["collect", 5], ["yield"], ["hold", 2]]]],
    ),
}


def all_ops(ops: list[Any]) -> Iterator[Op]:
    """Yield the operations, with those inside of others."""
    for op in ops:
        yield op
        for inside in op[1:]:
            if isinstance(inside, list):
                yield from all_ops(inside)


def named(script: Script) -> set[str]:
    return {name for body in script["programs"] for name, *_ in all_ops(body)}


def is_exact(script: Script) -> bool:
    """Return whether each moment is charged to the session that is bound then.

    It is not in these cases, of which nothing shows: steps are not sampled, metering ends, a greenlet is left in
    mid-step, a task is made past the loop's own `create_task`, or a step of an older task runs in another's iteration.
    """
    if script["older"] and "nest" in named(script):
        return False
    past_the_loop = any(op[:1] + op[2:3] == ["begin", "eager"] for body in script["programs"] for op in all_ops(body))
    return not (named(script) & {"sample", "detach", "close"} or past_the_loop or script["factory"] == "portal")


# --- what is compared ----------------------------------------------------------------------------


def check_that_nothing_is_seen(plain: dict[str, Any], metered: dict[str, Any]) -> None:
    """Check that the same happens at the same times, with the same tracebacks."""
    for part in ("ends", "log", "odd", "truth"):
        assert metered[part] == plain[part]
    assert metered["notes"] == []


def check_accounts(script: Script, metered: dict[str, Any]) -> None:
    """Check that nothing is charged twice or wrongly, and that no task stays counted."""
    accounts = metered["accounts"]
    assert all(ms >= 0 and steps >= 0 for ms, steps, *_ in accounts.values())
    if not named(script) & {"sample"}:
        charged = sum(ms for ms, *_ in accounts.values())
        assert charged + metered["idle"] <= metered["elapsed"] + 1e-3
    if not named(script) & {"sample", "detach", "close"}:
        assert {name: tasks for name, (_, _, tasks, _) in accounts.items() if tasks} == {}
    if is_exact(script):
        truth = {name: ms for name, ms in metered["truth"].items() if name != "no step"}
        charged_to = {name: ms for name, (ms, *_) in accounts.items() if ms}
        if script["older"]:  # outside of a scope, the steps of an older task are not metered
            truth.pop("untagged", None)
            charged_to.pop("untagged", None)
        if {"nest", "call soon"} <= named(script):  # a nested iteration's last callbacks are charged to the outer step
            extra = {name: ms - truth.get(name, 0.0) for name, ms in charged_to.items()}
            assert truth.keys() <= charged_to.keys()
            assert min(extra.values(), default=0.0) > -1e-3
            assert sum(extra.values()) <= metered["truth"].get("no step", 0.0) + 1e-3
        else:
            assert charged_to == pytest.approx(truth, abs=1e-3)


def check(script: Script, other: OtherMeter | None) -> None:
    plain = scripts.play(script, metered=False)
    metered = scripts.play(script, metered=True)
    check_that_nothing_is_seen(plain, metered)
    check_accounts(script, metered)
    if other is not None:
        theirs = other.play(script)
        check_that_nothing_is_seen(plain, theirs)
        check_accounts(script, theirs)
        if "sample" not in named(script):
            for part in ("accounts", "idle", "elapsed", "blocks"):
                assert theirs[part] == metered[part]


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_script_ends_as_without_us(name: str, other_meter: OtherMeter | None) -> None:
    """Results, errors and tracebacks are the plain ones, and the accounts agree."""
    check(KNOWN[name], other_meter)


@pytest.mark.slow
@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
@given(script=SCRIPTS)
def test_any_script_ends_as_without_us(script: Script, other_meter: OtherMeter | None) -> None:
    """Results, errors and tracebacks are the plain ones, and the accounts agree."""
    check(script, other_meter)


LEFT_BEHIND = """
import asyncio, contextlib, gc, sys
from openrtc_introspect_core import Introspector

metered = sys.argv[1] == "metered"

class Dying(asyncio.SelectorEventLoop):
    iterations = 0

    def _process_events(self, events):
        self.iterations += 1
        if self.iterations == int(sys.argv[2]):
            raise RuntimeError("the loop dies")
        super()._process_events(events)

async def pause():
    await asyncio.sleep(0)

async def call(introspector, name):
    with introspector.session(name, agent_name="a") if metered else contextlib.nullcontext():
        await asyncio.create_task(pause())

async def calls(introspector):
    first, second = asyncio.create_task(call(introspector, "a")), asyncio.create_task(call(introspector, "b"))
    return await first, await second

async def main():
    introspector = Introspector(socket_path=False, slow_session_threshold_ms=60_000)  # a busy machine logs no block
    if metered:
        introspector.attach()
    await asyncio.wait([asyncio.create_task(calls(introspector))])

for _ in range(3):
    loop = Dying()
    loop.set_exception_handler(lambda loop, context: None)
    try:
        loop.run_until_complete(main())
    except RuntimeError:
        pass
    loop.close()
    gc.collect()
print("collected")
"""


@pytest.mark.parametrize("iteration", range(4, 8))
@pytest.mark.parametrize("meter", ["python", "compiled"])
def test_what_a_loop_that_died_leaves_behind_is_collected(meter: str, iteration: int) -> None:
    """Its tasks waited in a session's scope when it died, in any iteration."""

    def ended(*arguments: str) -> tuple[int, str, str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment["OPENRTC_INTROSPECT_METER"] = meter
        command = [sys.executable, "-W", "ignore", "-c", LEFT_BEHIND, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    assert ended("metered", str(iteration)) == ended("plain", str(iteration)) == (0, "collected\n", "")


def test_the_two_meters_are_compared(other_meter: OtherMeter | None) -> None:
    """If the meter in C is installed, each script is played with both."""
    if other_meter is None:
        pytest.skip("the step meter in C is not installed: scripts are played plain and with the one in Python")
    assert {other_meter.meter, scripts.METER} == {"C", "Python"}
