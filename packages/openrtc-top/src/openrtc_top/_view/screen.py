"""The whole screen: header, table, blocks or help, and the lines below."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.segment import Segment

from openrtc_top._state import State
from openrtc_top._view import table
from openrtc_top._view.blockscreen import block_page
from openrtc_top._view.header import TALL, header
from openrtc_top._view.help import help_page
from openrtc_top._view.line import Line, clip, fit, spread, visible
from openrtc_top._view.style import BOLD, DIM, HEADING

_Hints = tuple[tuple[str, str], ...]
_HINTS: _Hints = (
    ("q", "quit"),
    ("?", "help"),
    ("s", "sort"),
    ("f", "status"),
    ("i", "invert"),
    ("b", "blocks"),
    ("r", "refresh"),
    ("↑↓", "select"),
)
_BLOCK_HINTS: _Hints = (
    ("q", "quit"),
    ("b", "sessions"),
    ("⏎", "stack"),
    ("?", "help"),
    ("↑↓", "select"),
    ("r", "refresh"),
)


@dataclass(frozen=True, slots=True)
class Screen:
    """A rendering. rich prints it as it is; nothing in it is wider than `width`."""

    lines: list[Line]
    width: int
    top: int = 0
    """The index of the first row shown."""
    page: int = 0
    """How many rows there was room for."""

    def __rich_console__(self, console: object, options: object) -> Iterator[Segment]:
        for line in self.lines:
            yield from line.segments
            yield Segment.line()


def render(state: State, size: tuple[int, int]) -> Screen:
    """The live view in a terminal of this width and height."""
    width, height = size
    tall = height >= TALL
    above = header(state, width, tall=tall)
    below = 2 if tall else 1
    rule = [Line("─" * width, DIM)] if tall else []
    if state.help:
        text = help_page(width)
        room = max(0, height - 1 - len(rule) - 1)
        lines = [above[0], *rule, *text[:room], *[Line()] * (room - len(text)), _hints(_HINTS, width)]
        view = state.blocks if state.blocks.open else state
        return Screen(lines[:height], width, view.top, view.page)
    if state.blocks.open:
        page = block_page(state, width, max(2, height - len(above) - 2 * len(rule) - below))
        counted = _counted(page.top, min(page.page, page.total - page.top), page.total)
        foot = _footer(Line(" blocks, newest first", DIM), counted, _BLOCK_HINTS, width, tall=tall)
        lines = [*above, *rule, *page.lines, *rule, *foot]
        return Screen(lines[:height], width, page.top, page.page)
    form = table.layout(width, state.longest, state.extras, len(state.workers))
    room = max(1, height - len(above) - 2 * len(rule) - 1 - below)
    top = _window(state, room)
    rows = table.body(state, form, top, room, width) or [Line(clip(_empty(state), width), DIM)]
    filler = [Line()] * (room - len(rows))
    heading = table.heading(state, form, width)
    counted = _counted(top, min(room, len(state.rows) - top), len(state.rows))
    foot = _footer(_sorting(state), counted, _HINTS, width, tall=tall)
    lines = [*above, *rule, heading, *rows, *filler, *rule, *foot]
    return Screen(lines[:height], width, top, room)


def render_once(state: State, width: int) -> Screen:
    """Everything at once, for a print: all rows, no keys."""
    form = table.layout(width, state.longest, state.extras, len(state.workers))
    rows = table.body(state, form, 0, None, width) or [Line(clip(_empty(state), width), DIM)]
    rule = Line("─" * width, DIM)
    lines = [*header(state, width, tall=True), rule, table.heading(state, form, width), *rows, rule]
    counted = _counted(0, len(state.rows), len(state.rows))
    return Screen([*lines, spread(_sorting(state), counted.add(" "), width)], width)


def _window(state: State, room: int) -> int:
    """The first row's index: where it was, moved only as far as the selection asks for."""
    top = state.top
    if state.selected is not None:
        top = min(max(top, state.selected_at - room + 1), state.selected_at)
    return max(0, min(top, len(state.rows) - room))


def _footer(left: Line, counted: Line, hints: _Hints, width: int, *, tall: bool) -> list[Line]:
    if tall:
        return [spread(left, counted.add(" "), width), _hints(hints, width)]
    return [spread(left, counted.add("  ? help  q quit ", DIM), width)]


def _sorting(state: State) -> Line:
    order = " inverted" if state.inverted else ""
    line = Line(" sort ", DIM).add(state.sort.column + order, BOLD).add(" · status ", DIM)
    line.add(state.filter.status or "all", BOLD)
    for name, value in (("agent", state.filter.agent), ("tenant", state.filter.tenant)):
        if value is not None:
            line.add(f" · {name} ", DIM).add(clip(visible(value), 24), BOLD)
    return line


def _counted(top: int, count: int, of: int) -> Line:
    shown = f"rows {top + 1}–{top + count}" if count else "rows 0"
    return Line(f"{shown} of {of}")


def _hints(hints: _Hints, width: int) -> Line:
    parts = [(rank, Line(f" {key}", HEADING).add(f" {word}")) for rank, (key, word) in enumerate(hints)]
    return fit(parts, width, gap=1)


def _empty(state: State) -> str:
    snapshots = [worker.snapshot for worker in state.workers if worker.snapshot]
    if not snapshots:
        return "  waiting for the first snapshot"
    if any(snapshot.sessions for snapshot in snapshots):
        return "  no session passes the filter"
    return "  no sessions"
