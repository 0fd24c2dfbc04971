"""`openrtc postmortem`: what workers died of, and what becomes of their black boxes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from openrtc_introspect_core.black_box import MemoryPoint, _files
from openrtc_introspect_core.black_box._writer import BoxWriter
from openrtc_introspect_core.wire import Block, SessionRow, _places
from openrtc_introspect_testing import FakeWorker
from openrtc_top._cli import complete
from openrtc_top._cli.app import app

MakeBox = Callable[..., BoxWriter]
MakeSession = Callable[..., SessionRow]
OpenRTC = Callable[..., subprocess.CompletedProcess[str]]
RELAY = f"{sys.executable} -m openrtc_top relay --worker voice-a --worker chat"
"""Others may run workers on this machine."""
DIED = (
    r"voice-a pid 41213 died \d+ s ago while job-c1d550 held the loop for 8\.0 s at agents/menu\.py:42 in lookup_menu: "
    r"openrtc postmortem voice-a\n"
)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def dead(make_box: MakeBox, make_session: MakeSession, make_past: Callable[..., Block]) -> Path:
    """The box of a worker that died two minutes ago, eight seconds into a block."""
    now = time.time() - 120.0
    rows = [make_session(f"job-{number}", cpu_s=number * 1.5) for number in range(1, 8)]
    rows += [make_session("job-failed", status="errored", cpu_s=99.0)]
    memory = [MemoryPoint(at=now - 120.0 + 60.0 * minute, rss_mb=1000.0 + 30.0 * minute) for minute in range(3)]
    past = [make_past(seq) for seq in range(1, 8)]
    return make_box(held_s=8.0, dead=True, at=now, sessions=rows, memory=memory, blocks=past).path


def test_report(dead: Path) -> None:
    """When, what held the loop where since when, the memory, the sessions, the last blocks."""
    result = run("postmortem")
    assert (result.exit_code, result.stderr) == (0, "")
    heading, died, held, call, place, memory, sessions, blocks, titles, *rows = result.stdout.splitlines()
    assert re.fullmatch(r"voice-a · pid 41213 · died 2 min ago · ran for 1m00s", heading)
    assert re.fullmatch(
        r"    died       between \d\d:\d\d:\d\d, when it wrote its last record, and \d\d:\d\d:\d\d, now", died
    )
    assert re.fullmatch(
        r"    held by    job-c1d550 \(restaurant\) for 8\.0 s, since \d\d:\d\d:\d\d, at agents/menu\.py:42 in "
        r"lookup_menu \(native\)",
        held,
    )
    assert (call.strip(), place.strip()) == ("agents/call.py:18 in entrypoint", "agents/menu.py:42 in lookup_menu")
    assert memory == "    memory     1.0 GB of 4.0 GB, +30 MB/min"
    assert sessions == (
        "    sessions   8 died with it; by loop time: job-7 10.5 s, job-6 9.0 s, job-5 7.5 s, job-4 6.0 s, "
        "job-3 4.5 s, and 3 more"
    )
    assert blocks == "    blocks     the last 5"
    assert titles.split()[:2] == ["when", "for"]
    assert len(rows) == 5


def test_it_is_removed_once_it_was_shown(dead: Path) -> None:
    """A second time there is none."""
    assert run("postmortem").exit_code == 0
    assert not dead.exists()
    result = run("postmortem")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: no worker has died and left a black box\n"


def test_it_is_kept_if_that_is_wanted(dead: Path) -> None:
    """As often as one looks."""
    for _ in range(2):
        assert run("postmortem", "--keep").exit_code == 0
    assert dead.exists()


def test_a_reader_that_has_gone_costs_nothing(dead: Path) -> None:
    """What could not be written was not shown."""
    for options in ([], ["--json"]):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-m", "openrtc_top", "postmortem", "--socket", str(dead.with_suffix(".sock"))]
        with open(writer, "wb") as stdout:
            ended = subprocess.run([*command, *options], stdout=stdout, stderr=subprocess.PIPE, timeout=60, check=False)
        assert (ended.returncode, ended.stderr) == (0, b"")
        assert dead.exists()


def test_json(dead: Path) -> None:
    """A line for each worker, with all that its box says."""
    result = run("postmortem", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert (document["worker"], document["pid"], document["alive"], document["host"]) == ("voice-a", 41213, False, None)
    assert document["now"] - document["at"] >= 120.0
    assert document["loops"][0]["session_id"] == "job-c1d550"
    assert document["snapshot"]["blocks_in_progress"][0]["cause"] == "native"
    assert document["trend_mb_per_min"] == pytest.approx(30.0)
    assert not dead.exists()


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({}, "ran short steps until its last record, none of which held it for long"),
        ({"loop": "quiet"}, "idle at its last record: it waited for something to happen"),
    ],
)
def test_a_loop_that_was_not_held(
    state: dict[str, str], said: str, make_box: MakeBox, make_session: MakeSession
) -> None:
    """It says so, and how closely its death is known."""
    from openrtc_introspect_core.black_box import LoopState

    box = make_box(sessions=[make_session("a")])
    if state:
        box.write_loop(0, LoopState(at=time.time(), state="quiet"))
    box.close()
    _, died, loop, *_ = run("postmortem").stdout.splitlines()
    assert died.endswith("now; with sessions it writes one each second or so")
    assert loop == f"    loop       {said}"


@pytest.mark.parametrize(
    ("held", "label", "said"),
    [
        (True, "held by", r"job-c1d550 \(restaurant\) for 900 ms, since .*\(cpu\); that was its last look: {}"),
        (False, "loop", "not held at its last record, and not known since then: {}"),
    ],
)
def test_a_loop_without_a_record_of_its_own(
    held: bool, label: str, said: str, make_box: MakeBox, make_snapshot: Callable[..., Any]
) -> None:
    """What is known is as of the last look, and the report says so."""
    block = Block(seq=0, session_id="job-c1d550", agent_name="restaurant", duration_ms=900.0, cause="cpu")
    box = make_box(snapshot=make_snapshot(taken_at=time.time(), blocks=[block] if held else []))
    box.give_loop_back(0)
    box.erase_used()
    box.close()
    (line,) = (line for line in run("postmortem").stdout.splitlines() if line.startswith(f"    {label} "))
    blind = "no thread of it can look while C code keeps the GIL.*"
    assert re.fullmatch(f"    {label:<11}{said.format(blind)}", line)


def test_a_worker_that_wrote_nothing(make_box: MakeBox) -> None:
    """It died before it could."""
    make_box(dead=True, snapshot=None)
    text = run("postmortem").stdout
    assert "    sessions   not known: it died before it wrote them down\n" in text
    assert "    blocks     none that it remembered\n" in text


def test_an_idle_worker(make_box: MakeBox) -> None:
    """Nobody died with it."""
    make_box(dead=True)
    assert "    sessions   none died with it\n" in run("postmortem").stdout


def test_several(make_box: MakeBox, runtime_dir: Path) -> None:
    """The one that died last is last; a live one is not among them; a broken one costs the others nothing."""
    now = time.time()
    make_box("lately", pid=1, dead=True, at=now - 10.0)
    make_box("before", pid=2, dead=True, at=now - 20.0)
    make_box("alive", pid=3)
    broken = runtime_dir / "broken-4.box"
    broken.write_bytes(b"nothing of ours")
    broken.chmod(0o600)
    result = run("postmortem", "--keep")
    assert result.exit_code == 0
    names = [line.split()[0] for line in result.stdout.splitlines() if line and not line.startswith(" ")]
    assert names == ["before", "lately"]
    assert result.stderr == f"error: black box '{broken}' is no black box: it has 15 bytes\n"
    assert broken.exists()


@pytest.mark.parametrize(("wanted", "shown"), [(["a"], ["a"]), (["2", "a"], ["a", "b"]), (["1"], ["a"])])
def test_which_workers(wanted: list[str], shown: list[str], make_box: MakeBox) -> None:
    """By name or process id; the boxes of the others stay."""
    boxes = {name: make_box(name, pid=pid, dead=True).path for pid, name in enumerate("abc", start=1)}
    text = run("postmortem", *wanted).stdout
    assert sorted(re.findall(r"^(\w) · pid", text, re.MULTILINE)) == shown
    assert sorted(name for name, path in boxes.items() if not path.exists()) == shown


def test_no_such_worker(dead: Path) -> None:
    """Is an error of one line."""
    result = run("postmortem", "nobody", "7")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: no worker of the name or process id 'nobody' or '7' has died and left a black box\n"


def test_a_box_from_elsewhere(dead: Path, tmp_path: Path, make_box: MakeBox) -> None:
    """A copy is shown, and kept; a live worker's is not a dead one's; one that is not there is an error."""
    copy = tmp_path / "copy.box"
    copy.write_bytes(dead.read_bytes())
    copy.chmod(0o600)
    result = run("postmortem", "--box", str(copy))
    assert result.exit_code == 0
    assert "job-c1d550 (restaurant) for 8.0 s" in result.stdout
    assert copy.exists()
    alive = make_box("alive").path
    result = run("postmortem", "--box", str(alive), "--box", str(tmp_path / "none.box"))
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"error: black box '{alive}': its worker lives; `openrtc top` shows it",
        f"error: black box '{tmp_path}/none.box': No such file or directory",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--box", "x", "name"],
        ["--box", "x", "--all-users"],
        ["name", "--socket", "x"],
        ["--socket", "x", "--via", "env"],
    ],
)
def test_contradictions(arguments: list[str]) -> None:
    """Are wrong usage."""
    result = run("postmortem", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1


def test_the_box_beside_a_socket(dead: Path, make_box: MakeBox) -> None:
    """That one alone."""
    other = make_box("other", pid=1, dead=True).path
    assert run("postmortem", "--socket", str(dead.with_suffix(".sock"))).exit_code == 0
    assert (dead.exists(), other.exists()) == (False, True)


def test_through_a_relay(dead: Path) -> None:
    """The same of another host, where it is kept: a relay only reads."""
    result = run("postmortem", "--via", f"voice-3={RELAY}")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("voice-3:voice-a · pid 41213 · died 2 min ago")
    assert dead.exists()
    document = json.loads(run("postmortem", "voice-3:voice-a", "--json", "--via", f"voice-3={RELAY}").stdout)
    assert (document["host"], document["worker"]) == ("voice-3", "voice-a")
    result = run("postmortem", "nobody", "--via", f"voice-3={RELAY}")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no worker of the name or process id 'nobody' has died at voice-3 and left")
    assert run("postmortem", "--via", "a=sh -c 'exit 3'").exit_code == 1


def test_it_cannot_be_removed(dead: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was shown all the same."""
    monkeypatch.setattr(_files, "file_identity", lambda path: None)
    result = run("postmortem")
    assert result.exit_code == 0
    assert result.stderr.startswith("note: black box ")
    assert dead.exists()


def test_completion(dead: Path, make_box: MakeBox) -> None:
    """Dead workers are offered, and not those that live."""
    make_box("alive", pid=5)
    assert complete.dead_worker("") == ["voice-a"]
    make_box("voice-a", pid=7, dead=True)
    assert complete.dead_worker("") == ["41213", "7", "voice-a"]


# --- lines elsewhere -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [["ps"], ["top", "--once"], ["blocks"], ["diagnose"], ["top", "--worker", "voice-a"]]
)
def test_no_worker_but_a_dead_one(command: list[str], dead: Path) -> None:
    """It is what one looks for; exit code 1 as ever."""
    result = run(*command)
    assert (result.exit_code, result.stdout) == (1, "")
    first, line = result.stderr.splitlines()
    assert first == (
        "error: no worker 'voice-a'; running: none"
        if "--worker" in command
        else "No OpenRTC worker is running for this user."
    )
    assert re.fullmatch(DIED.replace(r"\d+ s", "2 min"), f"{line}\n")
    assert dead.exists()


def test_a_socket_of_a_dead_worker(dead: Path) -> None:
    """Below the error that nobody answers there, what its worker died of."""
    result = run("top", "--once", "--socket", str(dead.with_suffix(".sock")))
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(DIED.replace(r"\d+ s", "2 min"), result.stderr.splitlines()[1] + "\n")


def test_no_worker_of_another_host_but_a_dead_one(dead: Path) -> None:
    """It is said below that none runs."""
    result = run("ps", "--via", f"voice-3={RELAY}")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[1].startswith("voice-3:voice-a pid 41213 died 2 min ago while job-c1d550 held")


def test_none_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said what is in the way."""
    monkeypatch.setenv("OPENRTC_RUNTIME_DIR", str(tmp_path / "none"))
    monkeypatch.setattr(_places, "default_dirs", list)
    result = run("postmortem")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: no worker has died and left a black box\n"
        f"'{tmp_path}/none' does not exist: set OPENRTC_RUNTIME_DIR to the worker's, or run this in its container\n"
    )


@pytest.fixture
def alive(make_snapshot: Callable[..., Any], runtime_dir: Path) -> Any:
    with FakeWorker([make_snapshot(name="chat")], path=runtime_dir / "chat-7.sock") as worker:
        yield worker


@pytest.mark.parametrize("command", [["ps"], ["top", "--once"]])
@pytest.mark.parametrize("via", [[], ["--via", f"env {RELAY}"]])
def test_a_dead_worker_beside_live_ones(command: list[str], via: list[str], dead: Path, alive: FakeWorker) -> None:
    """One quiet line, which removes nothing."""
    result = run(*command, *via)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "voice-a pid 41213 died 2 min ago while job-c1d550 held the loop" in result.stdout
    assert dead.exists()
    assert "voice-a" not in run("ps", "--json").stdout


def test_many_dead_workers(alive: FakeWorker, make_box: MakeBox) -> None:
    """The last ones are named, the others counted."""
    for pid in range(1, 13):
        make_box(f"w-{pid}", pid=pid, dead=True, at=time.time() - 60.0 * pid)
    lines = run("ps").stdout.splitlines()[2:]
    assert len(lines) == 8
    assert lines[0].startswith("w-1 pid 1 died 1 min ago: openrtc postmortem w-1")
    assert lines[-1] == "… and 5 more that died: openrtc postmortem"


def test_live(dead: Path, alive: FakeWorker, in_terminal: Callable[..., Any]) -> None:
    """The line is there until the box is not."""
    terminal = in_terminal("top", "--worker", "voice-a", "--worker", "chat")
    terminal.wait_for(lambda screen: "voice-a pid 41213 died 2 min ago while job-c1d550 held the loop" in screen)
    assert run("postmortem").exit_code == 0
    terminal.wait_for(lambda screen: "died" not in screen)
    terminal.press("q")
    assert terminal.wait_for_end() == 0
