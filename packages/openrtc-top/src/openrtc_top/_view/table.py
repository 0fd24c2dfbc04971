"""The table of sessions: which columns there is room for, and one line for each row.

Widths follow from the terminal's width and from the longest texts seen, never from the rows on
screen, so that nothing moves while scrolling. Only the rows that are shown are rendered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.style import Style

from openrtc_top._state import State, Worker
from openrtc_top._view import quantity
from openrtc_top._view.line import Line, fitted, visible
from openrtc_top._view.style import ACCENT, DIM, HEADING, PLAIN, SELECTED, SORTED, STATUS, load

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import SessionRow

BAR = 16
BAR_LEAST = 4
CPU = 5

Cell = tuple[str, Style]


@dataclass(frozen=True, slots=True)
class Column:
    """A column that shows one thing of a session."""

    title: str
    width: int
    """Its least width; the columns in _TEXTS grow with their contents where there is room."""
    cell: Callable[[SessionRow], Cell]
    right: bool = True


def _worst(row: SessionRow) -> Cell:
    return (quantity.span(row.worst_block_ms), PLAIN) if row.blocks else ("-", DIM)


def _delayed(row: SessionRow) -> Cell:
    return (quantity.UNKNOWN if row.delayed_s is None else quantity.span(row.delayed_s * 1000)), PLAIN


def _status(row: SessionRow) -> Cell:
    return (row.status if row.status == "active" else row.status.upper()), STATUS[row.status]


def _tenant(row: SessionRow) -> Cell:
    return ("-", DIM) if row.tenant is None else (visible(row.tenant), PLAIN)


COLUMNS = (
    Column("session", 10, lambda row: (visible(row.session_id), PLAIN), right=False),
    Column("agent", 8, lambda row: (visible(row.agent_name), PLAIN), right=False),
    Column("tenant", 7, _tenant, right=False),
    Column("worker", 8, lambda row: ("", PLAIN), right=False),
    Column("dur", 7, lambda row: (quantity.clock(row.duration_s), PLAIN)),
    Column("cpu%", CPU, lambda row: (quantity.number(row.cpu_pct), PLAIN)),
    Column("mem(MB)", 8, lambda row: (quantity.number(row.mem_mb), PLAIN)),
    Column("peak", 6, lambda row: (quantity.number(row.peak_mb), PLAIN)),
    Column("heap", 6, lambda row: (quantity.number(row.heap_mb), PLAIN)),
    Column("status", 8, _status, right=False),
    Column("blocks", 7, lambda row: (str(row.blocks), PLAIN if row.blocks else DIM)),
    Column("worst", 6, _worst),
    Column("delayed", 7, _delayed),
)
_TEXTS = ("session", "agent", "tenant", "worker")
_TEXT_MOST = {"session": 40, "agent": 24, "tenant": 24, "worker": 24}
NUMBER = 4
DROPPED_FIRST = ("#", "delayed", "heap", "peak", "tenant", "worst")
DROPPED_LAST = ("worker", "blocks", "agent", "dur", "mem(MB)")


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that fit, left to right, with their widths; "#" stands for the row's number."""

    columns: tuple[tuple[Column | None, int], ...]
    bar: int
    gap: int


def layout(width: int, longest: Mapping[str, int], extras: frozenset[str], workers: int) -> Layout:
    """Choose the columns: first some are left out, then the gaps and the bar shrink, then the rest."""
    optional = {"heap": "heap" in extras, "delayed": "delayed" in extras, "worker": workers > 1}
    columns = [column for column in COLUMNS if optional.get(column.title, True)]
    numbered, gap, bar = True, 2, BAR_LEAST

    def room() -> int:
        needed = sum(column.width for column in columns) + gap * (len(columns) + (bar > 0))
        return width - needed - bar - (NUMBER + gap if numbered else 0)

    for title in DROPPED_FIRST:
        if room() >= 0:
            break
        if title == "#":
            numbered = False
        columns = [column for column in columns if column.title != title]
    if room() < 0:
        gap = 1
    if room() < 0:
        bar = 0
    for title in DROPPED_LAST:
        if room() >= 0:
            break
        columns = [column for column in columns if column.title != title]

    widths = {column.title: column.width for column in columns}
    wanting = {
        title: min(longest.get(title, 0), _TEXT_MOST[title]) - widths[title]
        for title in _TEXTS
        if title in widths and longest.get(title, 0) > widths[title]
    }
    if sum(wanting.values()) > room():  # names tell more than numbers
        numbered = False
    spare = max(0, room())
    # The one that wants least is served first; what is left over is for the others.
    for title in sorted(wanting, key=wanting.__getitem__):
        grown = min(wanting[title], spare // len(wanting))
        widths[title] += grown
        spare -= grown
        del wanting[title]
    if bar:
        bar += min(BAR - BAR_LEAST, spare)
    chosen: list[tuple[Column | None, int]] = [(column, widths[column.title]) for column in columns]
    return Layout(((None, NUMBER), *chosen) if numbered else tuple(chosen), bar, gap)


def heading(state: State, form: Layout, width: int) -> Line:
    """The titles, with a mark at the one that the rows are sorted by."""
    arrow = "▼" if state.sort.descending is not state.inverted else "▲"
    line = Line()
    for index, (column, wide) in enumerate(form.columns):
        # The first gap is the margin with the selection's mark.
        line.add(" " * (form.gap if index else min(form.gap, 2)))
        if column is None:
            line.add(fitted("#", wide, right=True), HEADING)
            continue
        if column.title == "cpu%" and form.bar:
            line.add(" " * (form.bar + form.gap))
        sorted_by = column.title == state.sort.column
        title = column.title + arrow if sorted_by else column.title
        line.add(fitted(title, wide, right=column.right), SORTED if sorted_by else HEADING)
    return line.cropped(width)


def body(state: State, form: Layout, top: int, count: int | None, width: int) -> list[Line]:
    """The lines of so many rows from the top one on; None: of all rows."""
    workers = {worker.key: worker for worker in state.workers}
    rows = state.rows[top:] if count is None else state.rows[top : top + count]
    lines = []
    for index, row in enumerate(rows, start=top + 1):
        selected = row.identity == state.selected
        line = _row(index, row.session, workers[row.worker], form, selected)
        lines.append(line.filled(width, SELECTED) if selected else line.cropped(width))
    return lines


def _row(index: int, session: SessionRow, worker: Worker, form: Layout, selected: bool) -> Line:
    gone = worker.gone is not None
    line = Line()
    add = line.add
    gap = " " * form.gap
    margin = "▸" if selected else " "
    add(margin + " " * (form.gap - 1), ACCENT if selected else PLAIN)
    for place, (column, wide) in enumerate(form.columns):
        if place:
            add(gap)
        if column is None:
            add(fitted(str(index), wide, right=True), DIM)
            continue
        title = column.title
        text, style = column.cell(session)
        if title == "cpu%" and form.bar:
            share = session.cpu_pct or 0.0
            add(quantity.bar(share / 100, form.bar), DIM if gone else load(share))
            add(gap)
        elif title == "worker":
            text = visible(worker.name)
        elif title == "status" and gone:
            text, style = "GONE", STATUS["gone"]
        add(fitted(text, wide, right=column.right), DIM if gone else style)
    return line
