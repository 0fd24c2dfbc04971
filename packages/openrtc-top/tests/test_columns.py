"""Which columns are wanted, and the list in which that is chosen."""

from __future__ import annotations

from openrtc_introspect_core.wire import SessionRow
from openrtc_top._columns import ALIASES, BY_ID, COLUMNS, DEFAULT, IDS, Chooser, chooser, known
from openrtc_top._rows import SORTS, WIRE_NAMES
from openrtc_top._view.table import DROPPED_FIRST, DROPPED_LAST, FORMS


def pressed(listed: Chooser, wanted: tuple[str, ...], *keys: str) -> tuple[Chooser, tuple[str, ...]]:
    for key in keys:
        listed, wanted = listed.press(key, wanted)
    return listed, wanted


def test_each_column_is_complete() -> None:
    """It has a form, a meaning, and an id and a title of its own; each sort is of a column."""
    assert set(FORMS) == set(IDS)
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
    assert {name: known(name) for name in WIRE_NAMES} == WIRE_NAMES
    wire = {name for name in SessionRow.__struct_fields__ if known(name)}
    assert {"session_id", "agent_name", "tenant", "cpu_pct", "mem_mb", "heap_mb", "status", "blocks"} <= wire


def test_space_switches() -> None:
    """Off and on again, in its place; the last column stays."""
    listed, wanted = pressed(chooser(DEFAULT), DEFAULT, "down", "space")
    assert wanted == tuple(column for column in DEFAULT if column != "session")
    assert pressed(listed, wanted, "space")[1] == DEFAULT
    assert pressed(chooser(("session",)), ("session",), "space")[1] == ("session",)


def test_columns_move() -> None:
    """J and K carry the column along, past those that are off, and stop at the ends."""
    listed, wanted = pressed(chooser(DEFAULT), DEFAULT, "J")
    assert wanted[:2] == ("session", "number")
    assert listed.cursor.chosen == "number"
    assert pressed(listed, wanted, "K", "K")[1] == DEFAULT
    assert pressed(listed, wanted, "G", "space", "K", "K")[1][-1] == IDS[-1]
    assert pressed(listed, wanted, "d")[1] == DEFAULT


def test_the_list_begins_with_those_wanted() -> None:
    """As the table has them; the others follow."""
    listed = chooser(("status", "session"))
    assert listed.order[:2] == ("status", "session")
    assert sorted(listed.order) == sorted(BY_ID)
