"""Asking a worker what its tasks wait for."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from openrtc_introspect_core import connect
from openrtc_introspect_core.wire import Snapshot, Waits, WorkerInfo
from openrtc_introspect_testing import FakeWorker
from openrtc_top._client import follow as follow_module
from openrtc_top._client.follow import follow
from openrtc_top._client.survey import survey
from openrtc_top._client.targets import worker_at
from openrtc_top._model.events import Event, Frame, Surveyed

SNAPSHOT = Snapshot(worker=WorkerInfo(name="fake", pid=1))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_an_answer_or_the_reason_why_there_is_none(anyio_backend: str, make_waits: Callable[..., Waits]) -> None:
    """An older worker is not asked."""
    with FakeWorker([SNAPSHOT], waits=make_waits()) as fake:
        async with connect(fake.path) as client:
            answer = await survey(client)
    assert answer.waits is not None
    assert answer.waits.groups == make_waits().groups
    with FakeWorker([SNAPSHOT], misbehave="older-minor") as fake:
        async with connect(fake.path) as client:
            answer = await survey(client)
        assert fake.heard == [[]]
    assert answer.waits is None
    assert "waits came with protocol 1.2" in answer.problem


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("least_s", "kinds"), [(0.0, [Frame, Surveyed] * 3), (3600.0, [Frame, Surveyed, Frame, Frame])]
)
async def test_it_is_asked_with_frames_but_not_too_often(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch, least_s: float, kinds: list[type[Event]]
) -> None:
    """A Surveyed follows a Frame while it is wanted, unless the last one is younger than the least time between two."""
    monkeypatch.setattr(follow_module, "SURVEY_S", least_s)
    events: list[Event] = []
    now = anyio.Event()
    now.set()
    with FakeWorker([SNAPSHOT]) as fake, anyio.move_on_after(20):
        assert fake.path is not None
        async with anyio.create_task_group() as tasks:

            def dispatch(event: Event) -> None:
                events.append(event)
                if len(events) == len(kinds):
                    tasks.cancel_scope.cancel()

            tasks.start_soon(
                lambda: follow(worker_at(fake.path), 0.001, dispatch, lambda: now, lambda: True, surveys=lambda: True)
            )
    assert [type(event) for event in events] == kinds
