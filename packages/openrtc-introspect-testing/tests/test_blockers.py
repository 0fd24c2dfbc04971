from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import Block, Introspector, Location
from openrtc_introspect_testing import blockers
from openrtc_introspect_testing._backends import Backend, in_task
from openrtc_introspect_testing._blockers import _blocker, _helpers
from openrtc_introspect_testing._blockers._helpers import SlowServer
from openrtc_introspect_testing._clock import FakeClock
from openrtc_introspect_testing._loop import FakeLoop

WITHIN_S = 60.0
"""It is tried again for so long: on a machine that is busy with something else, one time is as it should be."""
KINDS = tuple(blockers.all_kinds())
EXACT = tuple(kind for kind in KINDS if blockers.all_kinds()[kind](0.1).exact)

Any_Blocker = blockers.Blocker | blockers.AsyncBlocker


@pytest.fixture
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the system let the thread run whenever it could: a busy one makes short blocks its own."""
    monkeypatch.setattr(_blocker, "waited", lambda: 0.0)


async def hold(blocker: Any_Blocker) -> None:
    held = blocker.block()
    if isinstance(held, Awaitable):
        await held


def told(expected: blockers.Expected, **changes: Any) -> Block:
    """A block that is right about it, but for the changes."""
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
def test_it_takes_as_long_as_it_was_told_to(kind: str, seconds: float) -> None:
    """To two milliseconds, by its own measurement."""

    async def once() -> float:
        blocker = blockers.all_kinds()[kind](seconds)
        await hold(blocker)
        assert blocker.duration_s is not None
        return abs(blocker.duration_s - seconds)

    deadline = time.monotonic() + WITHIN_S
    errors = [asyncio.run(once())]
    while errors[-1] > 0.002 and time.monotonic() < deadline:
        errors.append(asyncio.run(once()))
    assert errors[-1] <= 0.002, sorted(errors)[:5]


@pytest.mark.parametrize("kind", ["fsync", "gc"])
def test_a_kind_that_cannot_be_exact_says_so(kind: str) -> None:
    """And tells what it took."""
    blocker = blockers.all_kinds()[kind](0.001)
    asyncio.run(hold(blocker))
    assert not blocker.exact
    assert blocker.duration_s is not None
    assert blocker.duration_s >= 0.001


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), 61.0])
def test_how_long_is_checked(seconds: float) -> None:
    """When it is made, not when it blocks."""
    with pytest.raises(ValueError, match=r"seconds must be more than 0 and at most 60, got "):
        blockers.sleep(seconds)


# --- what it was ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_reported_as_what_it_knows_itself_to_be(kind: str) -> None:
    """Cause, session, line and length, by the introspector of this project."""
    is_reported_right(kind, Backend("asyncio"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sleep", "sum", "gil", "gil-idle", "burst", "callback"])
def test_on_trio_it_is_as_well(kind: str) -> None:
    """Each way in which a loop can be held."""
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
            # "gil-idle" begins in the middle of a wait, which is no part of what the loop can tell.
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
    # Where the system never let it run in peace, that this was told has to do.
    assert any(wrong == [] for _, wrong in found), found


def test_every_kind_can_be_made_by_its_name() -> None:
    """And is a function of the module, called as the kind is."""
    for kind, make in blockers.all_kinds().items():
        assert make(0.1).kind == kind
        assert getattr(blockers, "import_" if kind == "import" else kind.replace("-", "_")) is make


def test_before_it_has_blocked_it_knows_nothing() -> None:
    """But its kind's cause."""
    blocker = blockers.sleep(0.001)
    assert (blocker.duration_s, blocker.expected_location, blocker.expected_cause) == (None, None, "sync-call")
    with pytest.raises(RuntimeError, match=r"<blocker sleep, 1 ms> has not blocked yet: call block\(\) first"):
        _ = blocker.expected


def test_it_is_the_session_s_that_is_bound(undisturbed: None) -> None:
    """When it blocks; a collection is nobody's."""

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, stacks=False, clock=clock) as introspector:
            with introspector.session("culprit", agent_name="a"):
                return [blocker(0.001).block().expected.session_id for blocker in (blockers.sleep, blockers.gc)]

    assert asyncio.run(main()) == ["culprit", None]
    assert blockers.sleep(0.001).block().expected.session_id is None


def test_in_a_callback_that_is_the_cause(undisturbed: None) -> None:
    """Whatever it does there, unless it is nobody's anyway."""

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
def test_what_the_system_did_not_let_run_is_nobody_s(
    share: float, causes: tuple[str, ...], session_id: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its part is near a half, either is right."""
    waits = iter([0.0, 0.01 * share])
    monkeypatch.setattr(_blocker, "waited", lambda: next(waits))
    monkeypatch.setattr(_blocker, "now", FakeClock())
    blocker = blockers.sleep(0.01)
    monkeypatch.setattr(blocker, "function", lambda until: _blocker.now.advance(0.01))  # type: ignore[attr-defined]

    async def main() -> None:
        async with Introspector(socket_path=False, stacks=False, clock=FakeClock()) as introspector:
            with introspector.session("culprit", agent_name="a"):
                blocker.block()

    asyncio.run(main())
    assert (blocker.expected_causes, blocker.expected.session_id) == (causes, session_id)


# --- where ---------------------------------------------------------------------------------------


def test_from_a_checkout_the_line_is_the_blocker_s_own() -> None:
    """It is the innermost that is not installed."""
    place = blockers.sleep(0.001).block().expected_location
    assert place is not None
    source = Path(place.file).read_text(encoding="utf-8").splitlines()[place.line - 1]
    assert (place.function, source.strip()) == ("sleep", "time.sleep(max(0.0, until - now()))  # here")


def test_where_it_is_installed_the_line_is_the_one_that_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The innermost of the user's own."""
    installed = str(Path(_blocker.__file__).parent)
    monkeypatch.setattr(_blocker, "is_users", lambda file, roots=None: not file.startswith(installed))
    blocker = blockers.sleep(0.001)
    line = sys._getframe().f_lineno + 1
    blocker.block()
    assert blocker.expected_location == Location(__file__, line, sys._getframe().f_code.co_qualname)


def test_whoever_runs_the_loop_does_not_call_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a callback no code of the user's may be on the stack."""
    installed = str(Path(_blocker.__file__).parent)
    monkeypatch.setattr(_blocker, "is_users", lambda file, roots=None: file == __file__)

    async def main() -> Any:
        blocker = blockers.sleep(0.001)
        asyncio.get_running_loop().call_soon(blocker.block)
        await asyncio.sleep(0.01)
        return blocker.expected_location

    assert asyncio.run(main()).file.startswith(installed)


def test_with_project_roots_the_line_is_in_them() -> None:
    """As the introspector tells it that was given the same."""
    here = Path(__file__).parent
    blocker = blockers.sleep(0.001)
    line = sys._getframe().f_lineno + 1
    expected = blocker().expected
    own = told(expected, location=Location(__file__, line, sys._getframe().f_code.co_qualname))
    assert blocker.matches(own, project_roots=[here]) == []
    assert len(blocker.matches(told(expected), project_roots=[here])) == 1


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
    """That tells both sides."""
    places = (Location("/app/a.py", 3, "f"), Location("/app/a.py", 4, "f"))
    expected = blockers.Expected("sleep", 1e9, 0.01, ("sync-call",), None, places)
    assert list(expected.mismatches(told(expected, **changes)).values()) == wrong


def test_how_long_it_was_need_not_be_looked_at() -> None:
    """Where the loop tells "at least"."""
    expected = blockers.sleep(0.001).block().expected
    assert expected.mismatches(told(expected, duration_ms=500), within_ms=None) == {}


# --- what it leaves ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_of_it(kind: str) -> None:
    """No thread, no module, no import hook."""
    finders = list(sys.meta_path)
    asyncio.run(hold(blockers.all_kinds()[kind](0.005)))
    assert [thread.name for thread in threading.enumerate() if thread.name == "openrtc-blocker"] == []
    assert [name for name in sys.modules if name.startswith("openrtc_heavy")] == []
    assert sys.meta_path == finders


def test_servers_are_on_the_loopback_interface() -> None:
    """Nobody else can reach them."""
    with SlowServer(0.0) as server:
        assert server.address[0] == "127.0.0.1"
        request = b"GET / HTTP/1.0\r\n\r\n"
        with socket.create_connection(server.address) as connection:
            connection.sendall(request)
            assert connection.makefile("rb").read() == SlowServer.ANSWER


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it takes the server's own timeout")
def test_a_server_that_nobody_came_to_is_gone_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where something forbids the client to connect: it would else wait for as long as it is patched to."""
    monkeypatch.setattr(_helpers, "_CLIENT_WITHIN_S", 3600.0)
    with pytest.raises(RuntimeError, match="forbidden"), SlowServer(0.0):
        raise RuntimeError("forbidden")


def test_a_burst_is_many_steps_of_one_iteration(undisturbed: None) -> None:
    """On a virtual loop, too, where it takes real time."""

    async def main() -> Any:
        loop: Any = asyncio.get_running_loop()
        before = loop.time()
        blocker = await blockers.burst(0.02)
        return blocker.expected_cause, blocker.expected.session_id, loop.time() - before

    with asyncio.Runner(loop_factory=FakeLoop) as runner:
        assert runner.run(main()) == ("burst", None, 0.0)
