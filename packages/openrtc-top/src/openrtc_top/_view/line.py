"""One line of the screen: text of a known width in cells, and nothing that could move the cursor."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style

from openrtc_top._encoding import printable
from openrtc_top._view.style import PLAIN

# A variation selector changes how wide a terminal draws a character, and not all agree.
_VARIATION = re.compile("[\ufe00-\ufe0f]")

NAME_MOST = 32
"""The most cells that a worker's name gets in a line of other things."""


def cells(text: str) -> int:
    """How many cells of a terminal the text takes."""
    return len(text) if text.isascii() else cell_len(text)


def visible(text: str) -> str:
    """The text as it may stand in a line: printable, and of a width that is known."""
    return printable(text if text.isascii() else _VARIATION.sub("", text))


def clip(text: str, width: int) -> str:
    """The text in at most so many cells; what is cut off is marked by `…`."""
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
    """The text in exactly so many cells."""
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
        """The line in at most so many cells."""
        if self.width <= width:
            return self
        shorter = Line()
        for text, style, _ in self.segments:
            shorter.add(clip(text, width - shorter.width), style or PLAIN)
            if shorter.width >= width:
                break
        return shorter

    def filled(self, width: int, style: Style) -> Line:
        """The line in exactly so many cells, all of it in this style too."""
        line = self.cropped(width)
        styled = Line()
        for text, own, _ in line.segments:
            styled.add(text, (own or PLAIN) + style)
        return styled.add(" " * (width - line.width), style)


def spread(left: Line, right: Line, width: int) -> Line:
    """One at the left edge and one at the right, which is left out where there is no room for both."""
    gap = width - left.width - right.width
    if gap < 2:
        return left.cropped(width)
    return Line().join(left).add(" " * gap).join(right)


def fit(parts: Sequence[tuple[int, Line]], width: int, gap: int = 2) -> Line:
    """The parts side by side. Where there is no room for all, those of the highest number go first; those
    of number 0 never go, but are cut."""
    kept = list(parts)
    while any(rank for rank, _ in kept) and sum(part.width + gap for _, part in kept) - gap > width:
        kept.remove(max(kept, key=lambda part: part[0]))
    line = Line()
    for index, (_, part) in enumerate(kept):
        line.add(" " * gap if index else "").join(part)
    return line.cropped(width)
