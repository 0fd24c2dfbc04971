"""Finding workers, and reading them once."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openrtc_introspect_core import ConnectionFailed, ProtocolError
from openrtc_introspect_core.wire import Block, Snapshot, WorkerInfo, WorkerSocket
from openrtc_introspect_testing import FakeWorker
from openrtc_top._client import query
from openrtc_top._client.query import ask, read, read_all, read_all_blocks, short_reason
from openrtc_top._client.targets import choose, find, worker_at
from openrtc_top._model.box_reading import BoxReading

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
        (["voice a"], [0, 1]),
        (["voice-a"], []),
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
    """A running worker is found by its name and by its pid, and reports its sessions."""
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
    missing = worker_at(tmp_path / "missing.sock")
    (found,) = find(["read-all"])
    (first, error), (second, answer) = read_all([missing, found])
    assert (first, second) == (missing, found)
    assert isinstance(error, ConnectionFailed)
    assert isinstance(answer, Snapshot)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ConnectionFailed("worker at '/x.sock' closed the connection"), "it closed the connection"),
        (ConnectionFailed("no worker answers at '/x.sock': Connection refused"), "nothing serves its socket any more"),
        (ConnectionFailed("no worker answers at '/x.sock': No such file or directory"), "its socket is gone"),
        (ConnectionFailed("no worker answers at '/x.sock': Permission denied"), "Permission denied"),
        (ConnectionFailed("no worker answers at '/x.sock': nothing heard within 5 s"), "nothing heard within 5 s"),
        (ConnectionFailed("no worker answers at 'a:/x.sock': ssh: no route: 'b': c"), "ssh: no route: 'b': c"),
        (TimeoutError(), "it does not answer"),
        (
            ProtocolError("the worker speaks protocol 2.0, this client 1.0"),
            "the worker speaks protocol 2.0, this client 1.0",
        ),
    ],
)
def test_reason(error: Exception, why: str) -> None:
    """The reason without the path, which is shown beside it."""
    assert short_reason(error) == why


def test_read_all_blocks(tmp_path: Path) -> None:
    """Those above a number, oldest first; a worker that is not there fails alone."""
    with FakeWorker([Snapshot(worker=WorkerInfo(name="voice", pid=1))], blocks=[Block(seq=1), Block(seq=2)]) as fake:
        assert fake.path is not None
        missing, found = worker_at(tmp_path / "missing.sock"), worker_at(fake.path)
        (_, error), (_, blocks) = read_all_blocks([missing, found], since=1)
    assert isinstance(error, ConnectionFailed)
    assert blocks == [Block(seq=2)]


# --- workers that do not answer ------------------------------------------------------------------

Frozen = Callable[..., Any]  # makes a FrozenWorker, see conftest.py


def at(worker: Any) -> WorkerSocket:
    return worker_at(worker.path)


def test_a_frozen_worker_is_read_from_its_box(frozen: Frozen) -> None:
    """Its session is blocked, for so long, and the rest is as old as it is."""
    worker = frozen(held_s=8.0)
    answer = read(at(worker))
    assert isinstance(answer, BoxReading)
    assert [row.status for row in answer.snapshot.sessions] == ["blocked", "active"]
    assert answer.age_s >= 9.0
    assert not worker.thawed.is_set()


@pytest.mark.parametrize("keeper", [0, 1, 2])
def test_whoever_keeps_the_gil(keeper: int, frozen: Frozen) -> None:
    """And if it is not known whether it is kept."""
    assert isinstance(read(at(frozen(keeper=keeper))), BoxReading)


def test_a_slow_worker_is_waited_for(frozen: Frozen) -> None:
    """Its loop is free, and it writes its box meanwhile: the answer is its own."""
    worker = frozen(held_s=None, at=time.time() + 60.0)
    threading.Timer(1.0, worker.thawed.set).start()
    assert isinstance(read(at(worker)), Snapshot)


def test_a_worker_that_writes_nothing_any_more(frozen: Frozen, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped process, say: what it did is better than nothing, and has its age."""
    monkeypatch.setattr(query, "PATIENCE_S", (0.01, 0.01))
    answer = read(at(frozen(held_s=None, at=time.time() - 30.0)))
    assert isinstance(answer, BoxReading)
    assert answer.held is None


def test_a_worker_without_a_box_may_be_frozen(frozen: Frozen, runtime_dir: Path) -> None:
    """That is what the error says, after as long as ever."""
    worker = frozen()
    worker.path.with_suffix(".box").unlink()
    answer = read(at(worker), timeout_s=0.3)
    assert isinstance(answer, ConnectionFailed)
    assert str(answer).endswith(": nothing heard within 0.3 s, it may be frozen: it has no black box")


def test_a_broken_box(frozen: Frozen) -> None:
    """The error says what is wrong with it."""
    worker = frozen()
    worker.path.with_suffix(".box").chmod(0o644)
    assert "it may be frozen: black box" in str(read(at(worker), timeout_s=0.3))


def test_the_blocks_of_a_frozen_worker(frozen: Frozen) -> None:
    """Those of its box, above the number."""
    worker = frozen(blocks=[Block(seq=1), Block(seq=2)])
    ((_, blocks),) = read_all_blocks([at(worker)], since=1)
    assert blocks == [Block(seq=2)]


def test_a_question_to_a_frozen_worker(frozen: Frozen) -> None:
    """Any question is answered with the reading of its box."""
    assert isinstance(ask(at(frozen()), lambda client: client.tasks("job-c1d550")), BoxReading)


def test_a_question_to_a_slow_worker(frozen: Frozen) -> None:
    """Is answered by itself."""
    slow = frozen(held_s=None)
    threading.Timer(0.5, slow.thawed.set).start()
    assert isinstance(ask(at(slow), lambda client: client.snapshot()), Snapshot)


@pytest.mark.parametrize("has_box", [True, False])
def test_a_question_that_is_not_answered(has_box: bool, frozen: Frozen, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a worker whose loop is free: what its box says, or the error that it may be frozen."""
    monkeypatch.setattr(query, "READ_TIMEOUT_S", 0.5)
    worker = frozen(held_s=None)
    if has_box:
        assert isinstance(ask(at(worker), lambda client: client.snapshot()), BoxReading)
        return
    worker.path.with_suffix(".box").unlink()
    with pytest.raises(ConnectionFailed, match=r"nothing heard within 0.5 s, it may be frozen: it has no black box"):
        ask(at(worker), lambda client: client.snapshot())
