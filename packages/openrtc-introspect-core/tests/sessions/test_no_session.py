"""Code and tasks that belong to no session, inside of a session's scope."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from openrtc_introspect_core import Introspector, current_session, no_session
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_testing._loops.backends import Backend, in_task


@pytest.mark.parametrize("whose", ["introspector", "package"])
def test_a_task_made_inside_belongs_to_no_session(virtually: Backend, whose: str) -> None:
    """Its loop time is untagged, also once the session is over."""

    async def main() -> Any:
        async with Introspector(socket_path=False, clock=virtually.clock) as introspector:
            release = anyio.Event()
            seen: list[object] = []

            async def shared() -> None:
                seen.append(current_session())
                await release.wait()
                virtually.block(0.02)

            async with anyio.create_task_group() as group:

                async def first() -> None:
                    with introspector.session("first", agent_name="a"):
                        with introspector.no_session() if whose == "introspector" else no_session():
                            group.start_soon(shared)
                        seen.append(current_session().session_id)  # type: ignore[union-attr]
                        await anyio.sleep(1)

                await in_task(first)
                release.set()
            (loop,) = parts_of(introspector).loops
            return seen, loop.ledger.untagged.busy, parts_of(introspector).shared.sessions.outlived(float("inf"))

    seen, untagged, outlived = virtually(main())
    assert (seen, outlived) == (["first", None], [])
    assert untagged == pytest.approx(0.02)


def test_the_step_is_charged_to_each_part_s_own(virtually: Backend) -> None:
    """In the middle of a step, to the microsecond."""

    async def main() -> Any:
        async with Introspector(socket_path=False, clock=virtually.clock) as introspector:

            async def work() -> float:
                with introspector.session("call", agent_name="a") as session:
                    virtually.block(0.001)
                    with introspector.no_session():
                        virtually.block(0.002)
                        with introspector.session("inner", agent_name="a") as inner:
                            virtually.block(0.004)
                        virtually.block(0.008)
                        await anyio.sleep(0)
                        virtually.block(0.016)
                    virtually.block(0.032)
                    await anyio.sleep(0)
                    return session.busy, inner.busy

            busy = await in_task(work)
            (loop,) = parts_of(introspector).loops
            return *busy, loop.ledger.untagged.busy

    assert virtually(main()) == tuple(map(pytest.approx, (0.033, 0.004, 0.026)))


def test_in_a_task_older_than_the_introspector(virtually: Backend) -> None:
    """Its scope is adopted, and the rest of the step is the session's again."""

    async def main() -> Any:
        async with Introspector(socket_path=False, clock=virtually.clock) as introspector:
            with introspector.session("call", agent_name="a") as session:
                virtually.block(0.001)
                with introspector.no_session():
                    virtually.block(0.002)
                    await anyio.sleep(0)
                    virtually.block(0.004)
                virtually.block(0.008)
                await anyio.sleep(0)
                return session.busy

    assert virtually(main()) == pytest.approx(0.009)


def test_outside_of_sessions_it_changes_nothing(run_anywhere: Backend) -> None:
    """It can be entered there, and twice."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            outside = introspector.no_session()
            with outside, no_session():
                pass
            with outside:
                return current_session()

    assert run_anywhere(main()) is None


def test_only_its_own_introspector_s_sessions_are_left(run_on_asyncio: Backend) -> None:
    """The function of the package leaves those of all."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as one, Introspector(socket_path=False) as two:
            first, second = (parts_of(each).shared.sessions.binding for each in (one, two))
            with one.session("a", agent_name="a"), two.session("b", agent_name="b"):
                with one.no_session():
                    seen = [first.get(None), second.get(None).session_id]  # type: ignore[union-attr]
                with no_session():
                    return seen, [first.get(None), second.get(None)]

    assert run_on_asyncio(main()) == ([None, "b"], [None, None])


def test_without_metering_the_tag_follows() -> None:
    """With cpu="sampled" the task that runs inside is no session's."""

    async def main() -> Any:
        async with Introspector(socket_path=False, cpu="sampled") as introspector:
            (loop,) = parts_of(introspector).loops
            with introspector.session("call", agent_name="a") as session:
                with introspector.no_session():
                    inside = loop.hook.running_session()
                return inside, loop.hook.running_session() is session

    assert asyncio.run(main()) == (None, True)


def test_a_fault_of_ours_does_not_reach_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is noted."""

    async def main() -> Any:
        async with Introspector(socket_path=False) as introspector:
            (loop,) = parts_of(introspector).loops
            with introspector.session("call", agent_name="a") as session:
                monkeypatch.setattr(loop.hook, "rebind", lambda: 1 / 0)
                with introspector.no_session():
                    pass
                return current_session() is session, introspector.snapshot().worker.notes

    same, notes = asyncio.run(main())
    assert same
    assert [note for note in notes if "code outside of sessions could not be metered" in note]
