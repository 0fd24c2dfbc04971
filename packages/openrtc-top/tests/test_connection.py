"""Finding workers, reading them once, following them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from openrtc_introspect_core import ConnectionFailed
from openrtc_introspect_core.wire import Snapshot, WorkerSocket
from openrtc_top._connection import choose, find, follow, given, read, read_all
from openrtc_top._state import Event, Frame, Gone

StartWorker = Callable[..., subprocess.Popen[bytes]]
WORKERS = [
    WorkerSocket(Path("voice_a-7.sock"), "voice_a", 7),
    WorkerSocket(Path("voice_a-8.sock"), "voice_a", 8),
    WorkerSocket(Path("chat.sock"), "chat", None),
]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ([], [0, 1, 2]),
        (["voice-a"], [0, 1]),
        (["voice_a"], [0, 1]),
        (["8"], [1]),
        (["chat", "7"], [0, 2]),
        (["None"], []),
        (["nobody"], []),
    ],
)
def test_choose(wanted: list[str], chosen: list[int]) -> None:
    """By name, as the worker or its socket's file calls it, or by process id."""
    assert choose(WORKERS, wanted) == [WORKERS[index] for index in chosen]


def test_find_and_read(start_worker: StartWorker, runtime_dir: Path) -> None:
    """A running worker is found by its name and by its pid, and tells its sessions."""
    process = start_worker("find-me", 3)
    (found,) = find(["find-me"])
    assert find([str(process.pid)]) == [found]
    assert found.path.parent == runtime_dir
    answer = read(found)
    assert isinstance(answer, Snapshot)
    assert [session.session_id for session in answer.sessions] == ["job-0000", "job-0001", "job-0002"]


def test_read_all(start_worker: StartWorker, tmp_path: Path) -> None:
    """One that is not there fails alone, and answers come in the order asked for."""
    start_worker("read-all", 1)
    missing = given(tmp_path / "missing.sock")
    (found,) = find(["read-all"])
    (first, error), (second, answer) = read_all([missing, found])
    assert (first, second) == (missing, found)
    assert isinstance(error, ConnectionFailed)
    assert isinstance(answer, Snapshot)


@pytest.mark.anyio
async def test_follow(start_worker: StartWorker, anyio_backend: str) -> None:
    """Frames come each interval and at once on demand; a worker that ends is Gone until unwanted."""
    process = start_worker("follow-me", 2)
    (found,) = find(["follow-me"])
    events: list[Event] = []
    refresh = anyio.Event()
    came = anyio.Event()
    wanted = True

    def dispatch(event: Event) -> None:
        events.append(event)
        came.set()

    async def next_event() -> Event:
        nonlocal came
        await came.wait()
        came = anyio.Event()
        return events[-1]

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, found, 60.0, dispatch, lambda: refresh, lambda: wanted)
            first = await next_event()
            assert isinstance(first, Frame)
            assert first.worker == str(found.path)
            asked, refresh = refresh, anyio.Event()
            asked.set()
            second = await next_event()
            assert isinstance(second, Frame)
            assert second.snapshot.taken_at >= first.snapshot.taken_at
            process.kill()
            # Idle for a minute by its interval, it finds out when it asks again.
            asked, refresh = refresh, anyio.Event()
            asked.set()
            assert await next_event() == Gone(str(found.path), "no connection")
            wanted = False


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
