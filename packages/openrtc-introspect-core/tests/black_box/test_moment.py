from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from openrtc_introspect_core._os.stacks import Folders, Places
from openrtc_introspect_core.black_box import Box, LoopState, blocks_now, read_box, snapshot_now
from openrtc_introspect_core.black_box._writer import BoxWriter
from openrtc_introspect_core.wire import Block, Location, SessionRow, Snapshot, WorkerInfo

NOW = 1e9 + 10
FOLDERS = Folders(cwd="/srv/", installed=("/venv/site/",), stdlib=("/usr/lib/python/",), own="/venv/site/ours/")
STACK = [
    Location(file="/usr/lib/python/asyncio/events.py", line=88, function="Handle._run"),
    Location(file="/venv/site/ours/meter.py", line=1, function="send"),
    Location(file="/srv/agents/a.py", line=42, function="lookup_menu"),
    Location(file="/usr/lib/python/json/decoder.py", line=7, function="decode"),
]


def held(**fields: Any) -> LoopState:
    given = {"at": 1e9 + 8, "state": "held", "since": 1e9 + 2, "keeper": 1, "session_id": "job-1", "agent_name": "a"}
    return LoopState(**{**given, **fields})


def row(session_id: str, **fields: Any) -> SessionRow:
    return SessionRow(session_id=session_id, agent_name="a", **fields)


def box(*loops: LoopState, **fields: Any) -> Box:
    snapshot = Snapshot(
        seq=5,
        taken_at=1e9 + 1,
        worker=WorkerInfo(name="w", pid=1, sessions=2),
        sessions=[row("job-1"), row("job-2")],
    )
    given = {
        "path": Path("/run/w-1.box"), "worker": "w", "pid": 1, "epoch": "e", "version": "1", "python": "3.14.0",
        "meter": "C", "started_at": 1e9, "alive": True, "at": 1e9 + 8, "recorded_at": 1e9 + 1,
        "snapshot": snapshot, "loops": list(loops), "loop_names": [None] * len(loops), "threads": [7],
        "folders": FOLDERS,
    }  # fmt: skip
    return Box(**{**given, **fields})


def the_block(of: Box, now: float = NOW) -> Block:
    (block,) = snapshot_now(of, now).blocks_in_progress
    return block


def test_a_held_loop_is_a_block_in_progress() -> None:
    """With its session, since when, and for how long until now."""
    block = the_block(box(held(tenant="acme")))
    assert (block.seq, block.in_progress, block.cause) == (0, True, "native")
    assert (block.session_id, block.agent_name, block.tenant, block.loop) == ("job-1", "a", "acme", None)
    assert (block.started_at, block.running_since, block.duration_ms) == (1e9 + 2, 1e9 + 2, 8000.0)


def test_of_a_dead_worker_it_lasted_until_its_loop_s_last_record() -> None:
    """Nobody knows for how long it went on."""
    assert the_block(box(held(), alive=False)).duration_ms == 6000.0


@pytest.mark.parametrize(("keeper", "cause"), [(0, None), (1, "native"), (2, "gil-contention"), (3, None)])
def test_who_kept_the_gil_is_the_cause(keeper: int, cause: str | None) -> None:
    """If it is known."""
    assert the_block(box(held(keeper=keeper))).cause == cause


def test_a_loop_that_the_host_does_not_run_is_nobody_s_fault() -> None:
    """Whoever had the GIL, and in whose step."""
    given = held(stack=STACK, run_delay=5.75)
    block = the_block(box(given))
    assert (block.cause, block.detail, block.session_id) == ("descheduled", "run delay 5750 ms", None)
    assert str(block.location) == "agents/a.py:42 in lookup_menu"
    assert [row.status for row in snapshot_now(box(given), NOW).sessions] == ["active", "active"]


def test_the_location_is_in_the_user_s_own_code() -> None:
    """Found by the folders of the worker, which files are shown relative to; our own calls are left out."""
    block = the_block(box(held(stack=STACK)))
    assert str(block.location) == "agents/a.py:42 in lookup_menu"
    assert [str(call) for call in block.stack] == [
        "asyncio/events.py:88 in Handle._run",
        "agents/a.py:42 in lookup_menu",
        "json/decoder.py:7 in decode",
    ]
    assert (the_block(box(held())).location, the_block(box(held())).stack) == (None, [])


def test_without_the_user_s_own_code_it_is_the_innermost() -> None:
    """As of any block."""
    assert str(the_block(box(held(stack=[STACK[0], STACK[3]]))).location) == "json/decoder.py:7 in decode"


def test_places_of_another_process_are_those_of_its_folders() -> None:
    """And those of this process are its own."""
    assert Places(folders=FOLDERS).shown("/srv/x.py") == "x.py"
    assert Places(folders=Folders()).shown("/srv/x.py") == "/srv/x.py"
    assert not Places(folders=Folders()).is_own("/srv/x.py")
    folders = Places(["/srv"]).folders
    assert (folders.roots, folders.cwd) == (("/srv/",), os.path.join(os.getcwd(), ""))
    assert Places(folders=folders).shown(json.__file__) == "json/__init__.py"
    assert Places(folders=folders).is_own(sys.modules[Places.__module__].__file__ or "")


def test_the_session_that_holds_a_loop_shows_as_blocked() -> None:
    """The others are as they were."""
    snapshot = snapshot_now(box(held()), NOW)
    assert [(each.session_id, each.status) for each in snapshot.sessions] == [("job-1", "blocked"), ("job-2", "active")]


def test_the_snapshot_keeps_its_time() -> None:
    """So that its age can be told."""
    given = box(held())
    assert given.snapshot is not None
    assert snapshot_now(given, NOW).taken_at == 1e9 + 1
    assert snapshot_now(given, NOW).worker == given.snapshot.worker


def test_a_session_that_began_after_the_snapshot_has_a_row() -> None:
    """In which all but its block is unknown."""
    added = snapshot_now(box(held(session_id="job-9", tenant="t")), NOW).sessions[-1]
    assert (added.session_id, added.agent_name, added.tenant, added.status) == ("job-9", "a", "t", "blocked")
    assert (added.started_at, added.duration_s) == (1e9 + 2, 8.0)
    assert (added.cpu_pct, added.cpu_s, added.steps, added.tasks) == (None, None, None, None)


def test_what_was_blocked_at_the_snapshot_and_is_not_now_is_slow() -> None:
    """Its block has ended since."""
    given = box(LoopState(at=1e9 + 8, state="free"))
    assert given.snapshot is not None
    given.snapshot.sessions[0] = row("job-1", status="blocked")
    given.snapshot.blocks_in_progress.append(Block(seq=0, session_id="job-1", in_progress=True))
    snapshot = snapshot_now(given, NOW)
    assert ([each.status for each in snapshot.sessions], snapshot.blocks_in_progress) == (["slow", "active"], [])


def test_an_untagged_task_blocks_no_session() -> None:
    """Its block is nobody's."""
    snapshot = snapshot_now(box(held(session_id=None, agent_name=None)), NOW)
    assert snapshot.blocks_in_progress[0].session_id is None
    assert [each.status for each in snapshot.sessions] == ["active", "active"]


def test_each_of_several_loops_has_its_block() -> None:
    """With the loop's name."""
    given = box(held(), LoopState(state="quiet"), held(session_id="job-2"), loop_names=["a-1", "a-2", "t-3"])
    blocks = snapshot_now(given, NOW).blocks_in_progress
    assert [(block.session_id, block.loop) for block in blocks] == [("job-1", "a-1"), ("job-2", "t-3")]


def test_the_history_ends_with_what_is_in_progress() -> None:
    """Blocks in the order in which they began."""
    given = box(held(), blocks=[Block(seq=3), Block(seq=4)])
    assert [block.seq for block in blocks_now(given, NOW)] == [3, 4, 0]
    assert blocks_now(given, NOW)[-1] == the_block(given)


def test_without_a_snapshot_the_worker_is_known() -> None:
    """It died, or froze, before it wrote one."""
    snapshot = snapshot_now(box(held(), snapshot=None, recorded_at=None), NOW)
    assert (snapshot.worker.name, snapshot.worker.pid, snapshot.worker.python) == ("w", 1, "3.14.0")
    assert (snapshot.worker.meter, snapshot.taken_at) == ("C", 1e9)
    assert [each.session_id for each in snapshot.sessions] == ["job-1"]
    for meter in ("Python", "Rust", None):
        worker = snapshot_now(box(snapshot=None, meter=meter), NOW).worker
        assert worker.meter == (meter if meter == "Python" else None)


# --- without records of loops --------------------------------------------------------------------


def in_progress(of: Box) -> Box:
    assert of.snapshot is not None
    of.snapshot.blocks_in_progress.append(
        Block(seq=0, session_id="job-1", started_at=1e9, duration_ms=900.0, in_progress=True)
    )
    return of


@pytest.mark.parametrize("alive", [True, False])
def test_a_block_that_the_snapshot_has_is_as_of_then(alive: bool) -> None:
    """Nothing has looked since, so nobody knows whether it goes on."""
    given = in_progress(box(alive=alive))
    assert given.snapshot is not None
    assert [the_block(given)] == given.snapshot.blocks_in_progress
    assert the_block(given).duration_ms == 900.0


def test_what_the_snapshot_has_of_a_block_completes_the_loop_s_record() -> None:
    """The worker sees Python code that runs, too: its stack does not stand still."""
    worker_s = Block(
        seq=0,
        session_id="job-1",
        started_at=1e9 + 2.05,
        in_progress=True,
        cause="cpu",
        location=Location(file="agents/a.py", line=7, function="count"),
        stack=[Location(file="agents/a.py", line=7, function="count")],
    )

    def shown(state: LoopState, **fields: Any) -> tuple[str | None, str]:
        of = box(state)
        assert of.snapshot is not None
        of.snapshot.blocks_in_progress.append(msgspec.structs.replace(worker_s, **fields))
        block = the_block(of)
        return block.cause, str(block.location)

    assert shown(held(keeper=0)) == ("cpu", "agents/a.py:7 in count")
    assert shown(held(keeper=0, stack=STACK)) == ("cpu", "agents/a.py:42 in lookup_menu")
    assert shown(held(keeper=1, stack=STACK)) == ("native", "agents/a.py:42 in lookup_menu")
    assert shown(held(keeper=0), session_id="job-2") == (None, "None")
    assert shown(held(keeper=0), started_at=1e9 + 1) == (None, "None")


# --- of a real box -------------------------------------------------------------------------------


def test_a_box_on_disk_tells_the_same(make_box: Callable[..., BoxWriter], record: Callable[..., bytes]) -> None:
    """From the writer to the moment."""
    writer = make_box()
    writer.write_worker(record("job-1", "job-2"))
    writer.write_loop(0, held(stack=STACK))
    snapshot = snapshot_now(read_box(writer.path), NOW)
    assert [each.status for each in snapshot.sessions] == ["blocked", "active"]
    assert snapshot.blocks_in_progress[0].duration_ms == 8000.0
