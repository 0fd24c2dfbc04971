"""`openrtc wait`: exit codes, and who met the condition."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from openrtc_introspect_core.wire import SessionRow, Snapshot
from openrtc_introspect_testing import FakeWorker
from openrtc_top._cli import complete
from openrtc_top._cli.app import app

MakeSnapshot = Callable[..., Snapshot]
MakeSession = Callable[..., SessionRow]


def wait(until: str, *options: str) -> Any:
    return CliRunner().invoke(app, ["wait", "--until", until, *options])


def test_met(make_snapshot: MakeSnapshot, make_session: MakeSession) -> None:
    """Exit code 0, and one line with the session and its worker, as soon as it is true."""
    calm, busy = make_snapshot(make_session("job-1")), make_snapshot(make_session("job-1", status="slow"))
    with FakeWorker([calm, busy]) as worker:
        result = wait("slow or lag_p99 > 200", "--socket", str(worker.path), "--timeout", "60")
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.fullmatch(r"met after \d+\.\d s: job-1 \(dental\) of voice-a \(pid 41213\)\n", result.stdout)


def test_met_by_a_worker(make_snapshot: MakeSnapshot) -> None:
    """No session is named if the worker itself fulfils it; one of several workers is enough."""
    with (
        FakeWorker([make_snapshot(name="a")]) as first,
        FakeWorker([make_snapshot(name="b", lag_p99_ms=300)]) as second,
    ):
        sockets = [option for each in (first, second) for option in ("--socket", str(each.path))]
        result = wait("lag_p99 > 200", *sockets, "--timeout", "60")
    assert result.exit_code == 0
    assert result.stdout.endswith(" s: b (pid 41213)\n")


def test_not_met(make_snapshot: MakeSnapshot) -> None:
    """Exit code 4 at the end of the time, which no other command has."""
    with FakeWorker([make_snapshot()]) as worker:
        result = wait("blocked", "--socket", str(worker.path), "--timeout", "1")
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr == "error: 'blocked' is not true of the worker after 1 s\n"


def test_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1 if none has come by then: one that starts meanwhile counts."""
    monkeypatch.setattr("openrtc_top._client.targets.discover", list)
    result = wait("blocked", "--timeout", "0.1")
    assert result.exit_code == 1
    first, *reasons, last = result.stderr.splitlines()
    assert (first, last) == ("no worker runs so far: waiting for one", "error: no worker runs after 0.1 s")
    assert reasons, "where it was looked for, or why a worker may not be seen"


def test_hosts_that_are_not_listed() -> None:
    """The reason is said when it comes, and not each time again."""
    for command in (["wait", "--until", "blocked", "--timeout", "1"], ["wait", "--until", "slow", "--timeout", "0.5"]):
        result = CliRunner().invoke(app, [*command, "--via-each", "sh -c 'exit 7'", "--via", "ssh {}"])
        assert result.exit_code == 1
        first, last = result.stderr.splitlines()
        assert first == "--via-each: sh: it ended with exit code 7"
        assert last.startswith("error: no worker runs after ")


def test_no_answer(tmp_path: Path) -> None:
    """A worker that is named is waited for, too."""
    result = wait("blocked", "--socket", str(tmp_path / "x.sock"), "--timeout", "0.3")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: no worker answers after 0.3 s\n"


def test_wrong_usage() -> None:
    """Exit code 2, and one line that names the unknown word and those that are accepted."""
    result = wait("blockd")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(
        "error: invalid value for '--until': unknown word 'blockd'; did you mean blocked or blocks? accepted are"
    )
    assert result.stderr.count("\n") == 1
    assert wait("blocked", "--timeout", "0").exit_code == 2


def test_a_frozen_worker(frozen: Callable[..., Any]) -> None:
    """Is blocked, as its black box says."""
    worker = frozen()
    result = wait("blocked", "--socket", str(worker.path), "--timeout", "60")
    assert result.exit_code == 0
    assert "job-c1d550 (restaurant) of voice-a" in result.stdout


def test_another_host(make_snapshot: MakeSnapshot) -> None:
    """Its workers stand behind its name; a host that cannot be reached is reported."""
    with FakeWorker([make_snapshot(sessions=9)]) as worker:
        via = f"voice-3={sys.executable} -m openrtc_top relay --socket {worker.path}"
        result = wait("sessions == 9", "--via", via, "--via", "down=sh -c 'exit 9'", "--timeout", "60")
    assert result.exit_code == 0
    assert "voice-3:voice-a (pid 41213)" in result.stdout


def test_an_interrupt(make_snapshot: MakeSnapshot) -> None:
    """Ctrl-C ends it like any command that did not get what it waits for."""
    with FakeWorker([make_snapshot()]) as worker:
        command = [sys.executable, "-m", "openrtc_top", "wait", "--until", "blocked", "--socket", str(worker.path)]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            while worker.snapshots_taken < 2 and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            out, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out) == (130, b"")
    assert b"KeyboardInterrupt" not in error


def test_completion() -> None:
    """Offers the words that may stand at the end."""
    assert complete.condition("blocked or lag_p99") == ["blocked or lag_p99", "blocked or lag_p99_ms"]
    assert complete.condition("(host.co") == ["(host.cores"]
    assert complete.condition("blocked or ") == []
