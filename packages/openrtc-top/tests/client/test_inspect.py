"""Asking a worker after one of its sessions."""

from __future__ import annotations

import anyio
import pytest
from msgspec import structs

from openrtc_introspect_core import connect
from openrtc_introspect_core.wire import Location, Snapshot, TaskInfo, ThreadStack, WorkerInfo
from openrtc_introspect_testing import FakeWorker
from openrtc_top._client.follow import follow
from openrtc_top._client.inspect import inspect
from openrtc_top._client.targets import worker_at
from openrtc_top._model.events import Event, Frame, Inspected
from openrtc_top._model.page import Inspection

SNAPSHOT = Snapshot(worker=WorkerInfo(name="fake", pid=1))
TASKS = [TaskInfo(id=1, name="entrypoint")]
CALL = [Location("agent.py", 42, "lookup")]
LOOP = ThreadStack(name="MainThread", thread_id=1, loop=True, session_id="job-1", frames=CALL)
OTHER = ThreadStack(name="pool", thread_id=2, session_id=None, frames=[Location("x.py", 1, "x")])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def asked(session_id: str, *, lacks: tuple[str, ...] = ()) -> Inspection:
    with FakeWorker([SNAPSHOT], tasks={"job-1": TASKS, "job-2": []}, stacks=[LOOP, OTHER]) as fake:
        async with connect(fake.path) as client:
            serves = [capability for capability in client.hello.capabilities if capability not in lacks]
            client.hello = structs.replace(client.hello, capabilities=serves)
            return await inspect(client, session_id)


@pytest.mark.anyio
async def test_tasks_and_stack(anyio_backend: str) -> None:
    """The stack is the loop's thread's, if it is the session that runs there."""
    assert await asked("job-1") == Inspection(tasks=TASKS, stack=CALL)
    assert await asked("job-2") == Inspection(tasks=[], stack=[])


@pytest.mark.anyio
async def test_a_session_that_just_ended(anyio_backend: str) -> None:
    """It is no error: the next snapshot shows it."""
    answer = await asked("job-3")
    assert answer.tasks is None
    assert "job-3" in answer.problem


@pytest.mark.anyio
async def test_an_older_worker(anyio_backend: str) -> None:
    """A part that it does not serve is not asked for, and is named."""
    answer = await asked("job-1", lacks=("tasks",))
    assert (answer.tasks, answer.stack, answer.problem) == (
        None, CALL, "this worker does not report tasks: too old, or in process mode",
    )  # fmt: skip
    answer = await asked("job-1", lacks=("tasks", "stacks"))
    assert (answer.tasks, answer.stack) == (None, None)
    assert "tasks or stacks" in answer.problem


@pytest.mark.anyio
async def test_it_is_asked_with_each_frame_while_wanted(anyio_backend: str) -> None:
    """An Inspected follows each Frame for as long as a session is named, and none after."""
    events: list[Event] = []
    now = anyio.Event()
    now.set()
    with FakeWorker([SNAPSHOT], tasks={"job-1": TASKS}) as fake, anyio.move_on_after(20):
        assert fake.path is not None
        async with anyio.create_task_group() as tasks:

            def dispatch(event: Event) -> None:
                events.append(event)
                if len(events) == 6:
                    tasks.cancel_scope.cancel()

            def wanted() -> str | None:
                return "job-1" if len(events) < 4 else None

            tasks.start_soon(follow, worker_at(fake.path), 0.001, dispatch, lambda: now, lambda: True, 0, wanted)
    assert [type(event) for event in events] == [Frame, Inspected, Frame, Inspected, Frame, Frame]
    assert events[1] == Inspected(str(fake.path), "job-1", Inspection(tasks=TASKS, stack=[]))
