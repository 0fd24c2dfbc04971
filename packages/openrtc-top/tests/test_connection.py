"""Finding workers, reading them once, following them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from openrtc_introspect_core import ConnectionFailed
from openrtc_introspect_core.wire import Block, Snapshot, WorkerInfo, WorkerSocket
from openrtc_introspect_testing import FakeWorker
from openrtc_top._connection import BACKOFF_S, choose, find, follow, given, read, read_all, read_all_blocks
from openrtc_top._state import Blocked, Event, Frame, Gone

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
            assert await next_event() == Gone(str(found.path), "no connection", BACKOFF_S)
            wanted = False


def test_read_all_blocks(tmp_path: Path) -> None:
    """Those above a number, oldest first; a worker that is not there fails alone."""
    with FakeWorker([counting(0)], blocks=[Block(seq=1), Block(seq=2)]) as fake:
        assert fake.path is not None
        missing, found = given(tmp_path / "missing.sock"), given(fake.path)
        (_, error), (_, blocks) = read_all_blocks([missing, found], since=1)
    assert isinstance(error, ConnectionFailed)
    assert blocks == [Block(seq=2)]


def counting(blocks: int, epoch: str = "first") -> Snapshot:
    """A snapshot of a worker that has blocked so often."""
    return Snapshot(worker=WorkerInfo(name="fake", pid=1, epoch=epoch, blocks=blocks))


@pytest.mark.anyio
async def test_blocks_are_asked_for_when_there_are_more(anyio_backend: str) -> None:
    """Blocked follows a Frame that counts more blocks than are known, from 1 again after a restart."""
    script = [counting(0), counting(2), counting(2), counting(3), counting(1, "second"), counting(1, "second")]
    with FakeWorker(script, blocks=[Block(seq=seq) for seq in (1, 2, 3)]) as fake:
        assert fake.path is not None
        events = await followed(given(fake.path), until=len(script))
    asked = [[block.seq for block in event.blocks] if isinstance(event, Blocked) else "frame" for event in events]
    # The reply may tell of more than the snapshot did.
    assert asked == ["frame", "frame", [1, 2, 3], "frame", "frame", "frame", [1, 2, 3], "frame"]


async def followed(worker: WorkerSocket, until: int) -> list[Event]:
    """What a view that asks again and again is told, up to so many frames and what comes with the last."""
    events: list[Event] = []
    now = anyio.Event()
    now.set()
    with anyio.move_on_after(20):
        async with anyio.create_task_group() as tasks:

            def dispatch(event: Event) -> None:
                events.append(event)
                if sum(isinstance(event, Frame) for event in events) == until:
                    tasks.cancel_scope.cancel()

            tasks.start_soon(follow, worker, 0.001, dispatch, lambda: now, lambda: True)
    return events


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
