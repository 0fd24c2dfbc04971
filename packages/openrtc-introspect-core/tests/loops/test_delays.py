from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import Introspector
from openrtc_introspect_core._loops.delays import AsyncioDelays, charge_delays
from openrtc_introspect_core._sessions.session import Binding, Session
from openrtc_introspect_testing._loops.backends import Backend

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def session(session_id: str) -> Session:
    return Session(session_id, "a", {}, started=0.0)


def test_waits_are_charged_to_those_who_waited_and_not_to_the_culprit() -> None:
    """Total and worst waits are charged; of an upper bound, half is charged."""
    culprit, one, two = session("culprit"), session("one"), session("two")
    delayed = charge_delays({culprit: 1.0, one: 0.2, two: 0.3}, culprit)
    assert [(each.session_id, round(each.delayed_ms), each.exact) for each in delayed] == [
        ("two", 300, True),
        ("one", 200, True),
    ]
    charge_delays({one: 0.4}, None, exact=False)
    assert (round(one.delayed, 9), one.worst_delay) == (0.4, 0.4)


def test_of_many_that_waited_a_block_names_those_who_waited_longest() -> None:
    """The other waits are charged all the same: the size of a block does not grow with the number of sessions."""
    sessions = {session(f"job-{n}"): n / 1000 for n in range(1, 10_001)}
    delayed = charge_delays(sessions, None)
    assert [each.session_id for each in delayed] == [f"job-{n}" for n in range(10_000, 9_900, -1)]
    assert all(each.delayed == seconds for each, seconds in sessions.items())


def test_timers_wait_since_they_were_due(virtually: Backend) -> None:
    """A session whose timer was due during the block waited since then; one whose timer is due later did not wait."""

    async def main() -> Any:
        async with Introspector(socket_path=False, stacks=False, clock=virtually.clock) as introspector:

            async def sleeper(name: str, seconds: float) -> None:
                with introspector.session(name, agent_name="a"):
                    await anyio.sleep(seconds)
                    await anyio.sleep(5)

            async def culprit() -> None:
                with introspector.session("culprit", agent_name="a"):
                    await anyio.sleep(0.1)
                    virtually.block(0.3)
                    await anyio.sleep(1)

            async with anyio.create_task_group() as group:
                for name, seconds in (("early", 0.15), ("late", 0.35), ("after", 0.6)):
                    group.start_soon(sleeper, name, seconds)
                group.start_soon(culprit)
                await anyio.sleep(1)
                rows = {row.session_id: row.delayed_s for row in introspector.snapshot().sessions}
                (block,) = introspector.blocks()
            return block, rows

    block, rows = virtually(main())
    assert block.session_id == "culprit"
    assert [(each.session_id, round(each.delayed_ms)) for each in block.delayed] == [("early", 250), ("late", 50)]
    assert {name: round(seconds, 6) for name, seconds in rows.items()} == {
        "early": 0.25,
        "late": 0.05,
        "after": 0.0,
        "culprit": 0.0,
    }


def test_what_was_ready_waited_for_all_of_it(virtually: Backend) -> None:
    """The task was to run next, after the block. Trio may have run it before: then it slept until 10 ms later."""

    async def main() -> Any:
        async with Introspector(socket_path=False, stacks=False, clock=virtually.clock) as introspector:

            async def wait_once(name: str, action: Callable[[], None]) -> None:
                with introspector.session(name, agent_name="a"):
                    await anyio.sleep(0)
                    action()
                    await anyio.sleep(0.01)

            async with anyio.create_task_group() as group:
                group.start_soon(wait_once, "culprit", lambda: virtually.block(0.2))
                group.start_soon(wait_once, "behind", lambda: None)
            return introspector.blocks()

    (block,) = virtually(main())
    (delayed,) = block.delayed
    assert (delayed.session_id, delayed.exact) == ("behind", True)
    assert round(delayed.delayed_ms) in ((190, 200) if virtually.is_trio else (200,))


def test_what_a_socket_brought_waited_for_at_most_all_of_it(on_timed_loops: Backend) -> None:
    """When the data came is not known: the wait is shown as an upper bound."""

    async def main() -> Any:
        from openrtc_introspect_testing._loops.fake_clock import FakeClock

        clock = FakeClock()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        async with Introspector(socket_path=False, stacks=False, clock=clock) as introspector:

            async def reader() -> None:
                with introspector.session("reader", agent_name="a"):
                    await anyio.wait_readable(ours)

            async def culprit() -> None:
                with introspector.session("culprit", agent_name="a"):
                    await anyio.sleep(0.001)
                    clock.advance(0.3)
                    theirs.send(b"x")

            async with anyio.create_task_group() as group:
                group.start_soon(reader)
                group.start_soon(culprit)
            ours.close()
            theirs.close()
            return introspector.blocks()

    (block,) = on_timed_loops(main())
    assert [(each.session_id, round(each.delayed_ms), each.exact) for each in block.delayed] == [("reader", 300, False)]


def test_on_uvloop_delayed_sessions_are_not_known() -> None:
    """The block has null, not an empty list, and so have the rows."""
    import uvloop

    from openrtc_introspect_testing._loops.fake_clock import FakeClock

    async def main() -> Any:
        clock = FakeClock()
        async with Introspector(socket_path=False, stacks=False, clock=clock) as introspector:

            async def work() -> None:
                clock.advance(0.2)

            with introspector.session("culprit", agent_name="a"):
                await asyncio.create_task(work())
                return introspector.blocks(), introspector.snapshot().sessions

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        (block,), (row,) = runner.run(main())
    assert block.delayed is None
    assert (row.delayed_s, row.worst_delay_ms) == (None, None)


@pytest.mark.parametrize("count", [0, 1, 10, 1000])
def test_all_overdue_timers_are_found_and_no_other(count: int) -> None:
    """They are found in any order of the heap."""
    loop = asyncio.new_event_loop()
    binding: Binding = ContextVar("binding")
    delays = AsyncioDelays(loop, binding)
    now = loop.time()
    for n in range(count):
        context = Context()
        context.run(binding.set, session(f"job-{n}"))
        loop.call_later(1000.0 if n % 3 == 0 else 0.0, lambda: None, context=context)
    waits = delays.waiting(5.0)
    loop.close()
    assert len(waits) == count - len(range(0, count, 3))
    assert loop.time() >= now
