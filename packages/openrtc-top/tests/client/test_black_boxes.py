"""Black boxes of this machine: of workers that live, and of those that died."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openrtc_introspect_core import BoxError
from openrtc_introspect_core.black_box import find_boxes
from openrtc_introspect_core.black_box._writer import BoxWriter
from openrtc_introspect_core.wire import Snapshot, WorkerSocket
from openrtc_top._client import black_boxes
from openrtc_top._client.black_boxes import DeadWorkers, dead_finder, find_dead, read_box, read_live_box
from openrtc_top._client.targets import Target, worker_at
from openrtc_top._model.box_reading import BoxReading

MakeBox = Callable[..., BoxWriter]


def test_a_box_of_a_worker_that_is_held(make_box: MakeBox) -> None:
    """It has the worker's last snapshot, and the block in progress until now."""
    box = make_box(held_s=8.0, rows_left_out=3)
    told = read_box(box.path)
    assert (told.worker, told.pid, told.alive, told.rows_left_out, told.version) == ("voice-a", 41213, True, 3, "1.2.3")
    assert told.age_s >= 9.0
    assert told.held is not None
    assert told.held.duration_ms >= 8000.0
    assert (told.held.session_id, told.held.cause) == ("job-c1d550", "native")
    assert told.gil_kept


def test_the_box_beside_a_socket(make_box: MakeBox, runtime_dir: Path) -> None:
    """It is that of the worker that serves there, if that lives."""
    there = runtime_dir / "w-1.sock"
    assert read_live_box(worker_at(there)) == "it has no black box"
    box = make_box(socket=there)
    assert isinstance(read_live_box(worker_at(there)), BoxReading)
    box.close()
    assert read_live_box(worker_at(there)) == "it has died"
    box.path.write_bytes(b"x")
    problem = read_live_box(worker_at(there))
    assert isinstance(problem, str)
    assert problem.startswith(f"black box '{box.path}' is no black box")


def test_dead_workers(make_box: MakeBox, runtime_dir: Path) -> None:
    """The last one first; one that lives is none, and one that cannot be read is listed with the reason."""
    now = time.time()
    make_box("long-ago", dead=True, at=now - 500.0)
    make_box("lately", dead=True, at=now - 5.0, held_s=3.0)
    make_box("alive")
    (runtime_dir / "broken-7.box").touch(0o600)
    found = DeadWorkers().among(find_boxes(), [])
    assert [(each.name, each.pid) for each in found] == [("lately", 41213), ("long-ago", 41213), ("broken", 7)]
    assert [each.held is not None for each in found] == [True, False, False]
    assert found[0].age_s >= 5.0
    assert "is no black box" in str(found[2].error)


def test_the_boxes_of_workers_that_answer_are_not_read(make_box: MakeBox, runtime_dir: Path) -> None:
    """They are large, and their workers say more themselves."""
    box = make_box(socket=runtime_dir / "w-1.sock")
    box.path.chmod(0o666)  # which would be told
    assert DeadWorkers().among(find_boxes(), [worker_at(runtime_dir / "w-1.sock")]) == []
    assert len(DeadWorkers().among(find_boxes(), [])) == 1


def test_a_dead_worker_s_box_is_read_once(make_box: MakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is asked for; its age goes on. One that was removed is forgotten."""
    box = make_box(dead=True, held_s=1.0)
    dead = DeadWorkers()
    (first,) = dead.among(find_boxes(), [])

    def fail(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(black_boxes, "read_box", fail)
    (again,) = dead.among(find_boxes(), [])
    assert (again.name, again.held) == (first.name, first.held)
    assert again.age_s > first.age_s
    files = find_boxes()
    box.path.unlink()
    assert dead.among(files, []) == []


def test_a_box_that_vanishes_is_passed_over(make_box: MakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the list and the reading somebody else may have shown it."""
    box = make_box(dead=True)

    def gone(path: Path, owner: int | None = None) -> Any:
        box.path.unlink()
        raise BoxError("No such file or directory")

    monkeypatch.setattr(black_boxes, "read_box", gone)
    assert DeadWorkers().among(find_boxes(), []) == []


def test_which_boxes_a_target_names(make_box: MakeBox, runtime_dir: Path) -> None:
    """By name or process id; by the socket beside which the box is; of another host none."""
    make_box("a", dead=True, pid=1)
    make_box("b", dead=True, pid=2)

    def names(target: Target) -> list[str]:
        return [dead.worker.name for dead in find_dead(target, [])]

    assert sorted(names(Target())) == ["a", "b"]
    assert names(Target(names=["b"])) == names(Target(names=["2"])) == ["b"]
    assert names(Target(sockets=[runtime_dir / "a-1.sock", runtime_dir / "none.sock"])) == ["a"]


def test_a_named_socket_is_no_sign_of_life(make_box: MakeBox, runtime_dir: Path) -> None:
    """It was named whether or not anybody listens."""
    make_box("a", dead=True, pid=1)
    target = Target(sockets=[runtime_dir / "a-1.sock"])
    assert [dead.name for dead in dead_finder(target)(target.find())] == ["a"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_another_user_s_box_is_not_opened(make_box: MakeBox) -> None:
    """Not even to say what is wrong with it."""
    box = make_box(dead=True)
    os.chown(box.path, 65534, 65534)
    assert find_boxes() == []
    worker = WorkerSocket(box.path.with_suffix(".sock"), "voice-a", 1, owner=os.geteuid())
    assert "belongs to uid 65534" in str(read_live_box(worker))


def test_a_box_without_a_snapshot(make_box: MakeBox) -> None:
    """Its worker died, or froze, before it could write one."""
    told = read_box(make_box(held_s=1.0, snapshot=None).path)
    assert not told.recorded
    assert isinstance(told.snapshot, Snapshot)
    assert told.held is not None
