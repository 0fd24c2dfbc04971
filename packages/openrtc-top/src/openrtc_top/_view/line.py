"""One line of the screen: of a known width, with nothing that moves the cursor."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style

from openrtc_top._view.encoding import printable
from openrtc_top._view.style import DIM, PLAIN

# A variation selector changes how wide a terminal draws a character, and not all agree.
_VARIATION = re.compile("[\ufe00-\ufe0f]")

_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|ms|s|min|h|d|MB|GB)(?:\W|$))")

MAX_NAME_WIDTH = 32
"""The most cells that a worker's name takes in a line of other things."""
LABEL_WIDTH = 10
"""The cells of the label before a text."""


def cells(text: str) -> int:
    """Return how many cells of a terminal the text takes."""
    return len(text) if text.isascii() else cell_len(text)


def visible(text: str) -> str:
    """Return the text as it may stand in a line: printable, and of a known width."""
    return printable(text if text.isascii() else _VARIATION.sub("", text))


def clip(text: str, width: int) -> str:
    """Return the text in at most so many cells; a cut is marked by `…`."""
    if len(text) <= width and text.isascii():
        return text
    if cells(text) <= width:
        return text
    taken = 0
    for index, character in enumerate(text):
        taken += cells(character)
        if taken > width - 1:
            return text[:index] + "…" if width > 0 else ""
    return text


def fitted(text: str, width: int, *, right: bool = False) -> str:
    """Return the text in exactly so many cells."""
    text = clip(text, width)
    gap = " " * (width - cells(text))
    return gap + text if right else text + gap


class Line:
    """Segments of one line, and their width together."""

    __slots__ = ("segments", "width")

    def __init__(self, text: str = "", style: Style = PLAIN) -> None:
        self.segments: list[Segment] = []
        self.width = 0
        if text:
            self.add(text, style)

    def add(self, text: str, style: Style = PLAIN) -> Line:
        """Append text, which must be `visible` already."""
        self.segments.append(Segment(text, style))
        self.width += cells(text)
        return self

    def join(self, other: Line) -> Line:
        """Append another line."""
        self.segments += other.segments
        self.width += other.width
        return self

    def cropped(self, width: int) -> Line:
        """Return the line in at most so many cells."""
        if self.width <= width:
            return self
        shorter = Line()
        for text, style, _ in self.segments:
            shorter.add(clip(text, width - shorter.width), style or PLAIN)
            if shorter.width >= width:
                break
        return shorter

    def filled(self, width: int, style: Style) -> Line:
        """Return the line in exactly so many cells, with this style added to all of it."""
        line = self.cropped(width)
        styled = Line()
        for text, own, _ in line.segments:
            styled.add(text, (own or PLAIN) + style)
        return styled.add(" " * (width - line.width), style)


def spread(left: Line, right: Line, width: int) -> Line:
    """Return a line with one part at each edge.

    If there is no room for both, the right one goes.
    """
    gap = width - left.width - right.width
    if gap < 2:
        return left.cropped(width)
    return Line().join(left).add(" " * gap).join(right)


def wrap(text: str, width: int) -> list[str]:
    """Return a text in lines of at most so many cells, 20 at least; a number and its unit stay together."""
    joined = _BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", text)
    lines = textwrap.wrap(joined, max(20, width), break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines] or [""]


def with_label(label: str, text: str, width: int | None, indent: int, style: Style = PLAIN) -> list[Line]:
    """Return a text that is `visible` behind its label, so many cells from the left, wrapped unless `width` is None."""
    before = indent + LABEL_WIDTH
    wrapped = [text] if width is None else wrap(text, width - before)
    first = Line(" " * indent).add(f"{label:<{LABEL_WIDTH}}", DIM).add(wrapped[0], style)
    return [first, *(Line(" " * before).add(more, style) for more in wrapped[1:])]


def fit(parts: Sequence[tuple[int, Line]], width: int, gap: int = 2) -> Line:
    """Return the parts side by side, each with a rank.

    If there is no room for all, the part of the highest rank goes first; those of rank 0 never go, but are cut.
    """
    kept = list(parts)
    while any(rank for rank, _ in kept) and sum(part.width + gap for _, part in kept) - gap > width:
        kept.remove(max(kept, key=lambda part: part[0]))
    line = Line()
    for index, (_, part) in enumerate(kept):
        line.add(" " * gap if index else "").join(part)
    return line.cropped(width)
