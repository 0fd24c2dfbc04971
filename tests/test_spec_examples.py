"""docs/wire-protocol.md is held to the code: examples, fields, limits and the schema."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from openrtc_introspect_core.wire import (
    CAPABILITIES,
    ERROR_CODES,
    PROTOCOL_MAJOR,
    PROTOCOL_MINOR,
    Block,
    Delayed,
    Hello,
    Host,
    LeftBehind,
    Limits,
    Location,
    LoopInfo,
    LoopTime,
    Request,
    ServerMessage,
    SessionRow,
    Snapshot,
    TaskInfo,
    ThreadStack,
    WorkerInfo,
)
from openrtc_introspect_testing._frames import GoldenFrame, golden_frames
from openrtc_introspect_testing._worker import FakeWorker

DOCS = Path(__file__).parent.parent / "docs"
TEXT = (DOCS / "wire-protocol.md").read_text(encoding="utf-8")
EXAMPLES = {
    line.encode() + b"\n": None
    for block in re.findall(r"^```json\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
}
STRUCTS: tuple[type[msgspec.Struct], ...] = (
    *typing.get_args(Request),
    *typing.get_args(ServerMessage),
    Limits,
    WorkerInfo,
    LeftBehind,
    LoopTime,
    LoopInfo,
    Host,
    SessionRow,
    Block,
    Location,
    Delayed,
    TaskInfo,
    ThreadStack,
)


def section(heading: str) -> str:
    found = re.search(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section is called {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of each row of a table."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines[1:]]


@pytest.mark.parametrize("line", EXAMPLES, ids=range(len(EXAMPLES)))
def test_each_example_is_a_golden_frame(line: bytes) -> None:
    """To the byte, so that none is out of date."""
    assert line in [frame.line for frame in golden_frames]


@pytest.mark.parametrize("frame", golden_frames, ids=lambda frame: frame.name)
def test_each_golden_frame_is_an_example(frame: GoldenFrame) -> None:
    """Whoever writes a client sees each message once."""
    assert frame.line in EXAMPLES


@pytest.mark.parametrize("kind", STRUCTS)
def test_each_field_is_documented(kind: type[msgspec.Struct]) -> None:
    """In the table of its message, in order, with the default that it has."""
    documented = [(cells[0], cells[2]) for cells in rows(section(kind.__name__)) if len(cells) == 4]
    expected = []
    for field in msgspec.structs.fields(kind):
        default: Any = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        plain = default is not msgspec.NODEFAULT and not isinstance(default, msgspec.Struct)
        expected.append((f"`{field.encode_name}`", f"`{json.dumps(default)}`" if plain else ""))
    assert documented == expected


def test_each_error_code_is_documented() -> None:
    """The list is closed."""
    codes = [cells[0].strip("`") for cells in rows(section("Error")) if len(cells) == 3]
    assert [code for code in codes if code != "code"] == list(ERROR_CODES)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (SessionRow, "status"),
        (WorkerInfo, "cpu"),
        (WorkerInfo, "memory"),
        (WorkerInfo, "lag_method"),
        (WorkerInfo, "isolation"),
        (TaskInfo, "state"),
    ],
)
def test_each_value_is_documented(kind: type[msgspec.Struct], name: str) -> None:
    """Of fields that take one of a few."""
    meaning = next(cells[3] for cells in rows(section(kind.__name__)) if cells[0] == f"`{name}`")
    values = set(re.findall(r"`\"(\w+)\"`", meaning))
    hint = typing.get_type_hints(kind)[name]
    literals = {value for value in typing.get_args(hint) if isinstance(value, str)} or {
        value for inner in typing.get_args(hint) for value in typing.get_args(inner)
    }
    assert values == literals


def test_the_version_is_the_codes() -> None:
    """In the first line of the page."""
    assert f"\nVersion {PROTOCOL_MAJOR}.{PROTOCOL_MINOR}. " in TEXT


def test_the_example_hello_is_this_versions() -> None:
    """With its capabilities and its limits."""
    hello = next(frame.message for frame in golden_frames if isinstance(frame.message, Hello))
    assert hello.protocol == f"{PROTOCOL_MAJOR}.{PROTOCOL_MINOR}"
    assert hello.capabilities == list(CAPABILITIES)
    assert hello.limits == Limits()


def test_the_committed_schema_is_the_generated_one() -> None:
    """`nox -s schema` writes it anew. In which order alternatives stand is up to the version of msgspec."""
    command = [sys.executable, "-m", "openrtc_introspect_core.wire.schema"]
    generated = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    committed = (DOCS / "wire-protocol.schema.json").read_text(encoding="utf-8")
    assert _in_order(json.loads(committed)) == _in_order(json.loads(generated))


def _in_order(schema: Any) -> Any:
    if isinstance(schema, dict):
        ordered = {key: _in_order(value) for key, value in schema.items()}
        if "anyOf" in ordered:
            ordered["anyOf"] = sorted(ordered["anyOf"], key=json.dumps)
        return ordered
    return [_in_order(each) for each in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("frame", golden_frames, ids=lambda frame: frame.name)
def test_golden_frames_are_valid(frame: GoldenFrame) -> None:
    """Under the committed schema, in their own direction."""
    schema = json.loads((DOCS / "wire-protocol.schema.json").read_text(encoding="utf-8"))
    titles = {"to worker": "client to server", "to client": "server to client"}
    (direction,) = [each for each in schema["anyOf"] if each["title"] == titles[frame.direction]]
    message = json.loads(frame.line)
    jsonschema.validate(message, {**direction, "$defs": schema["$defs"]}, jsonschema.Draft202012Validator)
    jsonschema.validate(message, schema, jsonschema.Draft202012Validator)


def test_the_example_client_works() -> None:
    """Run as it stands on the page, until the worker is gone."""
    (program,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    snapshot = next(
        frame.message for frame in golden_frames if isinstance(frame.message, Snapshot) and frame.message.sessions
    )
    with FakeWorker([snapshot]) as worker:
        client = subprocess.Popen(
            [sys.executable, "-u", "-c", program, str(worker.path)], stdout=subprocess.PIPE, text=True
        )
        assert client.stdout is not None
        first = client.stdout.readline()
    with client:
        client.stdout.read()
    assert client.returncode == 0
    assert first == "1760000100.0 {'job-c1d550': 50.25, 'job-77aa01': 1.25}\n"
