"""The table of blocks: a line for each, and below it what was asked for.

In a terminal it fits the width; in a pipe nothing is cut, since a path that was cut is of no use.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.style import Style

from openrtc_introspect_core.wire import MAX_DELAYED
from openrtc_top._model.blocks import Entry, at_least, longest_wait
from openrtc_top._view import quantity
from openrtc_top._view.holder import held_up, holder_name
from openrtc_top._view.line import Line, cells, clip, fitted, visible, wrap
from openrtc_top._view.place import place
from openrtc_top._view.style import BAD, BOLD, DIM, HEADING, PLAIN

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Block, Delayed

_WHEN, _FOR, _CAUSE, _COUNT, _WORST = 8, 7, 11, 7, 17
_MAX_TEXT_WIDTH = {"worker": 20, "session": 32, "agent": 20}
_MIN_SESSION_WIDTH = 14
_WANTED_WHERE = 38
# While `where` has fewer cells than this, the named column gives way; "worst" is a part of the column delayed.
_GIVE_WAY = (
    ("worst", _WANTED_WHERE),
    ("agent", _WANTED_WHERE),
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
    show_worst: bool
    """There is room for the longest wait."""
    width: int | None
    """The terminal's. None: a pipe, nothing is cut."""


def columns(
    found: Sequence[Entry],
    width: int | None,
    *,
    workers: bool,
    who: bool = True,
    names: Iterable[tuple[str, str]] = (),
) -> Columns:
    """Return the columns for these blocks.

    They are also for blocks that sessions of these ids and agents may cause later. Without `who`, all blocks are
    one session's, and there is no column for it.
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
        wide = {title: min(most, wide[title]) for title, most in _MAX_TEXT_WIDTH.items()}
    widths = {"when": _WHEN, "for": _FOR, **wide, "cause": _CAUSE, "where": 0, "delayed": _WORST}
    for title in (() if workers else ("worker",)) + (() if who else ("session", "agent")):
        del widths[title]
    if width is None:
        widths["where"] = max([_WANTED_WHERE, *(cells(_where(block, None)) for block in blocks)])
        return Columns(tuple(widths.items()), show_worst=True, width=None)

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
            widths["session"] = max(min(widths["session"], _MIN_SESSION_WIDTH), widths["session"] - lacking)
        else:
            widths.pop(title, None)
    widths["where"] = max(0, room())
    return Columns(tuple(widths.items()), worst, width)


def heading(form: Columns) -> Line:
    """Return the titles."""
    line = Line(" ")
    for index, (title, wide) in enumerate(form.widths):
        line.add("  " if index else "").add(fitted(title, wide, right=title in _RIGHT), HEADING)
    return line if form.width is None else line.cropped(form.width)


def row(entry: Entry, form: Columns, margin: str = " ") -> Line:
    """Return the line of one block."""
    line = Line(margin)
    for index, (title, wide) in enumerate(form.widths):
        text, style = _cell(title, entry, form, wide)
        if form.width is not None or cells(text) < wide:  # in a pipe, a text may have come after the columns
            text = fitted(text, wide, right=title in _RIGHT)
        line.add("  " if index else "").add(text, style)
    return line if form.width is None else line.cropped(form.width)


def stack(block: Block, width: int | None) -> list[Line]:
    """Return the calls, innermost last, and who had what they waited for; the user's own line stands out."""
    awaited = held_up(block)
    wrapped = [awaited or ""] if width is None else wrap(awaited or "", width - _INDENT)
    below = [] if awaited is None else [_indented(text, width, BOLD) for text in wrapped]
    if not block.stack:
        return [Line(" " * _INDENT).add("no stack was captured", DIM), *below]
    lines = []
    for location in block.stack:
        text = place(location, 10_000 if width is None else width - _INDENT)
        lines.append(_indented(text, width, BOLD if location == block.location else DIM))
    return lines + below


def delayed(block: Block, width: int | None) -> Line | None:
    """Return which sessions it delayed and for how long, as many as fit.

    None: the block is in progress.
    """
    if block.in_progress:
        return None
    if block.delayed is None:
        return _indented("whom it delayed is not known", width, DIM)
    waits = sorted(block.delayed, key=lambda delayed: -delayed.delayed_ms)
    texts = [f"{visible(delayed.session_id)} {wait(delayed)}" for delayed in waits]
    more = "or more" if len(texts) >= MAX_DELAYED else "more"
    text = "delayed " + (", ".join(texts) or "no session")
    shown = len(texts)
    while width is not None and shown > 1 and cells(text) > width - _INDENT:
        shown -= 1
        text = f"delayed {', '.join(texts[:shown])}, and {len(texts) - shown} {more}"
    return _indented(text, width, PLAIN)


def wait(delayed: Delayed) -> str:
    """Return how long a session waited, with ≤ if that is an upper bound."""
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
            return _delayed_cell(block, worst=form.show_worst), PLAIN


def _where(block: Block, max_width: int | None) -> str:
    """Return the place and the detail, or who held it up; the place alone if there is no room for both."""
    detail = visible(block.detail or "")
    if block.holder is not None:
        detail = f"{visible(block.waiting_on or 'it')} held by {holder_name(block.holder)}"
    if block.location is None:
        return detail or "-"
    text = place(block.location, 10_000 if max_width is None else max_width)
    both = f"{text} · {detail}" if detail else text
    return both if max_width is None or cells(both) <= max_width else text


def _delayed_cell(block: Block, *, worst: bool) -> str:
    if block.in_progress:
        return ""
    if block.delayed is None:
        return quantity.UNKNOWN
    longest = longest_wait(block)
    suffix = f", worst {wait(longest)}" if longest and worst else ""
    return f"{at_least(block.delayed)}{suffix}"
