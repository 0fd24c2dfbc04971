"""Following workers: their snapshots and blocks as events, and what becomes of those that are lost."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from followed import Followed, running

from openrtc_introspect_core.wire import Block, Snapshot, WorkerInfo, WorkerSocket
from openrtc_introspect_testing import FakeWorker
from openrtc_top._client import follow as follow_module
from openrtc_top._client import query
from openrtc_top._client.black_boxes import dead_finder
from openrtc_top._client.follow import follow
from openrtc_top._client.targets import Target, find, worker_at
from openrtc_top._model.events import Blocked, Died, Event, Frame, Gone, Unanswered

StartWorker = Callable[..., subprocess.Popen[bytes]]


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
            last = await next_event()
            assert isinstance(last, Gone)
            assert (last.worker, last.reason) == (str(found.path), "it closed the connection")
            wanted = False


def of(kind: type[Event], why: str | None = None) -> Callable[[Event], bool]:
    """Return whether an event is of this kind, for this reason."""
    return lambda event: isinstance(event, kind) and (why is None or getattr(event, "reason", None) == why)


def following(worker: WorkerSocket) -> contextlib.AbstractAsyncContextManager[Followed]:
    """A worker, asked again and again."""
    never = anyio.Event()

    async def follow_one(followed: Followed) -> None:
        await follow(worker, 0.02, followed.dispatch, lambda: never, lambda: True)

    return running(follow_one, 30)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow_module, "BACKOFF_S", 0.02)
    monkeypatch.setattr(query, "READ_TIMEOUT_S", 0.5)


@pytest.mark.anyio
async def test_a_killed_worker_and_its_successor(impatient: None, anyio_backend: str) -> None:
    """The socket file stays, and nobody serves it; whoever serves it next is shown, as another epoch."""
    with FakeWorker([counting(0)]) as fake:
        assert fake.path is not None
        path = fake.path
        async with following(worker_at(path)) as followed:
            await followed.until(of(Frame))
            path.unlink()
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(path))
                fake.then(OSError("the next request fails, and so another connection is made"))
                await followed.until(of(Gone, "nothing serves its socket any more"))
            path.unlink()
            await followed.until(of(Gone, "its socket is gone"))
            with FakeWorker([counting(0, "second")], path=path):
                frame = await followed.until(of(Frame))
                assert frame.snapshot.worker.epoch == "second"


@pytest.mark.anyio
async def test_a_stopped_worker(impatient: None, start_worker: StartWorker, anyio_backend: str) -> None:
    """It takes connections and says nothing: it is Gone for that reason, and back when it goes on."""
    process = start_worker("stopped", 1)
    (found,) = find(["stopped"])
    async with following(found) as followed:
        await followed.until(of(Frame))
        process.send_signal(signal.SIGSTOP)
        try:
            event = await followed.until(of(Gone))
            assert event.reason in ("it does not answer", "nothing heard within 5 s")
        finally:
            process.send_signal(signal.SIGCONT)
        await followed.until(of(Frame))


@pytest.mark.anyio
async def test_a_server_of_another_protocol(impatient: None, runtime_dir: Path, anyio_backend: str) -> None:
    """Is Gone with what it said, for as long as it does."""
    path = runtime_dir / "other.sock"
    server = await anyio.create_unix_listener(path)

    async def greet(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.send(b'{"type":"hello","protocol":"2.0"}\n')

    async with server, anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, greet)
        async with following(worker_at(path)) as followed:
            event = await followed.until(of(Gone))
            assert event.reason.startswith("the worker speaks protocol 2.0, this client 1.3: use")
            await followed.until(of(Gone))
        tasks.cancel_scope.cancel()


# --- workers that do not answer ------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_worker_that_freezes_and_thaws(frozen: Callable[..., Any], anyio_backend: str) -> None:
    """Its box is read again and again, for longer than an answer is waited for; then the frame comes at once."""
    worker = frozen(held_s=8.0)
    async with following(worker_at(worker.path)) as followed:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(query, "READ_TIMEOUT_S", 0.5)
            first = await followed.until(of(Unanswered))
            assert first.reading.held.session_id == "job-c1d550"
            for _ in range(3):
                later = await followed.until(of(Unanswered))
                assert later.reading.held.duration_ms > first.reading.held.duration_ms
                assert not [event for event in followed.events if isinstance(event, Gone)]
            worker.thawed.set()
            await followed.until(of(Frame))


@pytest.mark.anyio
async def test_a_slow_worker_is_not_frozen(frozen: Callable[..., Any], anyio_backend: str) -> None:
    """Its box is read, which says that its loop is free; after as long as ever it is gone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(query, "READ_TIMEOUT_S", 0.5)
        async with following(worker_at(frozen(held_s=None).path)) as followed:
            told = await followed.until(of(Unanswered))
            assert told.reading.held is None
            await followed.until(of(Gone, "it does not answer"))


@pytest.mark.anyio
async def test_a_worker_that_dies_while_it_is_frozen(
    frozen: Callable[..., Any], runtime_dir: Path, anyio_backend: str
) -> None:
    """It is Gone, for what became of its socket."""
    path = runtime_dir / "bare.sock"
    server = socket.socket(socket.AF_UNIX)
    with server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(query, "READ_TIMEOUT_S", 0.5)
        server.bind(str(path))
        server.listen()
        async with following(worker_at(path)) as followed:
            await followed.until(of(Gone, "it does not answer, it may be frozen: it has no black box"))
            frozen_box = frozen("w", held_s=8.0).path.with_suffix(".box")
            frozen_box.rename(path.with_suffix(".box"))
            await followed.until(of(Unanswered))
            server.close()
            await followed.until(of(Gone, "nothing serves its socket any more"))


@pytest.mark.anyio
async def test_workers_that_died_are_listed(make_box: Callable[..., Any], anyio_backend: str) -> None:
    """At first, when one more does, and when none is left."""
    events: list[Event] = []
    box = make_box(dead=True)
    came = anyio.Event()

    def dispatch(event: Event) -> None:
        nonlocal came
        events.append(event)
        came.set()
        came = anyio.Event()

    with anyio.fail_after(30), pytest.MonkeyPatch.context() as patch:
        patch.setattr(follow_module, "RESCAN_S", 0.01)
        async with anyio.create_task_group() as tasks:
            never, target = anyio.Event(), Target()

            async def run() -> None:
                await follow_module.follow_all(
                    list, 1.0, dispatch, lambda: never, lambda key: True, find_dead=dead_finder(target)
                )

            tasks.start_soon(run)
            while not (events and isinstance(events[-1], Died) and len(events[-1].dead) == 1):
                await came.wait()
            box.path.unlink()
            while not (isinstance(events[-1], Died) and events[-1].dead == ()):
                await came.wait()
            tasks.cancel_scope.cancel()
    assert {type(event) for event in events} == {Died}


def counting(blocks: int, epoch: str = "first") -> Snapshot:
    """A snapshot of a worker that has blocked so often."""
    return Snapshot(worker=WorkerInfo(name="fake", pid=1, epoch=epoch, blocks=blocks))


@pytest.mark.anyio
async def test_blocks_are_asked_for_when_there_are_more(anyio_backend: str) -> None:
    """Blocked follows a Frame that counts more blocks than are known, from 1 again after a restart."""
    counts = [counting(0), counting(2), counting(2), counting(3), counting(1, "second"), counting(1, "second")]
    script = [msgspec.structs.replace(each, taken_at=1000.0 + n) for n, each in enumerate(counts)]
    with FakeWorker(script, blocks=[Block(seq=seq) for seq in (1, 2, 3)]) as fake:
        assert fake.path is not None
        events = await events_of(worker_at(fake.path), until=len(script))
    asked = [[block.seq for block in event.blocks] if isinstance(event, Blocked) else "frame" for event in events]
    # The reply may have more than the snapshot did.
    assert asked == ["frame", "frame", [1, 2, 3], "frame", "frame", "frame", [1, 2, 3], "frame"]


async def events_of(worker: WorkerSocket, until: int) -> list[Event]:
    """The events of a view that asks again and again, up to so many frames and what comes with the last.

    A worker that took long for a snapshot serves it twice, which is no frame more.
    """
    events: list[Event] = []
    taken: set[float] = set()
    now = anyio.Event()
    now.set()
    with anyio.move_on_after(20):
        async with anyio.create_task_group() as tasks:

            def dispatch(event: Event) -> None:
                if not (isinstance(event, Frame) and event.snapshot.taken_at in taken):
                    events.append(event)
                taken.update({event.snapshot.taken_at} if isinstance(event, Frame) else ())
                if len(taken) == until:
                    tasks.cancel_scope.cancel()

            tasks.start_soon(follow, worker, 0.001, dispatch, lambda: now, lambda: True)
    return events


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
