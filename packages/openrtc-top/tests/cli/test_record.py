"""`openrtc record` and `openrtc top --replay`, as processes, with what can go wrong with files."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from openrtc_introspect_core.wire import Block, SessionRow, Snapshot
from openrtc_introspect_testing import FakeWorker
from openrtc_top._cli.app import app
from openrtc_top._model.events import Blocked, Found, Frame
from openrtc_top._recording.lines import Scribe
from openrtc_top._recording.tape import Tape

InTerminal = Callable[..., Any]  # a FakeTerminal, see conftest.py
StartWorker = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def worker(
    make_snapshot: Callable[..., Snapshot], make_session: Callable[..., SessionRow], make_past: Callable[..., Block]
) -> Iterator[FakeWorker]:
    snapshots = [make_snapshot(make_session("job-1"), taken_at=1000.0 + n) for n in range(100)]
    snapshots = [replace(each, worker=replace(each.worker, blocks=1)) for each in snapshots]
    with FakeWorker(snapshots, blocks=[make_past(1)]) as fake:
        yield fake


def record(worker: FakeWorker, file: Path, *options: str) -> Any:
    return CliRunner().invoke(app, ["record", str(file), "--socket", str(worker.path), *options])


def record_some(worker: FakeWorker, file: Path, *options: str) -> None:
    """Record some frames, ten a second, and press Ctrl-C. The last that the worker made may not have been heard."""
    until = worker.snapshots_taken + 4
    running = threading.Event()

    def press() -> None:
        deadline = time.monotonic() + 20
        while worker.snapshots_taken < until and time.monotonic() < deadline and not running.wait(0.01):
            pass
        if not running.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    finger = threading.Thread(target=press)
    finger.start()
    where = () if "--via" in options else ("--socket", str(worker.path))
    try:
        result = CliRunner().invoke(
            app, ["record", str(file), "--interval", "0.1", "--seconds", "20", *where, *options]
        )
    finally:
        running.set()
        finger.join()
    assert (result.exit_code, result.stdout) == (0, "")
    assert re.search(r"^recorded \d+ frames of 1 worker in \d+ s, \d+\.\d kB$", result.stderr, re.MULTILINE)


@pytest.mark.parametrize("name", ["x.ortc", "x.gz"])
def test_record_and_replay(name: str, worker: FakeWorker, tmp_path: Path) -> None:
    """A file that only its owner may read, whose last frame is what the worker said last."""
    file = tmp_path / name
    record_some(worker, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with Tape(file) as tape:
        assert len(tape.times) >= 2
        assert not tape.cut_off
    shown = CliRunner().invoke(app, ["top", "--replay", str(file)])
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "voice-a" in shown.stdout
    assert "job-1" in shown.stdout
    document = json.loads(CliRunner().invoke(app, ["top", "--json", "--replay", str(file)]).stdout)
    assert 1000.0 + worker.snapshots_taken - 2 <= document["taken_at"] < 1000.0 + worker.snapshots_taken


def test_workers_of_another_host(worker: FakeWorker, tmp_path: Path) -> None:
    """Are recorded with the host, and replayed under its name."""
    file = tmp_path / "x"
    via = f"voice-3={sys.executable} -m openrtc_top relay --socket {worker.path}"
    record_some(worker, file, "--via", via)
    with Tape(file) as tape:
        (found,) = tape.workers(len(tape.times) - 1)
    assert (found.name, found.host, found.key) == ("voice-3:voice-a", "voice-3", f"voice-3:{worker.path}")


def test_a_file_that_is_there(worker: FakeWorker, tmp_path: Path) -> None:
    """Is not touched; with --force it is replaced, and closed to others."""
    file = tmp_path / "mine"
    file.write_text("mine")
    file.chmod(0o644)
    result = record(worker, file, "--seconds", "0.1")
    assert result.exit_code == 2
    assert result.stderr == f"error: '{file}' is there already; choose another name, or replace it with --force\n"
    assert file.read_text() == "mine"
    record_some(worker, file, "--force")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with Tape(file) as tape:
        assert tape.times


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
@pytest.mark.parametrize("packed", [False, True])
def test_a_full_disk(packed: bool, worker: FakeWorker, tmp_path: Path) -> None:
    """Is an error of one line."""
    file = tmp_path / ("full.gz" if packed else "full")
    file.symlink_to("/dev/full")
    result = record(worker, file, "--seconds", "5", "--force")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(f"error: cannot write '{file}': No space left on device; it has ")


def test_no_worker(tmp_path: Path, runtime_dir: Path) -> None:
    """Nothing to record: no file is made."""
    file = tmp_path / "x"
    result = CliRunner().invoke(app, ["record", str(file), "--worker", "nobody-of-this-name"])
    assert result.exit_code == 1
    assert not file.exists()
    missing = CliRunner().invoke(app, ["record", str(file), "--socket", "/nowhere/x.sock", "--seconds", "0.1"])
    assert missing.exit_code == 1
    assert "recorded 0 frames of 0 workers" in missing.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["record", "x", "--interval", "0.01"], "accepted are 0.1 to 30 seconds"),
        (["record", "x", "--seconds", "0"], "accepted are 0.1 to 86400 seconds"),
        (["record", "/nowhere/x", "--socket", "y"], "cannot write '/nowhere/x': No such file or directory"),
        (["top", "--replay", "/nowhere/x"], "cannot read '/nowhere/x': No such file or directory"),
        (["top", "--replay", "/"], "cannot read '/': Is a directory"),
        (["top", "--replay", __file__], "is no recording of `openrtc record`"),
        (["top", "--replay", "x", "--via", "env"], "--replay shows what was recorded"),
        (["top", "--replay", "x", "--refresh-rate", "2"], "--replay shows what was recorded"),
    ],
)
def test_usage(arguments: list[str], said: str) -> None:
    """One line, and exit code 2, or 1 if the file is at fault."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == (1 if "cannot write" in said else 2)
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(("ending", "cut_off"), [(signal.SIGINT, False), (signal.SIGKILL, True)])
def test_endings(ending: signal.Signals, cut_off: bool, worker: FakeWorker, tmp_path: Path) -> None:
    """Ctrl-C ends it properly; killed, it loses one frame at the most."""
    file = tmp_path / "x.gz"
    command = [
        sys.executable,
        "-m",
        "openrtc_top",
        "record",
        str(file),
        "--socket",
        str(worker.path),
        "--interval",
        "0.1",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 20
        while worker.snapshots_taken < 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        served = worker.snapshots_taken - 1  # the last may be on its way
        process.send_signal(ending)
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == (0 if not cut_off else -signal.SIGKILL)
    assert ("recorded" in said) is not cut_off
    assert "Traceback" not in said
    with Tape(file) as tape:
        assert len(tape.times) >= served - 1
        assert tape.cut_off is cut_off


def test_a_recording_cut_off_says_so(worker: FakeWorker, tmp_path: Path) -> None:
    """It replays, also if only its last frame is printed."""
    file = tmp_path / "x"
    record_some(worker, file)
    file.write_bytes(file.read_bytes()[:-40])
    result = CliRunner().invoke(app, ["top", "--once", "--replay", str(file)])
    assert result.exit_code == 0
    assert result.stderr == f"note: {file} is cut off; this is its last whole frame\n"


def test_a_recording_without_a_frame(worker: FakeWorker, tmp_path: Path) -> None:
    """There is nothing to show."""
    file = tmp_path / "x"
    record_some(worker, file)
    file.write_bytes(file.read_bytes().splitlines(keepends=True)[0])
    result = CliRunner().invoke(app, ["top", "--replay", str(file)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "without a frame in it" in result.stderr


def test_scrubbing(
    make_snapshot: Callable[..., Snapshot],
    make_session: Callable[..., SessionRow],
    make_past: Callable[..., Block],
    tmp_path: Path,
    in_terminal: InTerminal,
) -> None:
    """The live view on a file: play, stop, step, leap; the view's own keys work, and a page says what is missing."""
    scribe = Scribe()
    lines = [scribe.begin(0.0, 0.02), scribe.line(Found("w", "voice-a"), 0.0)]
    for frame in range(10):
        snapshot = make_snapshot(make_session("job-1"), taken_at=1000.0 + frame)
        lines.append(scribe.line(Frame("w", snapshot), 1000.0 + frame / 50))
    lines.append(scribe.line(Blocked("w", [make_past(1)]), 1000.2))
    (tmp_path / "x").write_bytes(b"".join(lines))
    terminal = in_terminal("top", "--replay", str(tmp_path / "x"))
    terminal.wait_for(lambda screen: "frame 10 of 10" in screen and "the end: cut off here" in screen)
    for keys, shown in (
        ("{", "frame 1 of 10  stopped"),
        ("\x1b[C", "frame 2 of 10"),
        ("\x1b[D", "frame 1 of 10"),
        ("]", "frame 10 of 10"),
        ("b", "in lookup_menu"),
        ("b{\r", "a recording does not hold the tasks and stacks"),
        ("qW", "a recording does not hold what tasks wait for"),
        ("[", "a recording does not hold what tasks wait for"),
        ("W/ [", "no session passes"),
        ("\x1b", "job-1"),
        ("++ ", "frame 10 of 10"),
    ):
        terminal.press(keys)
        terminal.wait_for(lambda screen, shown=shown: shown in screen)
    terminal.press("q")
    assert terminal.wait_for_end() == 0
    assert terminal.attributes_now == terminal.attributes


def test_hosts_that_are_not_listed(tmp_path: Path) -> None:
    """The reason is said while it records, since an empty recording would say that all is well."""
    listing = ("--via-each", "sh -c 'echo boo >&2; exit 7'", "--via", "ssh {}")
    command = [sys.executable, "-m", "openrtc_top", "record", str(tmp_path / "x"), *listing]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(2)]
        process.terminate()
        assert process.wait(60) == 1
    assert lines[1] == "--via-each: sh: it ended with exit code 7: boo\n"
