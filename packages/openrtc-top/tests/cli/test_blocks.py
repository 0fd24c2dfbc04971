"""`openrtc blocks`: what it prints of scripted workers to the letter, and of real ones that block."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from openrtc_introspect_core import read_snapshot
from openrtc_introspect_core.wire import Block, SessionRow, Snapshot, WorkerInfo, decode_server_message
from openrtc_introspect_testing import FakeWorker
from openrtc_top._cli.app import app
from openrtc_top._model.blocks import CAUSES

OpenRTC = Callable[..., subprocess.CompletedProcess[str]]
InTerminal = Callable[..., Any]  # a FakeTerminal, see conftest.py
StartBlocking = Callable[[str], Callable[..., None]]
MakeBlock = Callable[..., Block]

TABLE = Path(__file__).parents[1] / "screens" / "blocks-pipe.txt"


@pytest.fixture
def worker(
    past_blocks: list[Block],
    make_snapshot: Callable[..., Snapshot],
    make_session: Callable[..., SessionRow],
    make_block: MakeBlock,
    utc: None,
) -> Iterator[FakeWorker]:
    """One that has blocked five times and blocks now."""
    going_on = make_block(started_at=996.8, cause=None, delayed=None)
    snapshot = make_snapshot(make_session(), blocks=[going_on])
    with FakeWorker([snapshot], blocks=past_blocks) as fake:
        yield fake


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def printed(worker: FakeWorker, *options: str) -> str:
    return run("blocks", "--socket", str(worker.path), *options)


def test_table(worker: FakeWorker) -> None:
    """The newest is last, and after it what goes on; in a pipe nothing is cut."""
    text = printed(worker)
    if os.environ.get("OPENRTC_WRITE_SCREENS"):
        TABLE.write_text(text, encoding="utf-8")
    assert text == TABLE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (["--session", "job-77ab02"], [4]),
        (["--session", "job-77ab02", "--session", "job-c1d550"], [3, 4, 5, 6]),
        (["--cause", "gc"], [2]),
        (["--session", "job-c1d550", "--cause", "import"], [3]),
        (["--since", "4"], [5, 6]),
        (["--limit", "1"], [5, 6]),
        (["-n", "0"], [6]),
        (["--limit", "100"], [1, 2, 3, 4, 5, 6]),
    ],
)
def test_choosing(options: list[str], lines: list[int], worker: FakeWorker) -> None:
    """By session, cause and number; the limit is for those that are over."""
    rows = TABLE.read_text(encoding="utf-8").splitlines()
    expected = [rows[line].split()[0] for line in lines]
    assert [line.split()[0] for line in printed(worker, *options).splitlines()[1:]] == expected


def test_nothing_chosen(worker: FakeWorker) -> None:
    """No blocks is no error: a line says so, but not in JSON, which a script reads."""
    assert printed(worker, "--session", "nobody") == "No blocks that these options choose, of 5 that were read.\n"
    assert printed(worker, "--session", "nobody", "--json") == ""


def test_no_blocks(make_snapshot: Callable[..., Snapshot]) -> None:
    """A worker that has not blocked reports its threshold and since when."""
    with FakeWorker([make_snapshot(name="evil\x1b[2J")]) as worker:
        text = printed(worker)
    assert text == "No blocks: nothing has held the loop of evil\\x1b[2J longer than 50 ms in the 2h14m it is up.\n"


def test_stacks(worker: FakeWorker) -> None:
    """Under each block its calls, the innermost last."""
    lines = printed(worker, "--stacks", "--since", "3").splitlines()
    assert lines[2:5] == [
        "           agents/restaurant.py:18 in entrypoint",
        "           agents/restaurant.py:42 in lookup_menu",
        "           requests/sessions.py:589 in Session.request",
    ]
    assert lines[-1] == "           no stack was captured"


def test_delayed_sessions(worker: FakeWorker) -> None:
    """Under each block whom it delayed, and at the end who delayed whom; ≤ is a bound."""
    lines = printed(worker, "--victims", "--limit", "5").splitlines()
    assert lines[2] == "           delayed job-9f00e1 55 ms, job-1c33aa ≤ 50 ms"
    assert lines[6] == "           whom it delayed is not known"
    assert lines[8] == "           delayed no session"
    table = lines[lines.index("") + 1 :]
    assert table[0] == " who                 delayed     blocks    total    worst"
    assert table[1] == " job-c1d550          job-0            1    60 ms    60 ms"
    assert table[-1] == " no session (gc)     job-c1d550       1  ≤ 62 ms  ≤ 62 ms"
    assert len(table) == 1 + 37 + 2 + 1


def test_what_delayed_a_session(worker: FakeWorker) -> None:
    """With --victims blocks are shown too for which the session waited."""
    lines = printed(worker, "--victims", "--session", "job-1c33aa").splitlines()
    assert [line.split()[0] for line in lines if ":" in line] == ["00:16:00"]
    assert lines[-1].split() == ["no", "session", "(burst)", "job-1c33aa", "1", "≤", "50", "ms", "≤", "50", "ms"]


def test_json(worker: FakeWorker, past_blocks: list[Block]) -> None:
    """A line for each block, as the wire has it."""
    lines = printed(worker, "--json").splitlines()
    blocks = [json.loads(line) for line in lines]
    assert [block["seq"] for block in blocks] == [1, 2, 3, 4, 5, 0]
    message = '{"type":"blocks","id":1,"blocks":[' + ",".join(lines[:-1]) + "]}"
    assert decode_server_message(message.encode()).blocks == past_blocks  # type: ignore[union-attr]


def test_hostile_texts(make_snapshot: Callable[..., Snapshot], make_past: MakeBlock, make_block: MakeBlock) -> None:
    """Nothing that a terminal would obey comes through, in no form of output."""
    from openrtc_introspect_core.wire import Delayed, Location

    evil = "\x1b[2J\x9b\u202e\n"
    place = Location(evil, 1, evil)
    names = dict.fromkeys(("session_id", "agent_name", "tenant", "task_name", "cause", "detail"), evil)
    block = make_past(1, **names, location=place, stack=[place], delayed=[Delayed(evil, 1.0)])
    nobodys = make_past(2, session_id=None, cause=evil, delayed=[Delayed(evil, 1.0)])
    snapshot = make_snapshot(name=evil, blocks=[make_block(session_id=evil, detail=evil)])
    with FakeWorker([snapshot], blocks=[block, nobodys]) as worker:
        for options in ([], ["--stacks", "--victims"], ["--json"]):
            text = printed(worker, *options)
            assert all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cause", "nope"], f"'nope'; accepted are {', '.join(CAUSES)} "),
        (["--limit", "-1"], "'-1'; accepted are 0 to"),
        (["--limit", "many"], "'many'; accepted are 0 to"),
        (["--since", "x"], "'x'; accepted are 0 to"),
        (["--json", "--victims"], "leave out --stacks and --victims"),
        (["--json", "--stacks"], "leave out --stacks and --victims"),
        (["--socket", "x", "--worker", "y"], "give one of them"),
    ],
)
def test_usage_errors(arguments: list[str], message: str) -> None:
    """One line on stderr and exit code 2."""
    result = CliRunner().invoke(app, ["blocks", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("option", [[], ["--json"], ["--follow"]])
def test_no_answer(option: list[str], tmp_path: Path) -> None:
    """A socket that nothing serves is an error of one line."""
    result = CliRunner().invoke(app, ["blocks", "--socket", str(tmp_path / "x.sock"), *option])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: no worker answers at ")
    assert result.stderr.count("\n") == 1


def test_several_workers(
    past_blocks: list[Block], make_snapshot: Callable[..., Snapshot], tmp_path: Path, utc: None
) -> None:
    """One list with a worker column, in the order of time; one that is not there is reported."""
    with (
        FakeWorker([make_snapshot(name="voice-a")], blocks=past_blocks[::2]) as first,
        FakeWorker([make_snapshot(name="voice-b")], blocks=past_blocks[1::2]) as second,
    ):
        sockets = [option for fake in (first, second) for option in ("--socket", str(fake.path))]
        result = CliRunner().invoke(app, ["blocks", *sockets])
        rows = [line.split() for line in result.stdout.splitlines()[1:]]
        partly = CliRunner().invoke(app, ["blocks", *sockets, "--socket", str(tmp_path / "x.sock")])
    assert [row[3] for row in rows] == ["voice-a", "voice-b"] * 2 + ["voice-a"]
    assert (partly.exit_code, partly.stdout) == (1, result.stdout)
    assert partly.stderr.count("\n") == 1


# --- real workers --------------------------------------------------------------------------------


def at_least(hundreds: int) -> str:
    """A pattern for so many hundred milliseconds, or more: a busy machine adds to them."""
    return rf"(?:[{hundreds}-9]\d\d ms|\d+\.\d s)"


def blocking_now(runtime_dir: Path) -> None:
    """Wait until the only worker reports that its loop is held, and the line."""
    (socket,) = runtime_dir.glob("*.sock")
    deadline = time.monotonic() + 25  # the block lasts for thirty
    while not any(block.location for block in read_snapshot(socket).blocks_in_progress):
        assert time.monotonic() < deadline


def test_a_worker_that_blocks(start_blocking: StartBlocking, openrtc: OpenRTC) -> None:
    """The culprit, the line, the cause and the delayed session; `top --once` names the line too."""
    block = start_blocking("blocks-me")
    assert run("blocks", "--worker", "blocks-me", "--session", "job-culprit").startswith("No blocks")
    block(0.3)
    once = run("top", "--once", "--worker", "blocks-me")
    assert re.search(
        rf"^ SLOW {at_least(3)}  job-culprit  restaurant  <string>:\d+ in lookup_menu  \(sync-call\)",
        once,
        re.MULTILINE,
    )
    result = openrtc("blocks", "--worker", "blocks-me", "--session", "job-culprit", "--victims", "--stacks")
    assert (result.returncode, result.stderr) == (0, "")
    row = result.stdout.splitlines()[1]
    assert re.search(rf" {at_least(3)} +job-culprit +restaurant +sync-call +<string>:\d+ in lookup_menu +1, worst", row)
    assert re.search(r"^ {11}<string>:\d+ in main\n {11}<string>:\d+ in lookup_menu$", result.stdout, re.MULTILINE)
    total = rf"^ job-culprit +job-victim +1 +{at_least(2)} +{at_least(2)}$"
    assert re.search(total, result.stdout, re.MULTILINE)


def test_while_it_blocks(start_blocking: StartBlocking, runtime_dir: Path) -> None:
    """A block in progress is shown with its line, growing."""
    block = start_blocking("blocks-now")
    block(30.0, wait=False)
    blocking_now(runtime_dir)
    (row,) = run("blocks", "--worker", "blocks-now", "--session", "job-culprit").splitlines()[1:]
    assert re.search(r"[ms]… +job-culprit +restaurant +sync-call +<string>:\d+ in lookup_menu", row)
    once = run("top", "--once", "--worker", "blocks-now")
    assert re.search(r"^ BLOCKED .* job-culprit  restaurant  <string>:\d+ in lookup_menu", once, re.MULTILINE)


def follow(*options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "openrtc_top", "blocks", "--follow", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell has its background jobs ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_follow(start_blocking: StartBlocking) -> None:
    """First what is known, then each block as it ends, until Ctrl-C, which is no error."""
    block = start_blocking("follow-blocks")
    block(0.1)
    with follow("--worker", "follow-blocks", "--session", "job-culprit") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert process.stdout.readline().startswith(" when ")
            assert "job-culprit" in process.stdout.readline()
            block(0.2)
            assert re.search(rf" {at_least(2)} +job-culprit ", process.stdout.readline())
            block(0.3)
            assert re.search(rf" {at_least(3)} +job-culprit ", process.stdout.readline())
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            assert (process.stdout.read(), process.stderr.read()) == ("", "")
        finally:
            process.kill()


def test_follow_through_a_restart(
    make_snapshot: Callable[..., Snapshot], make_past: MakeBlock, runtime_dir: Path
) -> None:
    """A worker that is lost is reported, and so is its return; then its blocks count anew."""
    path = runtime_dir / "fake.sock"
    past = [make_past(1), make_past(2)]
    with FakeWorker([make_snapshot(epoch="first")], blocks=past, path=path) as fake:
        process = follow("--socket", str(path), "--json", "--limit", "0")
        deadline = time.monotonic() + 20
        while fake.snapshots_taken < 2:  # the second is for the connection that stays
            assert time.monotonic() < deadline
            time.sleep(0.01)
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert process.stderr.readline() == "voice-a: it closed the connection; trying again\n"
            again = Snapshot(worker=WorkerInfo(name="voice-a", pid=1, epoch="second", blocks=1))
            with FakeWorker([again], blocks=[make_past(1, session_id="after")], path=path):
                assert process.stderr.readline() == "voice-a: connected again\n"
                assert json.loads(process.stdout.readline())["session_id"] == "after"
        finally:
            process.kill()


def test_a_reader_that_leaves(start_blocking: StartBlocking) -> None:
    """`openrtc blocks --follow | head -1` ends in silence, with the next block."""
    block = start_blocking("leave-blocks")
    with follow("--worker", "leave-blocks") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert process.stdout.readline().startswith(" when ")
            process.stdout.close()
            deadline = time.monotonic() + 20
            while process.poll() is None:
                assert time.monotonic() < deadline
                block(0.1)
            assert (process.returncode, process.stderr.read()) == (0, "")
        finally:
            process.kill()


def test_in_a_terminal(start_blocking: StartBlocking, in_terminal: InTerminal) -> None:
    """There it fits the width, in colour."""
    block = start_blocking("terminal-blocks")
    block(0.1)
    terminal = in_terminal("blocks", "--worker", "terminal-blocks", "--victims", "--stacks", columns=60)
    assert terminal.wait_for_end() == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.written).splitlines()
    assert max(map(len, lines)) <= 60
    assert any("job-culprit" in line for line in lines)
    assert "\x1b[1m" in terminal.written
