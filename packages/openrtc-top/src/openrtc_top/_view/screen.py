"""The whole screen, as a pure function of the state and the terminal's size.

Nothing in this folder touches a terminal. A rendering is a `Screen`: lines of rich segments, which rich prints,
and which `text.to_text` makes a string of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.segment import Segment

from openrtc_top._model.columns import BY_ID
from openrtc_top._model.state import State
from openrtc_top._view import table
from openrtc_top._view.block_screen import block_page
from openrtc_top._view.body import Body, filled, scrolled
from openrtc_top._view.chooser import chooser_page
from openrtc_top._view.group_screen import HERE, group_page
from openrtc_top._view.header import TALL, alerts, badge, header
from openrtc_top._view.help import help_page
from openrtc_top._view.line import Line, clip, fit, spread, visible
from openrtc_top._view.session_screen import page_header, page_text
from openrtc_top._view.style import BOLD, DIM, HEADING
from openrtc_top._view.wait_screen import wait_page
from openrtc_top._view.worker_screen import worker_page

_Hints = tuple[tuple[str, str], ...]
"""Keys and what they do, the most important first: the last ones go if there is no room."""
_MOVE = ("↑↓", "select")
_HINTS: _Hints = (
    ("q", "quit"),
    ("?", "help"),
    ("s", "sort"),
    ("f", "status"),
    ("/", "filter"),
    ("⏎", "session"),
    ("b", "blocks"),
    ("w", "workers"),
    ("W", "waits"),
    ("p", "pin"),
    ("space", "pause"),
    ("c", "columns"),
    ("i", "invert"),
    ("r", "refresh"),
)
_FLEET_HINTS: _Hints = (*_HINTS[:8], ("g", "group"), *_HINTS[8:])
_GROUP_HINTS: _Hints = (
    ("q", "quit"),
    ("g", "other groups"),
    ("⏎", "its sessions"),
    ("/", "filter"),
    ("f", "status"),
    ("b", "blocks"),
    ("w", "workers"),
    ("?", "help"),
    _MOVE,
)
_BLOCK_HINTS: _Hints = (("q", "quit"), ("b", "sessions"), ("⏎", "stack"), ("w", "workers"), ("?", "help"), _MOVE)
_WAIT_HINTS: _Hints = (("q", "quit"), ("W", "sessions"), ("⏎", "who"), ("b", "blocks"), ("?", "help"), _MOVE)
_PEOPLE_HINTS: _Hints = (("q", "quit"), ("Esc", "back"), ("⏎", "session"), ("?", "help"), _MOVE)
_WORKER_HINTS: _Hints = (
    ("q", "quit"),
    ("w", "sessions"),
    ("⏎", "only its sessions"),
    ("x", "take off one that is gone"),
    ("b", "blocks"),
    ("?", "help"),
    _MOVE,
)
_PAGE_HINTS: _Hints = (
    ("q", "back"),
    ("↑↓", "scroll"),
    ("p", "pin"),
    ("space", "pause"),
    ("?", "help"),
    ("b", "blocks"),
)
_CHOOSER_HINTS: _Hints = (("c", "back"), ("space", "on, off"), ("J K", "move it"), ("d", "defaults"), _MOVE)
_HELP_HINTS: _Hints = (("?", "back"), ("↑↓", "scroll"), ("q", "quit"))
_EDIT_HINTS: _Hints = (("⏎", "keep"), ("Esc", "clear"), _MOVE)
_MARKS = (("~", "estimate"), ("≤", "at most"), ("n/a", "not known"))
"""The marks that the footer explains, if the screen shows them and there is room. The help has more words."""


@dataclass(frozen=True, slots=True)
class Screen:
    """A rendering. rich prints it as it is; nothing in it is wider than `width`."""

    lines: list[Line]
    width: int
    top: int = 0
    """The index of the first row shown."""
    page_rows: int = 0
    """The number of rows that there was room for."""

    def __rich_console__(self, console: object, options: object) -> Iterator[Segment]:
        for line in self.lines:
            yield from line.segments
            yield Segment.line()


def render(state: State, size: tuple[int, int], *, unicode: bool = True) -> Screen:
    """Return the live view in a terminal of this width and height, which shows Unicode or not."""
    width, height = size
    tall = height >= TALL
    above = _above(state, width, tall=tall)
    rule = [Line("─" * width, DIM)] if tall else []
    room = max(1, height - len(above) - 2 * len(rule) - (2 if tall else 1))
    body = _body(state, width, room)
    legend = _legend([*above, *body.lines]) if tall and state.help is None else Line()
    lines = [*above, *rule, *body.lines, *rule, *_footer(state, body, width, legend, tall=tall, unicode=unicode)]
    return Screen(lines[:height], width, body.top, body.page_rows)


def render_once(state: State, width: int) -> Screen:
    """Return everything at once, for a print: all rows, no keys."""
    form = table.layout(width, table.wanted(state), state.longest, state.sort.name)
    rows = table.body(state, form, 0, None, width) or [Line(clip(_empty(state), width), DIM)]
    rule = Line("─" * width, DIM)
    lines = [*header(state, width, tall=True), rule, table.heading(state, form, width), *rows, rule]
    counted = _counted(Body([], 0, len(state.rows), len(state.rows)))
    return Screen([*lines, spread(_sorting(state), counted, width)], width)


def _above(state: State, width: int, *, tall: bool) -> list[Line]:
    if state.help is not None or state.chooser is not None:
        return header(state, width, tall=tall)[:1]
    if state.page is not None:
        mark = badge(state)
        title, *rest = page_header(state, state.page, max(0, width - mark.width))
        return [mark.join(title).cropped(width), *rest, *alerts(state, width, tall=False)]
    if state.view == "workers":  # the list shows what the header would
        return [*header(state, width, tall=tall)[:1], *alerts(state, width, tall=tall)]
    return header(state, width, tall=tall)


def _body(state: State, width: int, room: int) -> Body:
    if state.help is not None:
        return scrolled(help_page(width), state.help, room)
    if state.chooser is not None:
        return chooser_page(state.chooser, state.columns, width, room)
    if state.page is not None:
        return scrolled(page_text(state, state.page, width), state.page.scroll, room)
    if state.view == "blocks":
        return block_page(state, width, room)
    if state.view == "waits":
        return wait_page(state, width, room)
    if state.view == "workers":
        return worker_page(state, width, room)
    return group_page(state, width, room) if state.lists_groups else _sessions(state, width, room)


def _sessions(state: State, width: int, room: int) -> Body:
    page_rows = max(1, room - 1)
    form = table.layout(width, table.wanted(state), state.longest, state.sort.name)
    index = None if state.selected is None else state.selected_at
    top = state.table.window(index, len(state.rows), page_rows)
    rows = table.body(state, form, top, page_rows, width) or [Line(clip(_empty(state), width), DIM)]
    return Body([table.heading(state, form, width), *filled(rows, page_rows)], top, page_rows, len(state.rows))


def _footer(state: State, body: Body, width: int, legend: Line, *, tall: bool, unicode: bool) -> list[Line]:
    left, hints = _about(state)
    if not unicode:
        hints = tuple([("Enter" if key == "⏎" else key, word) for key, word in hints])
    counted = _counted(body, "rows" if _lists(state) else "lines")
    if tall:
        return [spread(left, counted, width), spread(_hints(hints, width), legend, width)]
    if state.editing:
        return [spread(left, counted, width)]
    if left.width + counted.width + 20 <= width and _lists(state):
        return [spread(left, counted.add(" ? help  q quit ", DIM), width)]
    if _lists(state):
        return [spread(left, counted, width)]
    return [spread(_hints(hints, max(0, width - counted.width - 2)), counted, width)]


def _legend(lines: list[Line]) -> Line:
    """Explain the marks that the lines show; empty if they show none."""
    shown = "\n".join([segment.text for line in lines for segment in line.segments])
    legend = Line()
    for mark, meaning in _MARKS:
        if mark in shown:
            legend.add("  " if legend.width else "").add(mark, HEADING).add(f" {meaning}", DIM)
    return legend.add(" ") if legend.width else legend


def _lists(state: State) -> bool:
    """Return whether the screen shows a list of rows, with no page over it."""
    return state.help is None and state.chooser is None and state.page is None


def _about(state: State) -> tuple[Line, _Hints]:
    """Return what the screen shows, and the keys there are for it."""
    if state.help is not None:
        return Line(" help", DIM), _HELP_HINTS
    if state.chooser is not None:
        return Line(" columns", DIM), _CHOOSER_HINTS
    if state.page is not None:
        return Line(" session", DIM), _PAGE_HINTS
    if state.view == "blocks":
        return _worker(state, Line(" blocks, newest first", DIM)), _BLOCK_HINTS
    if state.view == "waits":
        opened = state.wait_list.group(state.waits()) is not None
        about = " who holds it, who waits" if opened else " what sessions wait for, most first"
        return _worker(state, Line(about, DIM)), _PEOPLE_HINTS if opened else _WAIT_HINTS
    if state.view == "workers":
        return Line(" workers", DIM), _WORKER_HINTS
    if state.editing:
        return Line(" filter ", DIM).add(visible(state.filter.text), BOLD).add("█"), _EDIT_HINTS
    if state.lists_groups:
        return _grouping(state), _GROUP_HINTS
    return _sorting(state), _HINTS if len(state.workers) < 2 else _FLEET_HINTS


def _sorting(state: State) -> Line:
    order = " inverted" if state.inverted else ""
    line = Line(" sort ", DIM).add(BY_ID[state.sort.name].title + order, BOLD).add(" · status ", DIM)
    line.add(state.filter.status or "all", BOLD)
    return _chosen(state, line)


def _grouping(state: State) -> Line:
    line = Line(" by ", DIM).add(f"{state.grouping}", BOLD).add(", the worst first · status ", DIM)
    return _chosen(state, line.add(state.filter.status or "all", BOLD))


def _chosen(state: State, line: Line) -> Line:
    """Add what restricts the sessions that are shown."""
    chosen = state.filter
    if state.grouping is not None and state.group is not None:
        _named(line, state.grouping, state.group or HERE)
    for name, value in (("agent", chosen.agent), ("tenant", chosen.tenant), ("waits", chosen.waits)):
        if value is not None:
            _named(line, name, value)
    _worker(state, line)
    return _named(line, "filter", f'"{state.filter.text}"') if state.filter.text else line


def _worker(state: State, line: Line) -> Line:
    """Add the one worker whose sessions are shown, if there is such a choice."""
    only = state.worker(state.only) if state.only is not None else None
    return _named(line, "worker", only.name) if only else line


def _named(line: Line, name: str, value: str) -> Line:
    return line.add(f" · {name} ", DIM).add(clip(visible(value), 24), BOLD)


def _counted(body: Body, noun: str = "rows") -> Line:
    count = min(body.page_rows, body.total - body.top)
    shown = f"{noun} {body.top + 1}–{body.top + count}" if count > 0 else f"{noun} 0"
    return Line(f"{shown} of {body.total} ")


def _hints(hints: _Hints, width: int) -> Line:
    parts = [(rank, Line(f" {key}", HEADING).add(f" {word}")) for rank, (key, word) in enumerate(hints)]
    return fit(parts, width, gap=1)


def _empty(state: State) -> str:
    snapshots = [worker.snapshot for worker in state.scope if worker.snapshot]
    if not snapshots:
        return "  waiting for the first snapshot"
    if any(snapshot.sessions for snapshot in snapshots):
        return "  no session passes the filter"
    return "  no sessions"
