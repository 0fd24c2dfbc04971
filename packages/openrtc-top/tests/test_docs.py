"""docs/top.md and the help name all there is: each column, each key, each option."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from openrtc_top._cli.app import app
from openrtc_top._model import keymap
from openrtc_top._model.columns import COLUMNS, SORTS
from openrtc_top._model.cursor import MOVES
from openrtc_top._model.rows import STATUSES
from openrtc_top._view.help import KEYS, help_page

PAGE = Path(__file__).parents[3] / "docs" / "top.md"
NAMES = {
    "up": "↑",
    "down": "↓",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "ctrl-f": "Ctrl-F",
    "ctrl-b": "Ctrl-B",
    "ctrl-c": "Ctrl-C",
    "escape": "Esc",
}
ALL_KEYS = {
    *MOVES,
    *keymap.ALIASES,
    *keymap._TABLE,
    *keymap._EVERYWHERE,
    *keymap.BACK,
    "ctrl-c",
    "t",
    "x",
    "J",
    "K",
    "d",
}

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not here")


def section(title: str) -> str:
    """The text below this heading."""
    below = PAGE.read_text(encoding="utf-8").split(f"## {title}\n", 1)[1]
    return re.split(r"^## ", below, maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.id)
def test_each_column(column: object) -> None:
    """Its id and its title are in the table of columns."""
    assert f"| `{column.id}` | {column.title} | " in section("Columns")


@pytest.mark.parametrize("key", sorted(ALL_KEYS))
def test_each_key(key: str) -> None:
    """It is in the table of keys, and in the help."""
    name = NAMES.get(key, key if len(key) == 1 else key.title())
    assert f"`{name}`" in section("Keys")
    listed = " ".join(f"{keys} {meaning}" for keys, meaning in KEYS)
    assert re.search(rf"(^|[ ,;]){re.escape(name)}([ ,;.:]|$)", listed)


def test_each_option() -> None:
    """Whatever `openrtc top` accepts has a row, and so has each sort and each status."""
    command = typer.main.get_command(app).commands["top"]  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    options_listed = section("Options")
    assert {option for option in options if f"`{option}" not in options_listed} - {"--help"} == set()
    assert all(f"`{sort}`" in options_listed for sort in SORTS)
    assert all(status.upper() in section("Columns") or status == "active" for status in STATUSES)


def test_the_help_has_every_column() -> None:
    """Its title and its meaning, whole, at any width."""
    for width in (60, 120):
        lines = ["".join(text for text, _, _ in line.segments) for line in help_page(width)]
        whole = " ".join(" ".join(lines).split())
        assert all(f"{column.title} {column.meaning}" in whole for column in COLUMNS)
        assert max(map(len, lines)) <= width
