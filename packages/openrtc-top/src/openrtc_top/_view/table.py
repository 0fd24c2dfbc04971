"""The table of sessions: which columns there is room for, and one line for each row.

Widths follow from the terminal's width and from the longest texts seen, never from the rows on
screen, so that nothing moves while scrolling. Only the rows that are shown are rendered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rich.style import Style

from openrtc_top._columns import BY_ID, Column
from openrtc_top._state import State, Worker
from openrtc_top._view import quantity
from openrtc_top._view.line import Line, fitted, visible
from openrtc_top._view.style import ACCENT, DIM, HEADING, PLAIN, SELECTED, SORTED, STATUS, load

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import SessionRow

BAR = 16
BAR_LEAST = 4


class Place(NamedTuple):
    """Where a session stands: its row, counted from 1, its worker, and whether it is pinned."""

    row: int
    worker: Worker
    pinned: bool


Cell = tuple[str, Style]


@dataclass(frozen=True, slots=True)
class Form:
    """How a column is drawn."""

    width: int
    """Its least width; the columns in _TEXT_MOST grow with their contents where there is room."""
    cell: Callable[[SessionRow, Place], Cell]
    right: bool = True


def _plain(text: Callable[[SessionRow], str]) -> Callable[[SessionRow, Place], Cell]:
    return lambda row, place: (text(row), PLAIN)


def _count(value: int | None) -> str:
    return quantity.UNKNOWN if value is None else quantity.count(value)


def _worst(row: SessionRow, place: Place) -> Cell:
    return (quantity.span(row.worst_block_ms), PLAIN) if row.blocks else ("-", DIM)


def _delayed(row: SessionRow) -> str:
    return quantity.UNKNOWN if row.delayed_s is None else quantity.span(row.delayed_s * 1000)


def _status(row: SessionRow, place: Place) -> Cell:
    if place.worker.gone is not None:
        return "GONE", STATUS["gone"]
    return (row.status if row.status == "active" else row.status.upper()), STATUS[row.status]


def _tenant(row: SessionRow, place: Place) -> Cell:
    return ("-", DIM) if row.tenant is None else (visible(row.tenant), PLAIN)


FORMS = {
    "number": Form(4, lambda row, place: (str(place.row), DIM)),
    "session": Form(10, _plain(lambda row: visible(row.session_id)), right=False),
    "agent": Form(8, _plain(lambda row: visible(row.agent_name)), right=False),
    "tenant": Form(7, _tenant, right=False),
    "worker": Form(8, lambda row, place: (visible(place.worker.name), PLAIN), right=False),
    "loop": Form(9, lambda row, place: ("-", DIM) if row.loop is None else (visible(row.loop), PLAIN), right=False),
    "duration_s": Form(7, _plain(lambda row: quantity.clock(row.duration_s))),
    "cpu_pct": Form(5, _plain(lambda row: quantity.number(row.cpu_pct))),
    "mem_mb": Form(8, _plain(lambda row: quantity.number(row.mem_mb))),
    "peak_mb": Form(6, _plain(lambda row: quantity.number(row.peak_mb))),
    "heap_mb": Form(6, _plain(lambda row: quantity.number(row.heap_mb))),
    "status": Form(8, _status, right=False),
    "pin": Form(3, lambda row, place: ("★" if place.pinned else "", ACCENT), right=False),
    "blocks": Form(7, lambda row, place: (str(row.blocks), PLAIN if row.blocks else DIM)),
    "worst": Form(6, _worst),
    "delayed": Form(7, _plain(_delayed)),
    "worst_delay": Form(6, _plain(lambda row: quantity.span(row.worst_delay_ms))),
    "cpu_s": Form(7, _plain(lambda row: quantity.number(row.cpu_s))),
    "steps": Form(7, _plain(lambda row: _count(row.steps))),
    "tasks": Form(5, _plain(lambda row: quantity.UNKNOWN if row.tasks is None else str(row.tasks))),
    "heap_growth": Form(8, _plain(lambda row: quantity.number(row.heap_growth_mb_per_min))),
    "thread_cpu_s": Form(7, _plain(lambda row: quantity.number(row.thread_cpu_s))),
}
SESSION_LEAST = 16
"""So much of an id is shown even if other columns have to go for it."""
_TEXT_MOST = {"session": 40, "agent": 24, "tenant": 24, "worker": 24}
DROPPED_FIRST = (
    "number", "steps", "cpu_s", "worst_delay", "tasks", "thread_cpu_s", "heap_growth", "delayed", "heap_mb", "peak_mb",
    "loop", "tenant", "worst",
)  # fmt: skip
DROPPED_LAST = ("worker", "blocks", "agent", "duration_s", "mem_mb")


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that fit, left to right, with their widths."""

    columns: tuple[tuple[Column, int], ...]
    bar: int
    """The width of the bar before cpu%; 0: there is none."""
    gap: int


def wanted(state: State) -> list[str]:
    """The ids of the columns that are to be shown where there is room for them."""
    return [
        column
        for column in state.columns
        if not BY_ID[column].automatic or column in state.extras or column in state.always
    ]


def layout(width: int, columns: Sequence[str], longest: Mapping[str, int]) -> Layout:
    """Choose the columns: first some are left out, then the gaps and the bar shrink, then the rest."""
    kept = list(columns)
    least = {column: FORMS[column].width for column in kept}
    if "session" in least:  # cut off, ids can no longer be told apart
        least["session"] = max(least["session"], min(longest.get("session", 0), SESSION_LEAST))
    gap, bar = 2, BAR_LEAST if "cpu_pct" in kept else 0

    def room() -> int:
        needed = sum(least[column] for column in kept) + gap * (len(kept) + (bar > 0))
        return width - needed - bar

    def drop(these: Sequence[str]) -> None:
        for column in these:
            if room() >= 0 or len(kept) == 1:
                break
            if column in kept:
                kept.remove(column)

    drop(DROPPED_FIRST)
    if room() < 0:
        gap = 1
    if room() < 0:
        bar = 0
    drop(DROPPED_LAST)
    drop(kept[:0:-1])  # what is left and still too much goes from the right

    widths = {column: least[column] for column in kept}
    wanting = {
        column: min(longest.get(column, 0), most) - widths[column]
        for column, most in _TEXT_MOST.items()
        if column in widths and longest.get(column, 0) > widths[column]
    }
    if sum(wanting.values()) > room() and "number" in kept and len(kept) > 1:  # names tell more than numbers
        kept.remove("number")
    spare = max(0, room())
    # The one that wants least is served first; what is left over is for the others.
    for column in sorted(wanting, key=wanting.__getitem__):
        grown = min(wanting[column], spare // len(wanting))
        widths[column] += grown
        spare -= grown
        del wanting[column]
    if bar:
        bar += min(BAR - BAR_LEAST, spare)
    return Layout(tuple((BY_ID[column], widths[column]) for column in kept), bar, gap)


def heading(state: State, form: Layout, width: int) -> Line:
    """The titles, with a mark at the one that the rows are sorted by."""
    arrow = "▼" if state.sort.descending is not state.inverted else "▲"
    line = Line()
    for index, (column, wide) in enumerate(form.columns):
        # The first gap is the margin with the selection's mark.
        line.add(" " * form.gap if index else " " * min(form.gap, 2))
        if column.id == "cpu_pct" and form.bar:
            line.add(" " * (form.bar + form.gap))
        sorted_by = column.id == state.sort.name
        title = column.title + arrow if sorted_by else column.title
        line.add(fitted(title, wide, right=FORMS[column.id].right), SORTED if sorted_by else HEADING)
    return line.cropped(width)


def body(state: State, form: Layout, top: int, count: int | None, width: int) -> list[Line]:
    """The lines of so many rows from the top one on; None: of all rows."""
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
        drawn = FORMS[column.id]
        text, style = drawn.cell(session, place)
        if column.id == "cpu_pct" and form.bar:
            share = session.cpu_pct or 0.0
            add(quantity.bar(share / 100, form.bar), DIM if gone else load(share))
            add(gap)
        add(fitted(text, wide, right=drawn.right), DIM if gone else style)
    return line
