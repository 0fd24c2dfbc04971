"""The field tables of the wire protocol's page are made from the messages' docstrings."""

from __future__ import annotations

import re
import runpy
import sys
import typing
from pathlib import Path

import msgspec
import pytest

from openrtc_introspect_core.wire import PROTOCOL_MINOR, Request, ServerMessage, fields
from openrtc_introspect_core.wire import _messages as messages

EMPTY = "Above.\n\n<!-- fields of {} -->\n<!-- end of fields -->\n\nBelow, | with | cells |.\n"
KINDS = [
    kind
    for kind in vars(messages).values()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__module__ == messages.__name__
]
INTERNAL = {"SnapshotHead", "FrameHead", "Envelope"}
"""Ways to write and read what the page describes under another name."""


def test_a_table_stands_between_its_comments() -> None:
    """The text around the table is unchanged."""
    assert fields.fill(EMPTY.format("Location")) == (
        "Above.\n\n<!-- fields of Location -->\n\n"
        "| field | type | default | meaning |\n|---|---|---|---|\n"
        "| `file` | string | | The source file. |\n"
        "| `line` | integer | | The line number, counted from 1. |\n"
        "| `function` | string | | The function's name. |\n\n"
        "<!-- end of fields -->\n\nBelow, | with | cells |.\n"
    )


def test_filling_twice_changes_nothing() -> None:
    """A page that is up to date stays as it is."""
    once = fields.fill(EMPTY.format("SessionRow") + EMPTY.format("Block"))
    assert fields.fill(once) == once


def test_a_page_that_names_what_is_no_message_is_an_error() -> None:
    """A renamed message raises KeyError, so no old table stays behind."""
    with pytest.raises(KeyError, match="Sessoin"):
        fields.fill(EMPTY.format("Sessoin"))


def test_a_field_without_a_docstring_is_an_error() -> None:
    """A table with such a field raises ValueError and does not skip the field."""
    with pytest.raises(ValueError, match=r"SnapshotHead\.seq has no docstring"):
        fields.table("SnapshotHead")


@pytest.mark.parametrize(
    ("message", "row"),
    [
        ("Limits", "| `min_interval_s` | number | `0.1` | "),
        ("Hello", "| `capabilities` | list of strings | `[]` | "),
        ("Hello", "| `limits` | [Limits](#limits) | | "),
        ("Error", "| `id` | integer, string or null | `null` | "),
        ("Block", "| `location` | [Location](#location) or null | `null` | "),
        ("Block", "| `delayed` | list of [Delayed](#delayed), or null | `null` | "),
        ("TaskInfo", "| `awaited_by` | list of integers | `[]` | "),
        ("WatchRequest", "| `interval_s` | number | `1.0` | "),
        ("WorkerInfo", "| `draining` | boolean | `false` | "),
        ("WorkerInfo", '| `cpu` | string | `"exact"` | '),
    ],
)
def test_types_and_defaults_are_json_s(message: str, row: str) -> None:
    """Types and defaults are written in JSON's words, which a reader without Python knows."""
    assert [line for line in fields.table(message).splitlines() if line.startswith(row)]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.__name__ not in INTERNAL])
def test_each_field_says_what_it_is(kind: type[msgspec.Struct]) -> None:
    """Each docstring is whole sentences for one table cell, and explains null if the field may be null."""
    hints = typing.get_type_hints(kind)
    docs = fields.docstrings(kind.__name__)
    assert list(docs) == [field.name for field in msgspec.structs.fields(kind)]
    for name, text in docs.items():
        assert re.fullmatch(r"[A-Z`\d].*\.", text), (name, text)
        assert "|" not in text
        inherited = re.match(r"(Gauge: as|As) the worker's", text) or kind.__name__ == "LoopTime"
        if type(None) in typing.get_args(hints[name]) and not inherited:
            assert "Null" in text, (name, text)
        for minor in re.findall(r"Since 1\.(\d+)\.", text):
            assert 0 < int(minor) <= PROTOCOL_MINOR


def test_every_message_can_be_tabulated() -> None:
    """Messages of both directions have tables with one line a field."""
    for kind in (*typing.get_args(Request), *typing.get_args(ServerMessage)):
        assert fields.table(kind.__name__).count("\n") == 2 + len(msgspec.structs.fields(kind))


def test_it_writes_the_pages_that_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command `python -m openrtc_introspect_core.wire.fields PAGE` fills the page."""
    page = tmp_path / "page.md"
    page.write_text(EMPTY.format("Done"), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["fields", str(page)])
    monkeypatch.delitem(sys.modules, "openrtc_introspect_core.wire.fields")
    runpy.run_module("openrtc_introspect_core.wire.fields", run_name="__main__")
    assert page.read_text(encoding="utf-8") == fields.fill(EMPTY.format("Done"))
