"""The command line: what is accepted, what is said, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from openrtc_introspect_core import __version__, black_box
from openrtc_introspect_core.wire import SessionRow, Snapshot, WorkerSocket
from openrtc_top._cli.app import app
from openrtc_top._cli.show import json_line
from openrtc_top._client import targets, unseen
from openrtc_top._model.columns import SORTS
from openrtc_top._model.rows import Filter

StartWorker = Callable[..., subprocess.Popen[bytes]]
OpenRTC = Callable[..., subprocess.CompletedProcess[str]]

HINT = (
    "No OpenRTC worker is running for this user.\n"
    "Searched: /here/openrtc-7. For a worker whose OPENRTC_RUNTIME_DIR is another, set it here too.\n"
    "Start one (`openrtc run -- python my_worker.py`, or `openrtc demo` to try), then run `openrtc top`.\n"
)


def run(*arguments: str, **environment: str) -> Any:
    """The command in this process, for tests that need no process of its own."""
    return CliRunner().invoke(app, arguments, env=environment)


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever runs or has died on this machine, none is found."""
    monkeypatch.setattr(targets, "discover", list)
    monkeypatch.setattr(black_box, "find_boxes", lambda all_users: [])
    monkeypatch.setattr(unseen, "discover_all", list)
    monkeypatch.setattr(unseen, "refused_dirs", lambda all_users=False: [])
    monkeypatch.setattr(unseen, "search_dirs", lambda: [Path("/here/openrtc-7")])


@pytest.fixture
def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two are found, neither of which answers, and none that has died."""
    monkeypatch.setattr(black_box, "find_boxes", lambda all_users: [])
    found = [WorkerSocket(Path(f"/nowhere/{name}-7.sock"), name, 7) for name in ("chat", "voice")]
    monkeypatch.setattr(targets, "discover", lambda: found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "no such command 'nope'"),
        (["tp"], "did you mean 'top'"),
        (["top", "--bogus"], "no such option"),
        (["top", "extra"], "unexpected extra argument"),
        (["top", "--sort"], "--sort"),
        (["top", "--refresh-rate", "0.4"], "'0.4'; accepted are 0.5 to 10 frames per second"),
        (["top", "--refresh-rate", "11"], "'11'; accepted are 0.5 to 10"),
        (["top", "--refresh-rate", "abc"], "'abc'; accepted are 0.5 to 10"),
        (["top", "--refresh-rate", "nan"], "'nan'; accepted are 0.5 to 10"),
        (["top", "--refresh-rate", ""], "''; accepted are 0.5 to 10"),
        (["top", "--once", "--refresh-rate", "-1"], "'-1'; accepted are 0.5 to 10"),
        (["top", "--sort", "nope"], "'nope'; accepted are mem_mb, cpu_pct, duration_s, agent, session"),
        (["top", "--status", "nope"], "'nope'; accepted are active, slow, blocked, draining, errored, all"),
        (["top", "--columns", "session,nope"], "'nope'; accepted are number, session, agent, tenant, worker"),
        (["top", "--columns", ""], "''; accepted are number, session"),
        (["top", "--columns", "session", "--json"], "give one of them"),
        (["top", "--socket", "x", "--worker", "y"], "give one of them"),
        (["demo", "--sessions", "0"], "'0'; accepted are 1 to 1000"),
        (["demo", "--sessions", "many"], "'many'; accepted are 1 to 1000"),
        (["demo", "--sessions", "٣"], "accepted are 1 to 1000"),
        (["demo", "--seconds", "0"], "'0'; accepted are 0.1 to 86400 seconds"),
        (["ps", "--once"], "no such option"),
        (["dev"], "missing argument 'PATH'"),
        (["dev", "/nowhere"], "no such file or folder: '/nowhere'"),
        (["dev", ".", "--sessions", "0"], "'0'; accepted are 1 to 1000"),
        (["dev", ".", "--isolation", "thread"], "'thread'; accepted are coroutine, process"),
        (["dev", ".", "--slow-session-threshold-ms", "0"], "'0'; accepted are 0.1 to 8.64e+07 milliseconds"),
        (["dev", ".", "--memory-limit-mb", "-1"], "'-1'; accepted are 0 to 1e+09 MB"),
        (["dev", ".", "--tenant", ""], "--tenant takes 1 to 256 printable characters, got ''"),
        (["dev", ".", "--name", ""], "name must have 1 to 256 characters, got an empty one"),
    ],
)
def test_usage_errors(arguments: list[str], message: str, no_workers: None) -> None:
    """One line on stderr that says what was given and what is accepted, and exit code 2."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr.replace("Did", "did")


def test_no_arguments_is_help() -> None:
    """The bare command shows what there is; that was wrong usage all the same."""
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2
    assert "Usage" in result.output
    assert "error" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["top", "--help"],
        ["ps", "-h"],
        ["blocks", "-h"],
        ["dev", "-h"],
        ["demo", "--help"],
        ["tasks", "-h"],
        ["record", "-h"],
        ["postmortem", "-h"],
        ["relay", "-h"],
    ],
)
def test_help(arguments: list[str]) -> None:
    """Each word has help, which names the exit codes."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert "Exit codes" in result.stdout


def test_help_lists_what_is_accepted() -> None:
    """The words that options take are in the help."""
    text = CliRunner().invoke(app, ["top", "--help"], env={"COLUMNS": "200"}).stdout
    for word in ("mem_mb", "worst", "draining", "0.5 to 10", "NAME|PID"):
        assert word in text


def test_version() -> None:
    """The version is the core's: there is one for all."""
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"openrtc {__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["top"],
        ["top", "--once"],
        ["top", "--json"],
        ["top", "--worker", "x"],
        ["ps"],
        ["ps", "--json"],
        ["blocks"],
        ["blocks", "-f"],
    ],
)
def test_no_worker(arguments: list[str], no_workers: None) -> None:
    """Three lines say where it was looked for and how to get one; exit code 1, and nothing on stdout for a script."""
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", HINT)


def test_no_such_worker(two_workers: None) -> None:
    """The error names the workers that run."""
    result = CliRunner().invoke(app, ["top", "--worker", "nobody"])
    assert result.exit_code == 1
    assert result.stderr == "error: no worker 'nobody'; running: chat (pid 7), voice (pid 7)\n"


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_no_answer(option: list[str], two_workers: None) -> None:
    """A worker that was found but does not answer is an error of one line."""
    result = CliRunner().invoke(app, ["top", "--worker", "chat", *option])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: no worker answers at '/nowhere/chat-7.sock'")
    assert result.stderr.count("\n") == 1


def test_ps_lists_those_that_do_not_answer(two_workers: None) -> None:
    """Name and pid from their sockets' names are listed; the rest is n/a, and stderr says why."""
    result = CliRunner().invoke(app, ["ps"])
    assert result.exit_code == 0
    assert [line.split()[:3] for line in result.stdout.splitlines()[1:]] == [
        ["chat", "7", "n/a"],
        ["voice", "7", "n/a"],
    ]
    assert result.stderr.count("error: no worker answers") == 2
    described = [json.loads(line) for line in CliRunner().invoke(app, ["ps", "--json"]).stdout.splitlines()]
    assert [(line["name"], line["pid"], "error" in line) for line in described] == [
        ("chat", 7, True),
        ("voice", 7, True),
    ]


@pytest.mark.parametrize("option", [["--once"], ["--json"], []])
def test_socket_that_is_none(option: list[str], tmp_path: Path) -> None:
    """A path with nothing behind it, or with a file: one line, exit code 1."""
    file = tmp_path / "file"
    file.touch()
    for path in (tmp_path / "missing", file, tmp_path):
        result = run("top", "--socket", str(path), *option)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"error: no worker answers at '{path}'")
        assert result.stderr.count("\n") == 1


def test_escapes_in_arguments_are_shown(openrtc: OpenRTC) -> None:
    """The given text comes back in the error, but not to be obeyed by the terminal."""
    result = openrtc("top", "--socket", "/x\x1b[31m")
    assert result.returncode == 1
    assert "\x1b" not in result.stderr


def test_once(start_worker: StartWorker, openrtc: OpenRTC) -> None:
    """The table of a real worker, 120 wide in a pipe, plain text."""
    process = start_worker("once", 3)
    result = openrtc("top", "--once", "--worker", "once", COLUMNS="")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f" openrtc top · once · pid {process.pid} ")
    assert lines[0].endswith("3 sessions · 0 errored")
    assert max(map(len, lines)) == 120
    assert "\x1b" not in result.stdout
    for number in range(3):
        assert f"job-000{number}" in result.stdout
    assert openrtc("top", "--worker", str(process.pid), COLUMNS="80").stdout.splitlines()[0].count("once") == 1


def test_a_name_that_its_socket_spells_otherwise(start_worker: StartWorker) -> None:
    """--worker takes the worker's own name, hyphen and space included."""
    start_worker("eu-west 1", 1)
    result = run("top", "--once", "--worker", "eu-west 1")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "eu-west 1" in result.stdout


def test_filters(start_worker: StartWorker) -> None:
    """--agent, --tenant and --status choose sessions, in the table and in the JSON."""
    start_worker("filters", 4)

    def chosen(*options: str) -> list[str]:
        result = run("top", "--worker", "filters", "--json", *options)
        assert (result.exit_code, result.stderr) == (0, "")
        (line,) = result.stdout.splitlines()
        snapshot = json.loads(line)
        assert snapshot["type"] == "snapshot"
        assert snapshot["worker"]["sessions"] == 4
        return [session["session_id"] for session in snapshot["sessions"]]

    assert chosen("--sort", "session") == ["job-0000", "job-0001", "job-0002", "job-0003"]
    assert chosen("--agent", "dental", "--sort", "session") == ["job-0001", "job-0003"]
    assert chosen("--tenant", "globex", "--sort", "session_id") == ["job-0000", "job-0002"]
    assert chosen("--agent", "dental", "--tenant", "globex") == []
    assert chosen("--status", "blocked") == []
    assert len(chosen("--status", "active")) == len(chosen("--status", "all")) == 4
    table = run("top", "--worker", "filters", "--agent", "dental").stdout
    assert "job-0001" in table
    assert "job-0000" not in table
    assert "agent dental" in table


def test_columns(start_worker: StartWorker, config_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--columns says which, in which order; what the live view remembers has no say in a script's output."""
    monkeypatch.setenv("COLUMNS", "160")
    start_worker("columns", 1)
    file = config_home / "openrtc" / "top.toml"
    file.parent.mkdir(parents=True)
    file.write_text('columns = ["tenant"]')

    def titles(*options: str) -> list[str]:
        (line,) = [line for line in run("top", "--worker", "columns", *options).stdout.splitlines() if "tenant" in line]
        return line.split()

    assert titles()[:3] == ["#", "session", "agent"]
    assert titles("--columns", "tenant, cpu%,heap_mb,session_id,tenant") == ["tenant", "cpu%▼", "heap", "session"]


def test_several_workers(start_worker: StartWorker) -> None:
    """One table with a worker column; one line of JSON for each."""
    start_worker("several-a", 1)
    start_worker("several-b", 2)
    names = ("--worker", "several-a", "--worker", "several-b")
    table = run("top", "--once", *names).stdout
    assert "2 workers" in table
    assert "3 sessions" in table
    lines = run("top", "--json", *names).stdout.splitlines()
    assert [json.loads(line)["worker"]["name"] for line in lines] == ["several-a", "several-b"]


def test_ps(start_worker: StartWorker, runtime_dir: Path) -> None:
    """Each running worker with what identifies it, its socket's path uncut."""
    process = start_worker("ps-me", 2)
    (line,) = [line for line in run("ps", COLUMNS="40").stdout.splitlines() if line.startswith("ps-me ")]
    name, pid, loop, _python, meter, mode, sessions, *_, socket = line.split()
    assert meter in ("C", "Python")
    assert (name, pid, loop, mode, sessions) == ("ps-me", str(process.pid), "asyncio", "coroutine", "2")
    assert Path(socket).parent == runtime_dir
    described = [json.loads(line) for line in run("ps", "--json").stdout.splitlines()]
    (worker,) = [worker for worker in described if worker["name"] == "ps-me"]
    assert (worker["pid"], worker["socket"], worker["sessions"]) == (process.pid, socket, 2)
    assert worker["meter"] == meter


def test_json_is_the_wires(make_snapshot: Callable[..., Snapshot], make_session: Callable[..., SessionRow]) -> None:
    """Without filters it is byte for byte what the wire carries; with one, only sessions are missing."""
    from openrtc_introspect_core.wire import decode_server_message, to_json

    snapshot = make_snapshot(make_session("a", cpu_pct=None), make_session("東", agent_name="x", cpu_pct=7.25))
    assert json_line(snapshot, Filter(), None).encode() == to_json(snapshot)
    chosen = decode_server_message(json_line(snapshot, Filter(agent="x"), None).encode())
    assert isinstance(chosen, Snapshot)
    assert chosen.sessions == snapshot.sessions[1:]
    assert chosen.worker == snapshot.worker
    ordered = json.loads(json_line(snapshot, Filter(), SORTS["cpu_pct"]))["sessions"]
    assert [session["session_id"] for session in ordered] == ["東", "a"]


def test_json_holds_nothing_a_terminal_obeys(
    make_snapshot: Callable[..., Snapshot], make_session: Callable[..., SessionRow]
) -> None:
    """Controls that JSON need not escape are escaped, and are the same when read again."""
    session_id = "a\x9b31m\x7f\u202e\u2028z"
    line = json_line(make_snapshot(make_session(session_id)), Filter(), None)
    assert line.isprintable()
    assert json.loads(line)["sessions"][0]["session_id"] == session_id


def test_ascii_output(start_worker: StartWorker, openrtc: OpenRTC) -> None:
    """A terminal without Unicode gets # and ., and no error."""
    start_worker("ascii", 1)
    result = openrtc("top", "--worker", "ascii", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert result.returncode == 0
    assert result.stdout.isascii()
    assert " loop " in result.stdout
    asked_for = openrtc("top", "--worker", "ascii", "--ascii", COLUMNS="90").stdout
    assert asked_for.isascii()
    assert max(map(len, asked_for.splitlines())) == 90


def test_ascii_json(start_worker: StartWorker) -> None:
    """Text that is not ASCII is escaped, and is the same when read again."""
    start_worker("東京", 1)
    plain, ascii = (run("top", "--json", "--worker", "東京", *option).stdout for option in ([], ["--ascii"]))
    assert ascii.isascii()
    assert json.loads(ascii)["worker"]["name"] == json.loads(plain)["worker"]["name"] == "東京"


def test_a_reader_that_leaves(start_worker: StartWorker) -> None:
    """`openrtc top --once | head -1` ends in silence."""
    start_worker("leaves", 2000)
    command = [sys.executable, "-m", "openrtc_top", "top", "--worker", "leaves"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b" openrtc top")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_output_that_cannot_be_written(start_worker: StartWorker) -> None:
    """A full disk is an error of one line; so is a closed stdout."""
    start_worker("full", 1)
    command = [sys.executable, "-m", "openrtc_top", "top", "--worker", "full"]
    with open("/dev/full", "w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "error: cannot write to stdout: No space left on device\n")
    shell = ["sh", "-c", '"$@" >&-', "sh", *command]
    result = subprocess.run(shell, stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "error: stdout is closed\n")
