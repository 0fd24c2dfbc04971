"""The tests of black boxes share a private directory, boxes in it, and processes that die."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from openrtc_introspect_core.black_box._layout import Header
from openrtc_introspect_core.black_box._records import WorkerRecord
from openrtc_introspect_core.black_box._writer import BoxWriter
from openrtc_introspect_core.wire import SessionRow, Snapshot, WorkerInfo, _places

WITHIN_S = 60.0

if sys.platform == "win32":
    collect_ignore_glob = ["test_*.py"]  # it has no boxes

MakeBox = Callable[..., BoxWriter]
RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def only_this_directory(runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Search for boxes in this test's directory only."""
    monkeypatch.setattr(_places, "default_dirs", list)


@pytest.fixture
def make_box(runtime_dir: Path) -> Iterator[MakeBox]:
    """Yield a function that makes the box of a worker, in this process; all are closed at the end."""
    made: list[BoxWriter] = []

    def make(name: str = "w", socket: Path | None = None, **header: object) -> BoxWriter:
        given = {"pid": os.getpid(), "epoch": "e", "version": "1.2.3", "started_at": 1e9, **header}
        made.append(BoxWriter(msgspec.convert({"worker": name, **given}, Header), socket))
        return made[-1]

    yield make
    for box in made:
        box.remove()
        box.close()


@pytest.fixture
def make_dead(make_box: MakeBox) -> Callable[..., Path]:
    """Return a function that makes the box of a worker that died some time ago."""

    def make(name: str = "w", age_s: float = 0.0) -> Path:
        box = make_box(name)
        box.close()
        then = time.time() - age_s
        os.utime(box.path, (then, then))
        return box.path

    return make


@pytest.fixture
def record() -> Callable[..., bytes]:
    """Return a function that makes a worker's record with rows of these ids."""

    def make(*ids: str, **fields: object) -> bytes:
        rows = [SessionRow(session_id=each, agent_name="a") for each in ids]
        snapshot = Snapshot(seq=1, taken_at=1e9, worker=WorkerInfo(name="w", pid=1, sessions=len(ids)), sessions=rows)
        given = {"at": 1e9, "snapshot": snapshot, "threads": [7], "names": ["asyncio-1"], **fields}
        return msgspec.json.encode(WorkerRecord(**given))  # type: ignore[arg-type]

    return make


@pytest.fixture
def run_script(runtime_dir: Path) -> RunScript:
    """Return a function that runs code in a process of its own and returns the ended process."""

    def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)

    return run
