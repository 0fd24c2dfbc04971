"""Names come from whoever calls: whatever they hold, no command hands it to a terminal to be obeyed."""

from __future__ import annotations

import itertools
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import typer.main
from typer.testing import CliRunner

from openrtc_introspect_core.black_box import LoopState
from openrtc_introspect_core.black_box._records import WorkerRecord
from openrtc_introspect_core.wire import Block, SessionRow, Snapshot, Tasks, ThreadStack, Waits, WorkerInfo
from openrtc_introspect_testing._workers.fake_worker import FakeWorker
from openrtc_top._cli.app import app

# Clears the screen, asks the terminal to type an answer, sets its title and its clipboard, resets it; the same
# with C1 codes; backspaces, a return, a change of direction, separators of lines and
# paragraphs, and what is not shown at all.
EVIL = (
    "a\x1b[2J\x1b[6n\x1b]0;t\x07\x1b]52;c;eA==\x1b\\\x1bc\x9b31m\x9d0;t\x9c\x90q\x9c"
    "\x00\x05\x07\x08\x0b\x0c\r\x0e\x0f\x7f\t\n\u202e\u2066\u2028\u2029\u061c\ufeff\U000e0041z"
)

# All that a view of ours may send to a terminal: colours, where to write, what to erase, and which screen.
_OURS = re.compile(r"\x1b\[(\d{0,3}(;\d{0,3})*m|\d*;?\d*H|[0-2]?[JK]|\?(25|1049|2026|7)[hl])")

ENDLESS = {"--follow"}
"""Options with which a command goes on for ever; what it prints is what it prints without."""


NO_TEXT = {"record", "relay"}
"""Commands whose output is the wire's own JSON lines, for a file or another program."""

SHORTLY = {"--seconds": "1"}
"""The values of options that say how long a command goes on."""


def hostile(kind: Any) -> Any:
    """A value of this type in which every text is hostile, whatever fields it has or will have."""
    return _filled(msgspec.inspect.type_info(kind))


def _filled(info: Any) -> Any:
    match info:
        case msgspec.inspect.StructType(cls=cls, fields=fields):
            return cls(**{field.name: _filled(field.type) for field in fields})
        case msgspec.inspect.ListType(item_type=item):
            return [_filled(item)]
        case msgspec.inspect.UnionType(types=types):
            return _filled(types[0])
        case msgspec.inspect.StrType():
            return EVIL
        case msgspec.inspect.LiteralType(values=values):
            return min(values)
        case msgspec.inspect.BoolType():
            return True
        case msgspec.inspect.FloatType():
            return 1234.5
        case msgspec.inspect.IntType():
            return 7
        case _:
            return None


def _snapshot() -> Snapshot:
    block = msgspec.structs.replace(hostile(Block), in_progress=True, running_since=1000.0)
    return Snapshot(
        seq=1, taken_at=1234.5, worker=hostile(WorkerInfo), sessions=[hostile(SessionRow)], blocks_in_progress=[block]
    )


@pytest.fixture
def worker() -> Iterator[FakeWorker]:
    """All that it sends is hostile."""
    blocks = [msgspec.structs.replace(hostile(Block), seq=seq, in_progress=False) for seq in (1, 2)]
    tasks, stacks, waits = {EVIL: hostile(Tasks)}, [hostile(ThreadStack)], hostile(Waits)
    with FakeWorker([_snapshot()], blocks=blocks, tasks=tasks, stacks=stacks, waits=waits) as running:
        yield running


def _invocations() -> Iterator[list[str]]:
    """Each command that reads a worker, plain and with each of its switches."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        options = {option for parameter in command.params for option in parameter.opts}
        if "--socket" not in options or name in NO_TEXT:
            continue
        arguments = [EVIL for parameter in command.params if parameter.param_type_name == "argument"]
        arguments += [word for option, value in SHORTLY.items() if option in options for word in (option, value)]
        yield [name, *arguments]
        for parameter in command.params:
            switch = getattr(parameter, "is_flag", False) and next(iter(parameter.opts))
            if switch and switch not in ENDLESS and switch != "--help":
                yield [name, *arguments, switch]


_CALLS = list(_invocations())


@pytest.mark.parametrize("arguments", _CALLS, ids=[" ".join(part for part in call if part != EVIL) for call in _CALLS])
def test_no_command_prints_what_a_terminal_obeys(worker: FakeWorker, arguments: list[str]) -> None:
    """On stdout as on stderr: each line is printable text, or JSON with escapes."""
    result = CliRunner().invoke(app, [*arguments, "--socket", str(worker.path)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    printed = result.stdout + result.stderr
    assert printed.strip()
    for line in printed.split("\n"):
        assert line.isprintable(), ascii(line)
    if "--json" in arguments and arguments[0] in ("top", "blocks", "tasks", "waits"):
        for line in result.stdout.splitlines():
            assert EVIL in _texts(json.loads(line))


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


def test_ps_prints_nothing_a_terminal_obeys(worker: FakeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It finds workers itself; the name of a socket's file is hostile too."""
    from openrtc_introspect_core.wire import WorkerSocket
    from openrtc_top._client import targets

    assert worker.path is not None
    found = [WorkerSocket(worker.path, EVIL, 7), WorkerSocket(worker.path.parent / f"{EVIL[:40]}.sock", EVIL, None)]
    monkeypatch.setattr(targets, "discover", lambda: found)
    for options in ([], ["--json"]):
        result = CliRunner().invoke(app, ["ps", *options])
        for line in (result.stdout + result.stderr).split("\n"):
            assert line.isprintable(), ascii(line)


def test_the_live_view_writes_nothing_but_its_own_codes(worker: FakeWorker, in_terminal: Callable[..., Any]) -> None:
    """On the main screen, on a session's page, among the blocks, the workers, and with each key in between."""
    terminal = in_terminal("top", "--socket", str(worker.path), "--refresh-rate", "10")
    terminal.wait_for(lambda screen: "q quit" in screen)
    for keys in (
        "\x1b[B",
        "\r",
        "\x1b",
        "b",
        "\r",
        "\x1b",
        "\x1b",
        "w",
        "\x1b",
        "?",
        "\x1b",
        "s",
        "c",
        "\x1b",
        "/a",
        "\x1b",
    ):
        terminal.press(keys)
        polls = itertools.count()
        terminal.wait_for(lambda _, polls=polls: next(polls) >= 3)  # whatever it shows by then
    terminal.press("q")
    terminal.wait_for_end()
    left = _OURS.sub("", terminal.written).replace("\r", "").replace("\n", "")
    assert left.isprintable(), [
        ascii(left[max(0, at - 20) : at + 20]) for at, c in enumerate(left) if not c.isprintable()
    ][:5]


# --- black boxes ---------------------------------------------------------------------------------


@pytest.fixture
def box(make_box: Callable[..., Any]) -> Any:
    """The box of a worker whose every text is hostile, with its loop held."""
    writer = make_box("voice", sessions=[])
    now = time.time()
    past = [msgspec.structs.replace(hostile(Block), seq=seq, in_progress=False) for seq in (1, 2)]
    writer.write_worker(
        msgspec.json.encode(WorkerRecord(at=now, snapshot=_snapshot(), blocks=past, threads=[1], names=[EVIL]))
    )
    state = msgspec.structs.replace(hostile(LoopState), at=now, state="held", since=now - 9.0, keeper=1)
    writer.write_loop(0, state)
    return writer


_DEAD = (["postmortem", "--keep"], ["postmortem", "--json", "--keep"], ["ps"], ["top", "--once"], ["blocks"])


@pytest.mark.parametrize("arguments", _DEAD, ids=" ".join)
def test_what_is_said_of_a_dead_worker(arguments: list[str], box: Any) -> None:
    """Its box may have anything in it, and so may the name of the file."""
    box.close()
    for path in (box.path, box.path.with_name(f"{EVIL[:20]}-7.box".replace("/", "_").replace("\x00", ""))):
        box.path.rename(path)
        box.path = path
        result = CliRunner().invoke(app, arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert (result.stdout + result.stderr).strip()
        for line in (result.stdout + result.stderr).split("\n"):
            assert line.isprintable(), ascii(line)


_ALIVE = [call for call in _CALLS if call[0] != "postmortem"]


@pytest.mark.parametrize("arguments", _ALIVE, ids=[" ".join(part for part in call if part != EVIL) for call in _ALIVE])
def test_what_is_said_of_a_frozen_worker(arguments: list[str], box: Any) -> None:
    """A socket that nobody serves any more has a box beside it that is a live worker's."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(box.path.with_suffix(".sock")))
        server.listen()
        result = CliRunner().invoke(app, [*arguments, "--socket", str(box.path.with_suffix(".sock"))])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert (result.stdout + result.stderr).strip()
    for line in (result.stdout + result.stderr).split("\n"):
        assert line.isprintable(), ascii(line)
