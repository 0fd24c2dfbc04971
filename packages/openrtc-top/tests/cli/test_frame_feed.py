"""`openrtc top --json --follow`: a line for each frame."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from openrtc_introspect_core.wire import SessionRow, Snapshot
from openrtc_introspect_core.wire.schema import schema
from openrtc_introspect_testing import FakeWorker
from openrtc_top._cli.app import app

MakeSnapshot = Callable[..., Snapshot]
MakeSession = Callable[..., SessionRow]
VALID = jsonschema.Draft202012Validator(schema())


@contextmanager
def follow(*options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "openrtc_top", "top", "--json", "--follow", "--refresh-rate", "10", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell has its background jobs ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        with process:
            try:
                yield process
            finally:
                process.kill()
    finally:
        process.wait()


def line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    read: dict[str, Any] = json.loads(process.stdout.readline())
    VALID.validate(read)
    return read


@pytest.fixture
def worker(make_snapshot: MakeSnapshot, make_session: MakeSession) -> Iterator[FakeWorker]:
    sessions = [make_session("job-1"), make_session("job-2", agent_name="restaurant", cpu_pct=50.0)]
    with FakeWorker([make_snapshot(*sessions, taken_at=1000.0 + n) for n in range(1000)]) as fake:
        yield fake


def test_a_line_a_frame(worker: FakeWorker) -> None:
    """The wire's JSON, under the schema, one frame after the other, until Ctrl-C, which is no error."""
    with follow("--socket", str(worker.path)) as process:
        lines = [line(process) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert lines[0]["type"] == "snapshot"
    assert lines[0]["taken_at"] < lines[1]["taken_at"] < lines[2]["taken_at"]
    assert [session["session_id"] for session in lines[0]["sessions"]] == ["job-1", "job-2"]
    assert lines[0]["worker"]["name"] == "voice-a"
    assert "host" not in lines[0]


def test_filters_and_order(worker: FakeWorker) -> None:
    """Apply to each line, as with --json alone."""
    with follow("--socket", str(worker.path), "--agent", "restaurant") as process:
        assert [session["session_id"] for session in line(process)["sessions"]] == ["job-2"]
    with follow("--socket", str(worker.path), "--sort", "cpu_pct") as process:
        assert [session["session_id"] for session in line(process)["sessions"]] == ["job-2", "job-1"]


def test_a_reader_that_leaves(worker: FakeWorker) -> None:
    """Ends it in silence, as `| head -1` does."""
    with follow("--socket", str(worker.path)) as process:
        line(process)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_several_workers(make_snapshot: MakeSnapshot, worker: FakeWorker) -> None:
    """Each has lines of its own, which name it; that of another host has its name too."""
    with FakeWorker([make_snapshot(name="voice-b", pid=7)]) as other:
        far = f"voice-3={sys.executable} -m openrtc_top relay --socket {other.path}"
        near = f"here={sys.executable} -m openrtc_top relay --socket {worker.path}"
        with follow("--via", far, "--via", near) as process:
            seen = set()
            while len(seen) < 2:
                read = line(process)
                seen.add((read["host"], read["worker"]["name"], read["worker"]["pid"]))
        once = CliRunner().invoke(app, ["top", "--json", "--via", far])
    assert seen == {("voice-3", "voice-b", 7), ("here", "voice-a", 41213)}
    assert json.loads(once.stdout)["host"] == "voice-3"


def test_a_worker_that_ends(make_snapshot: MakeSnapshot, runtime_dir: Path) -> None:
    """Is reported on stderr, once, and so is its return."""
    path = runtime_dir / "fake.sock"
    with FakeWorker([make_snapshot()], path=path):
        process_context = follow("--socket", str(path))
        process = process_context.__enter__()
        line(process)
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == "voice-a: it closed the connection; trying again\n"
        with FakeWorker([make_snapshot(epoch="second")], path=path):
            assert process.stderr.readline() == "voice-a: connected again\n"
            while line(process)["worker"]["epoch"] != "second":
                pass
    finally:
        process_context.__exit__(None, None, None)


def test_a_frozen_worker(frozen: Callable[..., Any]) -> None:
    """Has lines of its black box: the block goes on in them."""
    worker = frozen()
    with follow("--socket", str(worker.path)) as process:
        read = line(process)
        assert read["blocks_in_progress"][0]["session_id"] == "job-c1d550"
        worker.thawed.set()
        while line(process)["blocks_in_progress"]:
            pass


@pytest.mark.parametrize(
    "options",
    [["--follow"], ["--follow", "--once"], ["--follow", "--json", "--once"], ["--follow", "--json", "--replay", "x"]],
)
def test_contradictions(options: list[str]) -> None:
    """Are wrong usage, in one line."""
    result = CliRunner().invoke(app, ["top", *options])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1


def test_hosts_that_are_not_listed() -> None:
    """The reason is said, since an empty stream would say that all is well."""
    with follow("--via-each", "sh -c 'echo boo >&2; exit 7'", "--via", "ssh {}") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "--via-each: sh: it ended with exit code 7: boo\n"
