"""A server that keeps to the protocol's page, or to all of it but one rule, and its directory."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from openrtc_introspect_core.wire import (
    CAPABILITIES,
    Block,
    Hello,
    Limits,
    Location,
    SessionRow,
    Snapshot,
    TaskInfo,
    ThreadStack,
    Waiter,
    WaitGroup,
    Waits,
    WorkerInfo,
)
from openrtc_introspect_testing._workers.conversation import Conversation
from openrtc_introspect_testing._workers.listening import listening
from openrtc_introspect_testing._workers.raw_server import RawServer
from openrtc_introspect_testing._workers.scripted_source import ScriptedSource

replace = msgspec.structs.replace
PLACES = [Location("agent.py", number, "answer") for number in range(1, 65)]
TASKS = [
    TaskInfo(id=1, name="Task-1", coroutine="entrypoint", awaits=PLACES),
    TaskInfo(id=2, name="Task-2", coroutine="answer", state="running", awaits=PLACES, awaited_by=[1]),
]
STACKS = [
    ThreadStack(name="MainThread", thread_id=7, loop=True, session_id="job", task_name="Task-2", frames=PLACES),
    ThreadStack(name="", thread_id=8),
]
WAITS = Waits(
    id=0,
    sessions=2,
    tasks=3,
    groups=[
        WaitGroup(
            kind="lock", shared=True, sessions=2, tasks=2, stuck=1,
            waiters=[Waiter(session_id="job", since=1e9 + 2), Waiter(since=1e9 + 3)],
        ),
        WaitGroup(kind="timer", sessions=1, tasks=1),
    ],
)  # fmt: skip
BLOCKS = [Block(seq=seq, started_at=1e9 + seq, duration_ms=60.0) for seq in (3, 4, 5)]


class RisingTotals(ScriptedSource):
    """Snapshots as a worker builds them: totals rise, and all figures are of one moment."""

    def __init__(self) -> None:
        super().__init__(BLOCKS, {"job": TASKS}, STACKS, WAITS)
        self._seq = itertools.count(1)

    def snapshot(self) -> Snapshot:
        seq = next(self._seq)
        now = 1e9 + 100 + seq
        worker = WorkerInfo(
            name="w", pid=os.getpid(), epoch="e", started_at=1e9, uptime_s=now - 1e9, sessions=1, started=1, blocks=5
        )
        row = SessionRow(
            session_id="job", agent_name="a", started_at=1e9 + 1, duration_s=now - 1e9 - 1, cpu_s=10.0 + seq, steps=seq
        )
        block = Block(seq=0, started_at=now - 1, duration_ms=1000.0, in_progress=True, running_since=now - 1)
        return Snapshot(seq=seq, taken_at=now, worker=worker, sessions=[row], blocks_in_progress=[block])


@contextlib.contextmanager
def serve(
    folder: Path,
    conversation: type[Conversation] = Conversation,
    limits: Limits | None = None,
    capabilities: tuple[str, ...] = CAPABILITIES,
) -> Iterator[Path]:
    hello = Hello(
        protocol="1.0",
        worker="w",
        pid=os.getpid(),
        epoch="e",
        capabilities=list(capabilities),
        limits=limits or Limits(),
    )
    with (
        listening("w", folder / f"w-{os.getpid()}.sock") as (listener, path),
        RawServer(listener, hello, RisingTotals(), conversation),
    ):
        yield path


@pytest.fixture
def folder() -> Iterator[Path]:
    """Make a private directory whose path is short enough for a socket's."""
    with tempfile.TemporaryDirectory(prefix="openrtc-c-", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
def served() -> Callable[..., contextlib.AbstractContextManager[Path]]:
    """Return a function that serves on a socket in a folder, and yields the socket's path."""
    return serve
