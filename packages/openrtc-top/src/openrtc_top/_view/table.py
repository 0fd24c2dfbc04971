"""The table of sessions: the columns that fit, and one line for each row.

Widths follow from the terminal's width and from the longest texts seen, never from the rows on
screen, so that nothing moves while scrolling. Only the rows that are shown are rendered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openrtc_top._model.columns import BY_ID, DROPPED_FIRST, DROPPED_LAST, GROWING, Column
from openrtc_top._model.state import State
from openrtc_top._view import quantity
from openrtc_top._view.cells import DRAW, LEFT, Place
from openrtc_top._view.line import Line, fitted
from openrtc_top._view.style import ACCENT, DIM, HEADING, PLAIN, SELECTED, SORTED, load

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import SessionRow

BAR_COLUMN = "cpu_pct"
"""A bar stands before this column, if there is room."""
MAX_BAR = 16
MIN_BAR = 4
MIN_SESSION_WIDTH = 16
"""The cells of an id that are shown even if other columns have to go."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that fit, left to right, with their widths."""

    columns: tuple[tuple[Column, int], ...]
    bar: int
    """The width of the bar before cpu%. 0: there is none."""
    gap: int


def wanted(state: State) -> list[str]:
    """Return the ids of the columns that are to be shown if there is room for them."""
    return [
        column
        for column in state.columns
        if not BY_ID[column].automatic or column in state.extras or column in state.always
    ]


def layout(width: int, columns: Sequence[str], longest: Mapping[str, int], sorted_by: str) -> Layout:
    """Choose the columns that fit.

    First some of them go, but not the one that the rows are sorted by, then the gaps and the bar shrink, then more go.
    """
    kept = list(columns)
    least = {column: BY_ID[column].width for column in kept}
    if "session" in least:  # cut off, ids can no longer be distinguished
        least["session"] = max(least["session"], min(longest.get("session", 0), MIN_SESSION_WIDTH))
    gap, bar = 2, MIN_BAR if BAR_COLUMN in kept else 0

    def room() -> int:
        needed = sum(least[column] for column in kept) + gap * (len(kept) + (bar > 0))
        return width - needed - bar

    def drop(these: Sequence[str]) -> None:
        for column in these:
            if room() >= 0 or len(kept) == 1:
                break
            if column in kept:
                kept.remove(column)

    drop([column for column in DROPPED_FIRST if column != sorted_by])
    if room() < 0:
        gap = 1
    if room() < 0:
        bar = 0
    drop([sorted_by, *DROPPED_LAST] if sorted_by in DROPPED_FIRST else DROPPED_LAST)
    drop(kept[:0:-1])  # the others go from the right

    widths = {column: least[column] for column in kept}
    wanting = {
        column.id: min(longest.get(column.id, 0), column.max_width) - widths[column.id]
        for column in GROWING
        if column.id in widths and longest.get(column.id, 0) > widths[column.id]
    }
    if sum(wanting.values()) > room() and "number" in kept and len(kept) > 1:  # names say more than numbers
        kept.remove("number")
    spare = max(0, room())
    # The one that wants least is served first; what is left over is for the others.
    for column in sorted(wanting, key=wanting.__getitem__):
        grown = min(wanting[column], spare // len(wanting))
        widths[column] += grown
        spare -= grown
        del wanting[column]
    if bar:
        bar += min(MAX_BAR - MIN_BAR, spare)
    return Layout(tuple((BY_ID[column], widths[column]) for column in kept), bar, gap)


def heading(state: State, form: Layout, width: int) -> Line:
    """Return the titles, with a mark at the one that the rows are sorted by."""
    arrow = "▼" if state.sort.descending is not state.inverted else "▲"
    line = Line()
    for index, (column, wide) in enumerate(form.columns):
        # The first gap is the margin with the selection's mark.
        line.add(" " * form.gap if index else " " * min(form.gap, 2))
        if column.id == BAR_COLUMN and form.bar:
            line.add(" " * (form.bar + form.gap))
        sorted_by = column.id == state.sort.name
        title = column.title + arrow if sorted_by else column.title
        line.add(fitted(title, wide, right=column.form not in LEFT), SORTED if sorted_by else HEADING)
    return line.cropped(width)


def body(state: State, form: Layout, top: int, count: int | None, width: int) -> list[Line]:
    """Return the lines of so many rows from the top one on. None: of all rows."""
    workers = {worker.key: worker for worker in state.workers}
    rows = state.rows[top:] if count is None else state.rows[top : top + count]
    lines = []
    for index, row in enumerate(rows, start=top + 1):
        selected = row.identity == state.selected
        line = _row(row.session, Place(index, workers[row.worker], index <= state.pinned), form, selected)
        lines.append(line.filled(width, SELECTED) if selected else line.cropped(width))
    return lines


def _row(session: SessionRow, place: Place, form: Layout, selected: bool) -> Line:
    gone = place.worker.gone is not None
    line = Line()
    add = line.add
    gap = " " * form.gap
    margin = "▸" if selected else " "
    add(margin + " " * (form.gap - 1), ACCENT if selected else PLAIN)
    for at, (column, wide) in enumerate(form.columns):
        if at:
            add(gap)
        value = None if column.value is None else column.value(session)
        text, style = DRAW[column.form](value, place)
        if column.id == BAR_COLUMN and form.bar:
            share = session.cpu_pct or 0.0
            add(quantity.bar(share / 100, form.bar), DIM if gone else load(share))
            add(gap)
        add(fitted(text, wide, right=column.form not in LEFT), DIM if gone else style)
    return line
