"""The columns that are wanted, and the list in which they are chosen."""

from __future__ import annotations

from msgspec import structs

from openrtc_introspect_core.wire import SessionRow
from openrtc_top._model.chooser import Chooser, open_chooser
from openrtc_top._model.columns import (
    ALIASES,
    BY_ID,
    COLUMNS,
    DEFAULT,
    DROPPED_FIRST,
    DROPPED_LAST,
    IDS,
    SORTS,
    Form,
    known,
    known_sort,
)
from openrtc_top._view.cells import DRAW


def pressed(listed: Chooser, wanted: tuple[str, ...], *keys: str) -> tuple[Chooser, tuple[str, ...]]:
    for key in keys:
        listed, wanted = listed.handle_key(key, wanted)
    return listed, wanted


def test_each_column_is_complete() -> None:
    """It has a form, a meaning, and an id and a title of its own; each sort is of a column."""
    assert set(DRAW) == set(Form) == {column.form for column in COLUMNS}
    assert {*DROPPED_FIRST, *DROPPED_LAST} <= set(IDS)
    assert len({column.title for column in COLUMNS}) == len(COLUMNS)
    assert all(column.meaning for column in COLUMNS)
    assert set(SORTS) <= set(IDS)
    assert set(ALIASES.values()) <= set(IDS)


def test_names() -> None:
    """Ids, titles, and the wire's names lead to the id, as they do for sorts."""
    assert known("cpu_pct") == known("cpu%") == "cpu_pct"
    assert known("session_id") == "session"
    assert known("nope") is None
    renamed = {"agent_name": "agent", "session_id": "session", "worst_block_ms": "worst", "delayed_s": "delayed"}
    assert {name: known(name) for name in renamed} == {name: known_sort(name) for name in renamed} == renamed
    wire = {name for name in SessionRow.__struct_fields__ if known(name)}
    assert {"session_id", "agent_name", "tenant", "cpu_pct", "mem_mb", "heap_mb", "status", "blocks"} <= wire


def test_idle_counts_from_the_last_step_to_the_snapshot() -> None:
    """It is not known while a step runs, and never below 0."""
    idle = BY_ID["idle"].value
    assert idle is not None
    row = SessionRow(session_id="a", agent_name="b", started_at=900.0, duration_s=100.0)
    assert idle(row) is None
    assert idle(structs.replace(row, last_step_at=988.0)) == 12.0
    assert idle(structs.replace(row, last_step_at=1000.5)) == 0.0


def test_space_switches() -> None:
    """Off and on again, in its place; the last column stays."""
    listed, wanted = pressed(open_chooser(DEFAULT), DEFAULT, "down", "space")
    assert wanted == tuple(column for column in DEFAULT if column != "session")
    assert pressed(listed, wanted, "space")[1] == DEFAULT
    assert pressed(open_chooser(("session",)), ("session",), "space")[1] == ("session",)


def test_columns_move() -> None:
    """J and K carry the column along, past those that are off, and stop at the ends."""
    listed, wanted = pressed(open_chooser(DEFAULT), DEFAULT, "J")
    assert wanted[:2] == ("session", "number")
    assert listed.cursor.chosen == "number"
    assert pressed(listed, wanted, "K", "K")[1] == DEFAULT
    assert pressed(listed, wanted, "G", "space", "K", "K")[1][-1] == IDS[-1]
    assert pressed(listed, wanted, "d")[1] == DEFAULT


def test_the_list_begins_with_those_wanted() -> None:
    """As the table has them; the others follow."""
    listed = open_chooser(("status", "session"))
    assert listed.order[:2] == ("status", "session")
    assert sorted(listed.order) == sorted(BY_ID)
