"""Blockers: their duration, their truth, their line, and what they leave."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import Block, Introspector, Location
from openrtc_introspect_testing import blockers
from openrtc_introspect_testing._blockers import blocker as blocker_module
from openrtc_introspect_testing._blockers import resources
from openrtc_introspect_testing._blockers.resources import SlowServer
from openrtc_introspect_testing._loops.backends import Backend, in_task
from openrtc_introspect_testing._loops.fake_clock import FakeClock
from openrtc_introspect_testing._loops.fake_loop import FakeLoop

WITHIN_S = 60.0
"""Seconds for which a test tries again: on a machine that is busy with something else, one try succeeds."""
KINDS = tuple(blockers.all_kinds())
EXACT = tuple(kind for kind in KINDS if blockers.all_kinds()[kind](0.1).exact)

Any_Blocker = blockers.Blocker | blockers.AsyncBlocker
Measured = Callable[[Callable[[], float], Callable[[float], bool]], list[float]]


@pytest.fixture
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for a machine without run delay: a busy one makes short blocks descheduled."""
    monkeypatch.setattr(blocker_module, "run_delay_s", lambda: 0.0)


async def hold(blocker: Any_Blocker) -> None:
    held = blocker.block()
    if isinstance(held, Awaitable):
        await held


def block_of(expected: blockers.Expected, **changes: Any) -> Block:
    """A block that reports it right, but for the changes."""
    right: dict[str, Any] = {
        "seq": 1,
        "session_id": expected.session_id,
        "started_at": expected.started_at,
        "duration_ms": 1000 * expected.duration_s,
        "cause": expected.causes[0],
        "location": expected.locations[0] if expected.locations else None,
    }
    return Block(**{**right, **changes})


# --- how long ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.02, 0.15])
@pytest.mark.parametrize("kind", EXACT)
def test_it_takes_as_long_as_it_is_to_take(kind: str, seconds: float, measured: Measured) -> None:
    """A block takes its seconds to two milliseconds, by its own measurement."""

    async def once() -> float:
        blocker = blockers.all_kinds()[kind](seconds)
        await hold(blocker)
        assert blocker.duration_s is not None
        return abs(blocker.duration_s - seconds)

    errors = measured(lambda: asyncio.run(once()), lambda error: error <= 0.002)
    assert errors[-1] <= 0.002, sorted(errors)[:5]


@pytest.mark.parametrize("kind", ["fsync", "gc"])
def test_a_kind_that_cannot_be_exact_says_so(kind: str) -> None:
    """It also says how long the block took."""
    blocker = blockers.all_kinds()[kind](0.001)
    asyncio.run(hold(blocker))
    assert not blocker.exact
    assert blocker.duration_s is not None
    assert blocker.duration_s >= 0.001


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), 61.0])
def test_how_long_is_checked(seconds: float) -> None:
    """The seconds are checked when a blocker is made, not when it blocks."""
    with pytest.raises(ValueError, match=r"seconds must be more than 0 and at most 60, got "):
        blockers.sleep(seconds)


# --- what it was ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_reported_as_what_it_knows_itself_to_be(kind: str) -> None:
    """The introspector reports its cause, session, line and duration."""
    is_reported_right(kind, Backend("asyncio"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sleep", "sum", "gil", "gil-idle", "burst", "callback"])
def test_on_trio_it_is_as_well(kind: str) -> None:
    """Each way to hold a loop is reported right on Trio."""
    is_reported_right(kind, Backend("trio"))


def is_reported_right(kind: str, backend: Backend) -> None:
    async def once() -> tuple[bool, list[str]]:
        async with Introspector(socket_path=False) as introspector:

            async def agent(blocker: Any_Blocker) -> None:
                with introspector.session("culprit", agent_name="a"):
                    await anyio.sleep(0.05)
                    await hold(blocker)
                    await anyio.sleep(0.01)

            blocker = blockers.all_kinds()[kind](0.12)
            await in_task(agent, blocker)
            # "gil-idle" begins in the middle of a wait, and the loop cannot measure when.
            within_ms = 3.0 if kind == "gil-idle" else 2.0
            disturbed = "descheduled" in blocker.expected_causes
            blocks = introspector.blocks()
            if len(blocks) != 1:
                return disturbed, [f"expected one block, got {blocks}"]
            return disturbed, blocker.matches(blocks[0], within_ms=within_ms)

    found: list[tuple[bool, list[str]]] = []
    deadline = time.monotonic() + WITHIN_S
    while (False, []) not in found and found.count((True, [])) < 3 and time.monotonic() < deadline:
        found.append(backend(once()))
    # If the machine disturbed every try, a right report of the disturbed block is enough.
    assert any(wrong == [] for _, wrong in found), found


def test_every_kind_can_be_made_by_its_name() -> None:
    """Each kind is also a function of the module, under the same name."""
    for kind, make in blockers.all_kinds().items():
        assert make(0.1).kind == kind
        assert getattr(blockers, "import_" if kind == "import" else kind.replace("-", "_")) is make


def test_before_it_has_blocked_it_knows_nothing() -> None:
    """It has only the cause of its kind."""
    blocker = blockers.sleep(0.001)
    assert (blocker.duration_s, blocker.expected_location, blocker.expected_cause) == (None, None, "sync-call")
    with pytest.raises(RuntimeError, match=r"<blocker sleep, 1 ms> has not blocked yet: call block\(\) first"):
        _ = blocker.expected


def test_it_is_the_session_s_that_is_bound(undisturbed: None) -> None:
    """The session is the one bound when it blocks; a collection is unattributed."""

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, stacks=False, clock=clock) as introspector:
            with introspector.session("culprit", agent_name="a"):
                return [blocker(0.001).block().expected.session_id for blocker in (blockers.sleep, blockers.gc)]

    assert asyncio.run(main()) == ["culprit", None]
    assert blockers.sleep(0.001).block().expected.session_id is None


def test_in_a_callback_that_is_the_cause(undisturbed: None) -> None:
    """Every kind but the unattributed ones has the cause "callback" there."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        blocking = [blockers.sleep(0.001), blockers.spin(0.001), blockers.gc(0.001)]
        for blocker in blocking:
            loop.call_soon(blocker)
        await asyncio.sleep(0.01)
        return [blocker.expected_cause for blocker in blocking]

    assert asyncio.run(main()) == ["callback", "callback", "gc"]


def test_on_trio_what_is_called_soon_is_no_session_s(undisturbed: None) -> None:
    """It runs in a task of Trio's own, with the cause of its kind."""

    async def main() -> Any:
        async with Introspector(socket_path=False, stacks=False, clock=FakeClock()) as introspector:
            with introspector.session("culprit", agent_name="a"):
                blocker = await blockers.callback(0.001)
                return blocker.expected_cause, blocker.expected.session_id

    assert Backend("asyncio")(main()) == ("callback", "culprit")
    assert Backend("trio")(main()) == ("sync-call", None)


@pytest.mark.parametrize(
    ("share", "causes", "session_id"),
    [
        (0.1, ("sync-call",), "culprit"),
        (0.5, ("sync-call", "descheduled"), "culprit"),
        (0.9, ("descheduled",), None),
    ],
)
def test_a_block_that_is_mostly_run_delay_is_unattributed(
    share: float, causes: tuple[str, ...], session_id: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the run delay is near a half of the block, both causes are right."""
    waits = iter([0.0, 0.01 * share])
    monkeypatch.setattr(blocker_module, "run_delay_s", lambda: next(waits))
    monkeypatch.setattr(blocker_module, "now", FakeClock())
    blocker = blockers.sleep(0.01)
    monkeypatch.setattr(blocker, "function", lambda until: blocker_module.now.advance(0.01))  # type: ignore[attr-defined]

    async def main() -> None:
        async with Introspector(socket_path=False, stacks=False, clock=FakeClock()) as introspector:
            with introspector.session("culprit", agent_name="a"):
                blocker.block()

    asyncio.run(main())
    assert (blocker.expected_causes, blocker.expected.session_id) == (causes, session_id)


# --- where ---------------------------------------------------------------------------------------


def test_from_a_checkout_the_line_is_the_blocker_s_own() -> None:
    """It is the innermost line that is not installed."""
    place = blockers.sleep(0.001).block().expected_location
    assert place is not None
    source = Path(place.file).read_text(encoding="utf-8").splitlines()[place.line - 1]
    assert (place.function, source.strip()) == ("sleep", "time.sleep(max(0.0, until - now()))  # here")


def test_where_it_is_installed_the_line_is_the_one_that_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the innermost line of the user's own code."""
    installed = str(Path(blocker_module.__file__).parent)
    monkeypatch.setattr(blocker_module, "is_users", lambda file, roots=None: not file.startswith(installed))
    blocker = blockers.sleep(0.001)
    line = sys._getframe().f_lineno + 1
    blocker.block()
    assert blocker.expected_location == Location(__file__, line, sys._getframe().f_code.co_qualname)


def test_whoever_runs_the_loop_does_not_call_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stack of a callback may have no code of the user's."""
    installed = str(Path(blocker_module.__file__).parent)
    monkeypatch.setattr(blocker_module, "is_users", lambda file, roots=None: file == __file__)

    async def main() -> Any:
        blocker = blockers.sleep(0.001)
        asyncio.get_running_loop().call_soon(blocker.block)
        await asyncio.sleep(0.01)
        return blocker.expected_location

    assert asyncio.run(main()).file.startswith(installed)


def test_with_project_roots_the_line_is_in_them() -> None:
    """An introspector with the same roots reports that line."""
    here = Path(__file__).parent
    blocker = blockers.sleep(0.001)
    line = sys._getframe().f_lineno + 1
    expected = blocker().expected
    own = block_of(expected, location=Location(__file__, line, sys._getframe().f_code.co_qualname))
    assert blocker.matches(own, project_roots=[here]) == []
    assert len(blocker.matches(block_of(expected), project_roots=[here])) == 1


# --- holding a block against it --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, []),
        ({"cause": "cpu"}, ["cause: expected sync-call, the block says cpu"]),
        ({"session_id": "bystander"}, ["session: expected None, the block says bystander"]),
        ({"duration_ms": 13.0}, ["duration: expected 10.0 ms within 2 ms, the block says 13.0 ms"]),
        ({"location": None}, ["location: expected /app/a.py:3 in f or /app/a.py:4 in f, the block says None"]),
        ({"location": Location("a.py", 4, "f")}, []),
        (
            {"location": Location("a.py", 5, "f")},
            ["location: expected /app/a.py:3 in f or /app/a.py:4 in f, the block says a.py:5 in f"],
        ),
        (
            {"location": Location("aa.py", 3, "f")},
            ["location: expected /app/a.py:3 in f or /app/a.py:4 in f, the block says aa.py:3 in f"],
        ),
    ],
)
def test_each_difference_is_a_sentence(changes: dict[str, Any], wrong: list[str]) -> None:
    """The sentence has the expected value and the reported one."""
    places = (Location("/app/a.py", 3, "f"), Location("/app/a.py", 4, "f"))
    expected = blockers.Expected("sleep", 1e9, 0.01, ("sync-call",), None, places)
    assert list(expected.mismatches(block_of(expected, **changes)).values()) == wrong


def test_the_duration_need_not_be_compared() -> None:
    """On uvloop some durations are lower bounds."""
    expected = blockers.sleep(0.001).block().expected
    assert expected.mismatches(block_of(expected, duration_ms=500), within_ms=None) == {}


# --- what it leaves ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_of_it(kind: str) -> None:
    """No thread, no module and no import hook stays."""
    finders = list(sys.meta_path)
    asyncio.run(hold(blockers.all_kinds()[kind](0.005)))
    assert [thread.name for thread in threading.enumerate() if thread.name == "openrtc-blocker"] == []
    assert [name for name in sys.modules if name.startswith("openrtc_heavy")] == []
    assert sys.meta_path == finders


def test_servers_are_on_the_loopback_interface() -> None:
    """No other machine can reach them."""
    with SlowServer(0.0) as server:
        assert server.address[0] == "127.0.0.1"
        request = b"GET / HTTP/1.0\r\n\r\n"
        with socket.create_connection(server.address) as connection:
            connection.sendall(request)
            assert connection.makefile("rb").read() == SlowServer.ANSWER


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it takes the server's own timeout")
def test_a_server_without_a_client_is_gone_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is not allowed to connect does not keep the server waiting."""
    monkeypatch.setattr(resources, "_CLIENT_WITHIN_S", 3600.0)
    with pytest.raises(RuntimeError, match="forbidden"), SlowServer(0.0):
        raise RuntimeError("forbidden")


def test_a_burst_is_many_steps_of_one_iteration(undisturbed: None) -> None:
    """It takes real time on a virtual loop, too."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        before = loop.time()
        blocker = await blockers.burst(0.02)
        return blocker.expected_cause, blocker.expected.session_id, loop.time() - before

    with asyncio.Runner(loop_factory=FakeLoop) as runner:
        assert runner.run(main()) == ("burst", None, 0.0)
