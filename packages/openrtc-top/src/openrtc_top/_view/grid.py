"""A table whose columns are as wide as their contents.

If they do not fit, the least important go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.style import Style

from openrtc_top._view.line import Line, cells, fitted
from openrtc_top._view.style import HEADING, PLAIN

GAP = 2


@dataclass(frozen=True, slots=True)
class Title:
    """One column."""

    text: str
    rank: int
    """The column of the highest rank goes first; those of rank 0 never do."""
    right: bool = False
    max_width: int = 40


def grid(titles: Sequence[Title], rows: Sequence[Sequence[tuple[str, Style]]], width: int) -> tuple[Line, list[Line]]:
    """Return the heading and a line for each row.

    The first cell of each line is free for a mark.
    """
    widths = [
        min(title.max_width, max([cells(title.text), *(cells(row[index][0]) for row in rows)]))
        for index, title in enumerate(titles)
    ]
    kept = list(range(len(titles)))
    while 1 + sum(widths[index] + GAP for index in kept) - GAP > width and any(titles[index].rank for index in kept):
        kept.remove(max(kept, key=lambda index: titles[index].rank))

    def line(texts: Sequence[tuple[str, Style]], margin: str) -> Line:
        drawn = Line(margin)
        for place, index in enumerate(kept):
            text, style = texts[index]
            drawn.add(" " * GAP if place else "").add(fitted(text, widths[index], right=titles[index].right), style)
        return drawn.cropped(width)

    return line([(title.text, HEADING) for title in titles], " "), [line(row, " ") for row in rows]


def plain(text: str) -> tuple[str, Style]:
    """Return a cell without a colour."""
    return text, PLAIN
