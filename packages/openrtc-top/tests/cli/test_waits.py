"""`openrtc waits`: of made-up workers, of a real one, and of those that cannot tell."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from openrtc_introspect_core.wire import CAPABILITIES, ExecutorInfo, SessionRow, Snapshot, Waits
from openrtc_introspect_testing import FakeWorker
from openrtc_introspect_testing._workers import misbehaviour
from openrtc_top._cli.app import app

MakeSnapshot = Callable[..., Snapshot]
MakeWaits = Callable[..., Waits]


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["waits", *arguments])


@pytest.fixture
def worker(make_snapshot: MakeSnapshot, make_waits: MakeWaits, full_executor: ExecutorInfo) -> Iterator[FakeWorker]:
    """37 sessions wait for a lock, and an executor is full."""
    with FakeWorker([make_snapshot()], waits=make_waits(executors=[full_executor])) as fake:
        yield fake


def test_the_groups_and_the_executors(worker: FakeWorker) -> None:
    """Those with the most sessions first; nothing is cut in a pipe."""
    result = run("--socket", str(worker.path))
    assert (result.exit_code, result.stderr) == (0, "")
    heading, titles, lock, held, waiting, timer, executor, call = result.stdout.splitlines()
    assert re.fullmatch(r"fake · pid \d+ · 40 sessions, 96 tasks", heading)
    assert titles.split() == ["sessions", "stuck", "waits", "for", "what", "longest", "where"]
    assert lock.split()[:3] == ["37", "36", "lock"]
    assert held.startswith(
        "           held by   job-77ab02 (dental), inside the `with` at agents/dental.py:30 in answer"
    )
    assert waiting.endswith(" and 35 more")
    assert timer.split()[:3] == ["3", "-", "timer"]
    assert executor.startswith(" executor  default: 8 of 8 threads busy, 5 calls queued")
    assert "render_menu of job-c1d550" in call


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        (("--kind", "timer"), ["timer"]),
        (("--agent", "dental"), ["lock"]),
        (("--tenant", "acme"), ["lock"]),
        (("--limit", "1"), ["lock"]),
        (("--kind", "timer", "--agent", "dental"), []),
        ((), ["lock", "timer"]),
    ],
)
def test_a_choice_of_groups(options: tuple[str, ...], kinds: list[str], worker: FakeWorker) -> None:
    """The same with --json, which has whose it is and the rest of the answer, too."""
    result = run(*options, "--json", "--socket", str(worker.path))
    document = json.loads(result.stdout)
    assert [group["kind"] for group in document["groups"]] == kinds
    assert (document["worker"], document["host"], document["sessions"]) == ("fake", None, 40)
    assert document["type"] == "waits"
    assert document["executors"][0]["queued"] == 5
    lines = run(*options, "--socket", str(worker.path)).stdout
    assert [kind for kind in ("lock", "timer") if re.search(rf"^ +\d+ +\S+ +{kind} ", lines, re.MULTILINE)] == kinds
    if not kinds:
        assert lines.splitlines()[1] == " No group of the 2 is what these options choose."


def test_what_a_limit_leaves_out_is_said(worker: FakeWorker) -> None:
    """And how to see it."""
    assert " … and 1 more group: --limit 2" in run("-n", "1", "--socket", str(worker.path)).stdout.splitlines()


def test_an_unknown_kind_is_an_error(worker: FakeWorker) -> None:
    """It is one line with those that are known; --all is no option of JSON."""
    result = run("--kind", "mutex")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'mutex'; accepted are timer, socket, " in result.stderr
    assert run("--all", "--json").stderr == "error: --json has all in it; leave out --all\n"


def test_an_older_worker_says_since_when_they_are_told(make_snapshot: MakeSnapshot) -> None:
    """One line, and exit code 1."""
    with FakeWorker([make_snapshot()], misbehave="older-minor") as older:
        result = run("--socket", str(older.path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(
        r"error: worker 'fake' answers no waits requests: it runs version \S+, of protocol 1\.0, and waits came with "
        r"protocol 1\.2\n",
        result.stderr,
    )


def test_a_worker_in_process_mode_says_so(make_snapshot: MakeSnapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is of this version, and does not list them."""
    lists = {"capabilities": [each for each in CAPABILITIES if each != "waits"]}
    monkeypatch.setattr(misbehaviour._OlderMinor, "differs", lists)
    with FakeWorker([make_snapshot()], misbehave="older-minor") as worker:
        result = run("--socket", str(worker.path))
    assert result.exit_code == 1
    assert "it is too old, or each of its sessions is a process of its own, which is not looked into" in result.stderr


def test_several_workers(worker: FakeWorker, make_snapshot: MakeSnapshot) -> None:
    """Each has its part; with --socket, one that cannot tell makes the exit code 1."""
    with FakeWorker([make_snapshot()], name="other") as other:
        result = run("--socket", str(worker.path), "--socket", str(other.path))
        assert result.exit_code == 0
        assert re.search(r"^\nother · pid \d+ · 0 sessions, 0 tasks · nobody waits", result.stdout, re.MULTILINE)
        documents = run("--json", "--socket", str(worker.path), "--socket", str(other.path)).stdout.splitlines()
        assert [json.loads(line)["worker"] for line in documents] == ["fake", "other"]
    lost = run("--socket", str(worker.path), "--socket", "/nowhere/x.sock")
    assert lost.exit_code == 1
    assert "37" in lost.stdout
    assert lost.stderr.startswith("error: no worker answers at '/nowhere/x.sock'")


def test_a_frozen_worker(frozen: Callable[..., Any]) -> None:
    """What holds its loop is printed; waits are not in the black box."""
    frozen()
    result = run()
    assert result.exit_code == 1
    assert [line.strip() for line in result.stdout.splitlines()] == [
        "agents/call.py:18 in entrypoint",
        "agents/menu.py:42 in lookup_menu",
    ]
    assert re.fullmatch(
        r"error: voice-a is frozen, job-c1d550 has held its loop for \d+\.\d s: its waits cannot be had until it "
        r"answers again\n",
        result.stderr,
    )
    assert run("--json").stdout == ""


def test_through_a_relay(runtime_dir: Path, make_snapshot: MakeSnapshot, make_waits: MakeWaits) -> None:
    """The request passes through; the host's name stands before the worker's."""
    path = runtime_dir / "far-4.sock"
    via = f"voice-3={sys.executable} -m openrtc_top relay --worker far"
    with FakeWorker([make_snapshot()], waits=make_waits(), name="far", path=path):
        result = run("--via", via)
        document = json.loads(run("--via", via, "--json").stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.match(r"voice-3:far · pid \d+ · 40 sessions, 96 tasks\n", result.stdout)
    assert (document["worker"], document["host"]) == ("far", "voice-3")


def test_top_chooses_by_what_sessions_wait_for(
    make_snapshot: MakeSnapshot, make_session: Callable[..., SessionRow]
) -> None:
    """--waits, the filter's words, and the column."""
    rows = [make_session("job-1", waits="lock"), make_session("job-2", waits="timer"), make_session("job-3")]
    with FakeWorker([make_snapshot(*rows)]) as worker:
        arguments = ["top", "--json", "--socket", str(worker.path), "--waits", "lock"]
        document = json.loads(CliRunner().invoke(app, arguments).stdout)
        assert [row["session_id"] for row in document["sessions"]] == ["job-1"]
        arguments = ["top", "--once", "--socket", str(worker.path), "--waits", "timer"]
        lines = CliRunner().invoke(app, arguments).stdout.splitlines()
    assert "· waits timer" in lines[-1]
    assert re.search(r"\bjob-2 .* timer ", "\n".join(lines))
