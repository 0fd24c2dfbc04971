"""anyio's BlockingPortal, and its way back from a thread: what they run is the session's of the code that calls."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from openrtc_introspect_core import Introspector

STEP_S = 0.01


class Clock:
    """A clock that only the work moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Worker:
    """An introspector on the loop of a portal."""

    def __init__(self, portal: BlockingPortal) -> None:
        self.clock = Clock()
        self.portal = portal
        self.introspector = Introspector(socket_path=False, stacks=False, clock=self.clock)
        portal.call(self.introspector.attach)

    async def work(self) -> None:
        await anyio.sleep(0)
        self.clock.now += STEP_S
        await anyio.sleep(0)


@pytest.fixture(params=["asyncio", "trio"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    with start_blocking_portal(request.param) as portal:
        worker = Worker(portal)
        yield worker
        worker.introspector.close()


def test_what_a_thread_calls_is_its_session_s(worker: Worker) -> None:
    """By `call`, and by `start_task_soon`."""
    with worker.introspector.session("of a thread", agent_name="a") as session:
        worker.portal.call(worker.work)
        called = session.busy
        worker.portal.start_task_soon(worker.work).result()
        assert (called, session.busy) == (pytest.approx(STEP_S), pytest.approx(2 * STEP_S))


def test_what_a_session_s_thread_calls_back_is_the_session_s(worker: Worker) -> None:
    """By `from_thread.run`."""

    async def calls() -> float:
        with worker.introspector.session("s", agent_name="a") as session:
            await anyio.to_thread.run_sync(anyio.from_thread.run, worker.work)
            return session.busy

    assert worker.portal.call(calls) == pytest.approx(STEP_S)
