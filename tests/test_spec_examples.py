"""docs/wire-protocol.md is held to the code: examples, fields, limits and the schema."""

from __future__ import annotations

import functools
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
    CallbackGroup,
    Cgroup,
    Counts,
    Creation,
    Delayed,
    ExecutorInfo,
    Hello,
    Holder,
    Host,
    LeftBehind,
    Limits,
    Location,
    LoopActivity,
    LoopInfo,
    LoopTime,
    Outlived,
    Request,
    ServerMessage,
    SessionRow,
    Snapshot,
    TaskInfo,
    ThreadCallGroup,
    ThreadStack,
    WaitedFor,
    Waiter,
    WaitGroup,
    WallTime,
    WorkerInfo,
    fields,
)
from openrtc_introspect_testing._workers.fake_worker import FakeWorker
from openrtc_introspect_testing._workers.golden_frames import GoldenFrame, golden_frames

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
    Cgroup,
    SessionRow,
    Block,
    Location,
    Delayed,
    Counts,
    TaskInfo,
    ThreadStack,
    Outlived,
    Holder,
    WallTime,
    WaitedFor,
    WaitGroup,
    Waiter,
    ExecutorInfo,
    ThreadCallGroup,
    LoopActivity,
    CallbackGroup,
    Creation,
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


def test_the_tables_of_fields_are_the_docstrings() -> None:
    """`nox -s schema` writes them anew. Each message has its table in its own section."""
    assert fields.fill(TEXT) == TEXT
    tabulated = re.findall(r"^<!-- fields of (\w+) -->$", TEXT, re.MULTILINE)
    assert sorted(tabulated) == sorted(kind.__name__ for kind in STRUCTS)
    for name in tabulated:
        assert f"<!-- fields of {name} -->" in section(name)


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
        (WorkerInfo, "meter"),
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


@functools.cache
def validators() -> dict[str, jsonschema.Draft202012Validator]:
    """Return a validator of the committed schema for each direction of a frame, and one for both: "any"."""
    schema = json.loads((DOCS / "wire-protocol.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    directions = {each["title"]: {**each, "$defs": schema["$defs"]} for each in schema["anyOf"]}
    titles = {"to worker": "client to server", "to client": "server to client"}
    schemas = {"any": schema, **{direction: directions[title] for direction, title in titles.items()}}
    return {name: jsonschema.Draft202012Validator(each) for name, each in schemas.items()}


@pytest.mark.parametrize("frame", golden_frames, ids=lambda frame: frame.name)
def test_golden_frames_are_valid(frame: GoldenFrame) -> None:
    """Under the committed schema, in their own direction."""
    message = json.loads(frame.line)
    validators()[frame.direction].validate(message)
    validators()["any"].validate(message)


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
