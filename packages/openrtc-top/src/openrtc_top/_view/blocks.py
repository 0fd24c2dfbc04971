"""The table of blocks: a line for each, and below it, where asked for, its stack and whom it delayed.

In a terminal it fits the width; in a pipe nothing is cut, since a path that was cut is of no use.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.style import Style

from openrtc_introspect_core.wire import MAX_DELAYED
from openrtc_top._blocks import Entry, at_least, longest_wait
from openrtc_top._view import quantity
from openrtc_top._view.line import Line, cells, clip, fitted, visible
from openrtc_top._view.place import place
from openrtc_top._view.style import BAD, BOLD, DIM, HEADING, PLAIN

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Block, Delayed

_WHEN, _FOR, _CAUSE, _COUNT, _WORST = 8, 7, 11, 7, 17
_TEXT_MOST = {"worker": 20, "session": 32, "agent": 20}
_SESSION_LEAST = 14
_WHERE_WANTED = 38
# While `where` has fewer cells than this, the one named gives way; "worst" is a part of delayed.
_GIVE_WAY = (
    ("worst", _WHERE_WANTED),
    ("agent", _WHERE_WANTED),
    ("long session", 30),
    ("worker", 30),
    ("delayed", 24),
    ("cause", 20),
    ("session", 12),
    ("when", 12),
)
_RIGHT = frozenset({"for"})
_INDENT = 11


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns there are, left to right, with their widths."""

    widths: tuple[tuple[str, int], ...]
    worst: bool
    """Whether there is room to tell the longest wait."""
    width: int | None
    """Of the terminal. None: a pipe, nothing is cut."""


def columns(
    found: Sequence[Entry],
    width: int | None,
    *,
    workers: bool,
    who: bool = True,
    names: Iterable[tuple[str, str]] = (),
) -> Columns:
    """The columns for these blocks, and for those that sessions of these ids and agents may yet cause.

    Without `who`, all are one session's.
    """
    ids, agents = zip(*names, strict=True) if (names := list(names)) else ((), ())
    blocks = [entry.block for entry in found]
    texts = {
        "worker": {entry.name for entry in found},
        "session": {block.session_id or "" for block in blocks}.union(ids),
        "agent": {block.agent_name or "" for block in blocks}.union(agents),
    }
    wide = {title: max(map(cells, map(visible, {title, *found})), default=0) for title, found in texts.items()}
    if width is not None:
        wide = {title: min(most, wide[title]) for title, most in _TEXT_MOST.items()}
    widths = {"when": _WHEN, "for": _FOR, **wide, "cause": _CAUSE, "where": 0, "delayed": _WORST}
    for title in (() if workers else ("worker",)) + (() if who else ("session", "agent")):
        del widths[title]
    if width is None:
        widths["where"] = max([_WHERE_WANTED, *(cells(_where(block, None)) for block in blocks)])
        return Columns(tuple(widths.items()), worst=True, width=None)

    def room() -> int:
        return width - 1 - sum(widths.values()) - 2 * (len(widths) - 1)

    worst = True
    for title, least in _GIVE_WAY:
        lacking = least - room()
        if lacking <= 0:
            continue
        if title == "worst":
            worst, widths["delayed"] = False, _COUNT
        elif title == "long session" and "session" in widths:
            widths["session"] = max(min(widths["session"], _SESSION_LEAST), widths["session"] - lacking)
        else:
            widths.pop(title, None)
    widths["where"] = max(0, room())
    return Columns(tuple(widths.items()), worst, width)


def heading(form: Columns) -> Line:
    """The titles."""
    line = Line(" ")
    for index, (title, wide) in enumerate(form.widths):
        line.add("  " if index else "").add(fitted(title, wide, right=title in _RIGHT), HEADING)
    return line if form.width is None else line.cropped(form.width)


def row(entry: Entry, form: Columns, margin: str = " ") -> Line:
    """One block."""
    line = Line(margin)
    for index, (title, wide) in enumerate(form.widths):
        text, style = _cell(title, entry, form, wide)
        if form.width is not None or cells(text) < wide:  # in a pipe, a text may have come after the columns
            text = fitted(text, wide, right=title in _RIGHT)
        line.add("  " if index else "").add(text, style)
    return line if form.width is None else line.cropped(form.width)


def stack(block: Block, width: int | None) -> list[Line]:
    """The calls, innermost last; the user's own that is to blame stands out."""
    if not block.stack:
        return [Line(" " * _INDENT).add("no stack was captured", DIM)]
    lines = []
    for location in block.stack:
        text = place(location, 10_000 if width is None else width - _INDENT)
        lines.append(_indented(text, width, BOLD if location == block.location else DIM))
    return lines


def delayed(block: Block, width: int | None) -> Line | None:
    """Whom it delayed and for how long, as many as there is room for. None: there is nothing to tell."""
    if block.in_progress:
        return None
    if block.delayed is None:
        return _indented("whom it delayed is not known", width, DIM)
    waits = sorted(block.delayed, key=lambda delayed: -delayed.delayed_ms)
    told = [f"{visible(delayed.session_id)} {wait(delayed)}" for delayed in waits]
    more = "or more" if len(told) >= MAX_DELAYED else "more"
    text = "delayed " + (", ".join(told) or "no session")
    shown = len(told)
    while width is not None and shown > 1 and cells(text) > width - _INDENT:
        shown -= 1
        text = f"delayed {', '.join(told[:shown])}, and {len(told) - shown} {more}"
    return _indented(text, width, PLAIN)


def wait(delayed: Delayed) -> str:
    """How long a session waited; ≤ where it is a bound."""
    return ("" if delayed.exact else "≤ ") + quantity.span(delayed.delayed_ms)


def _indented(text: str, width: int | None, style: Style) -> Line:
    return Line(" " * _INDENT).add(text if width is None else clip(text, max(0, width - _INDENT)), style)


def _cell(title: str, entry: Entry, form: Columns, wide: int) -> tuple[str, Style]:
    block = entry.block
    match title:
        case "when":
            return time.strftime("%H:%M:%S", time.localtime(block.started_at)), DIM
        case "for":
            going_on = block.in_progress
            return quantity.span(entry.lasted_ms) + ("…" if going_on else " "), BAD if going_on else BOLD
        case "worker":
            return visible(entry.name), PLAIN
        case "session":
            return ("-", DIM) if block.session_id is None else (visible(block.session_id), PLAIN)
        case "agent":
            return ("-", DIM) if block.agent_name is None else (visible(block.agent_name), PLAIN)
        case "cause":
            unknown = "-" if block.in_progress else quantity.UNKNOWN
            return (unknown, DIM) if block.cause is None else (visible(block.cause), PLAIN)
        case "where":
            return _where(block, None if form.width is None else wide), PLAIN
        case _:
            return _delayed_cell(block, worst=form.worst), PLAIN


def _where(block: Block, most: int | None) -> str:
    """The place, and what more there is to say; of the two the place, where there is no room for both."""
    told = visible(block.detail or "")
    if block.location is None:
        return told or "-"
    text = place(block.location, 10_000 if most is None else most)
    both = f"{text} · {told}" if told else text
    return both if most is None or cells(both) <= most else text


def _delayed_cell(block: Block, *, worst: bool) -> str:
    if block.in_progress:
        return ""
    if block.delayed is None:
        return quantity.UNKNOWN
    longest = longest_wait(block)
    told = f", worst {wait(longest)}" if longest and worst else ""
    return f"{at_least(block.delayed)}{told}"
