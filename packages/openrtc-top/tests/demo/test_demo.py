"""`openrtc demo`: the culprit is named, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from openrtc_introspect_core import read_snapshot
from openrtc_top._demo import process
from openrtc_top._demo.process import CULPRIT, DemoFailed, demo_worker

OpenRTC = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_demo_once(openrtc: OpenRTC, tmp_path: Path) -> None:
    """The culprit has blocked and stands in the alert, the busy one is first, and the folder is gone."""
    folder = tmp_path if len(str(tmp_path)) < 60 else Path("/tmp")
    before = set(folder.glob("openrtc-demo-*"))
    for _ in range(5):  # a busy machine keeps the loop waiting longer than the culprit does
        result = openrtc("demo", "--once", "--sessions", "5", TMPDIR=str(folder))
        assert (result.returncode, result.stderr) == (0, "")
        assert "7 sessions" in result.stdout
        (alert,) = [line for line in result.stdout.splitlines() if line.startswith((" SLOW", " BLOCKED"))]
        if "descheduled" not in alert:
            break
    assert CULPRIT in alert
    assert "job-busy-but-polite" in result.stdout
    assert set(folder.glob("openrtc-demo-*")) == before


def test_the_folder_is_private() -> None:
    """Only the user can reach the demo's socket, and it is gone afterwards."""
    with demo_worker(1) as socket:
        assert socket.parent.stat().st_mode & 0o777 == 0o700
        snapshot = read_snapshot(socket)
        assert {session.session_id for session in snapshot.sessions} >= {CULPRIT}
    assert not socket.parent.exists()


def test_the_worker_ends_with_its_parent() -> None:
    """When whoever started it is gone, the worker ends and takes socket and folder along."""
    script = (
        "import sys, time\n"
        "from openrtc_top._demo.process import demo_worker\n"
        "with demo_worker(1) as socket:\n"
        "    print(socket, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        socket = Path(parent.stdout.readline().decode().strip())
        pid = read_snapshot(socket).worker.pid
        parent.kill()
    deadline = time.monotonic() + 20
    while socket.parent.exists() or _runs(pid):
        assert time.monotonic() < deadline, (socket, pid)
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_worker_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error carries the last line it said; its folder is removed."""
    made = []
    make = process.tempfile.mkdtemp

    def mkdtemp(**options: str) -> str:
        made.append(make(**options))
        return made[-1] + "/" + "x" * 200  # longer than a socket's path may be

    monkeypatch.setattr(process.tempfile, "mkdtemp", mkdtemp)
    with pytest.raises(DemoFailed, match=r"did not start: .*x{20}"), demo_worker(1):
        pass
    for folder in made:
        os.rmdir(folder)


def test_where_nothing_can_be_written_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container with a read-only root."""

    def read_only(**_: object) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(process.tempfile, "mkdtemp", read_only)
    with pytest.raises(DemoFailed, match="No usable temporary directory found; set TMPDIR to one"), demo_worker(1):
        pass
