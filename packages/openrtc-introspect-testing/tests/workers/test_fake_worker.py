"""FakeWorker, well-behaved and misbehaving, under real clients."""

from __future__ import annotations

import asyncio
import socket
from typing import get_args

import pytest

from openrtc_introspect_core import (
    IntrospectError,
    ProtocolError,
    RequestFailed,
    Snapshot,
    connect,
    read_blocks,
    read_snapshot,
)
from openrtc_introspect_core.wire import (
    Block,
    SessionRow,
    Stacks,
    TaskInfo,
    Tasks,
    ThreadStack,
    WaitGroup,
    Waits,
    WallTime,
    WorkerInfo,
)
from openrtc_introspect_testing import MISBEHAVIOURS, FakeWorker
from openrtc_introspect_testing._workers.misbehaviour import HOSTILE, Misbehaviour

ROW = SessionRow(session_id="job", agent_name="restaurant")
SNAPSHOT = Snapshot(seq=1, taken_at=1e9, worker=WorkerInfo(name="fake", pid=1), sessions=[ROW])
SECOND = Snapshot(seq=2, taken_at=1e9 + 1, worker=WorkerInfo(name="fake", pid=1))
BEHAVED = ("newer-minor", "older-minor", "slow", "hostile-names")
"""A client reads these workers without an error."""
UP_TO_DATE = tuple(each for each in BEHAVED if each != "older-minor")


def test_it_serves_its_script_and_then_the_last_of_it() -> None:
    """It serves one snapshot after the other."""
    with FakeWorker([SNAPSHOT, SECOND]) as worker:
        assert [read_snapshot(worker.path).seq for _ in range(3)] == [1, 2, 2]
        worker.then(SNAPSHOT)
        assert read_snapshot(worker.path).seq == 1


def test_it_serves_blocks() -> None:
    """It serves those after a number."""
    with FakeWorker([SNAPSHOT], blocks=[Block(seq=1), Block(seq=2)]) as worker:
        assert [block.seq for block in read_blocks(worker.path, since=1).blocks] == [2]


@pytest.mark.parametrize("misbehave", [None, *UP_TO_DATE])
def test_it_serves_tasks_and_stacks(misbehave: Misbehaviour | None) -> None:
    """It finds a session's tasks by its id, and no other's. Hostile names occur in them, too."""
    task, thread = TaskInfo(id=1, name="Task-1"), ThreadStack(name="MainThread", thread_id=7, loop=True)
    hostile = HOSTILE if misbehave == "hostile-names" else ""

    async def asked() -> tuple[Tasks, Stacks]:
        worker = FakeWorker([SNAPSHOT], tasks={"job": [task]}, stacks=[thread], misbehave=misbehave)
        with worker:
            async with connect(worker.path) as client:
                with pytest.raises(RequestFailed) as caught:
                    await client.tasks("another")
                assert caught.value.code == "not-found"
                return await client.tasks(hostile + "job"), await client.stacks()

    tasks, stacks = asyncio.run(asked())
    assert (tasks.session_id, [each.id for each in tasks.tasks]) == (hostile + "job", [1])
    assert tasks.tasks[0].name == (hostile or "Task-1")
    assert [each.name for each in stacks.threads] == [hostile or "MainThread"]


@pytest.mark.parametrize("misbehave", [None, *UP_TO_DATE])
def test_it_serves_waits_and_wall_times(misbehave: Misbehaviour | None) -> None:
    """What the tasks wait for has the request's id, and the wall time is in the answer about the tasks."""
    waits = Waits(id=0, groups=[WaitGroup(kind="lock", what="asyncio.Lock", sessions=1, tasks=1)])
    hostile = HOSTILE if misbehave == "hostile-names" else ""

    async def asked() -> tuple[Waits, Tasks]:
        tasks = Tasks(id=0, session_id="job", wall_time=WallTime(total_s=3.0))
        worker = FakeWorker([SNAPSHOT], tasks={"job": tasks}, waits=waits, misbehave=misbehave)
        with worker:
            async with connect(worker.path) as client:
                return await client.waits(), await client.tasks(hostile + "job")

    answer, tasks = asyncio.run(asked())
    assert [(group.kind, group.what) for group in answer.groups] == [("lock", hostile or "asyncio.Lock")]
    assert tasks.wall_time == WallTime(total_s=3.0)


def test_it_can_be_older() -> None:
    """It refuses the requests that its capabilities do not have."""

    async def asked() -> None:
        with FakeWorker([SNAPSHOT], misbehave="older-minor") as worker:
            async with connect(worker.path) as client:
                await client.waits()

    with pytest.raises(RequestFailed, match="waits"):
        asyncio.run(asked())


def test_an_error_in_the_script_is_the_worker_s() -> None:
    """It is whether the worker misbehaves or not."""
    for misbehave in (None, "slow"):
        script = [RuntimeError("no ledger"), SNAPSHOT]
        with FakeWorker(script, misbehave=misbehave) as worker:  # type: ignore[arg-type]
            with pytest.raises(RequestFailed, match="RuntimeError: no ledger"):
                read_snapshot(worker.path)
            assert read_snapshot(worker.path).seq == 1


@pytest.mark.parametrize("misbehave", [each for each in MISBEHAVIOURS if each not in BEHAVED])
def test_a_misbehaving_worker_is_an_error_for_a_client(misbehave: Misbehaviour) -> None:
    """The error is of one of the project's own classes."""
    with FakeWorker([SNAPSHOT], misbehave=misbehave) as worker, pytest.raises(IntrospectError):
        read_snapshot(worker.path, timeout_s=0.3 if misbehave == "silent" else 20.0)


@pytest.mark.parametrize("misbehave", BEHAVED)
def test_what_is_unusual_only_is_read(misbehave: Misbehaviour) -> None:
    """The client reads a newer worker, a slow one, and one with hostile text."""
    with FakeWorker([SNAPSHOT], blocks=[Block(seq=1)], misbehave=misbehave) as worker:
        snapshot = read_snapshot(worker.path, timeout_s=20.0)
        assert read_blocks(worker.path, timeout_s=20.0).last_seq == 1
    assert snapshot.sessions[0].session_id == (HOSTILE + "job" if misbehave == "hostile-names" else "job")


def test_the_other_major_version_is_named() -> None:
    """The client asks nothing of that worker."""
    with FakeWorker([SNAPSHOT], misbehave="other-major") as worker:
        with pytest.raises(ProtocolError, match=r"speaks protocol 2\.0, this client 1\."):
            read_snapshot(worker.path)
        assert worker.heard in ([], [[]])


def test_a_refusal_carries_its_code() -> None:
    """The code is that of a real worker."""
    with FakeWorker([SNAPSHOT], misbehave="refuses") as worker, pytest.raises(RequestFailed) as caught:
        read_snapshot(worker.path)
    assert caught.value.code == "too-many-clients"


def test_a_half_line_has_no_line_feed() -> None:
    """It ends in the middle."""
    with FakeWorker([SNAPSHOT], misbehave="half-line") as worker, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(worker.path))
        heard = b"".join(iter(lambda: client.recv(65536), b""))
    assert heard.startswith(b'{"type":"hello"')
    assert not heard.endswith((b"}", b"\n"))


def test_it_leaves_nothing_behind() -> None:
    """The socket and its directory are gone, whether the worker misbehaved or not."""
    for misbehave in (None, "silent"):
        with FakeWorker([SNAPSHOT], misbehave=misbehave) as worker:  # type: ignore[arg-type]
            path = worker.path
            assert path is not None
            assert path.exists()
        assert not path.parent.exists()


def test_how_it_is_to_misbehave_is_checked() -> None:
    """The error comes before it serves."""
    with pytest.raises(ValueError, match=r"misbehave must be one of garbage, half-line, .*, got 'badly'"):
        FakeWorker([SNAPSHOT], misbehave="badly")  # type: ignore[arg-type]


def test_each_misbehaviour_has_its_name() -> None:
    """Type checkers know the names, too."""
    assert tuple(MISBEHAVIOURS) == get_args(Misbehaviour)
