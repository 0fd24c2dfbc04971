"""The part between the header and the footer: some lines of a list or a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openrtc_top._model.cursor import Scroll
from openrtc_top._view.line import Line


@dataclass(frozen=True, slots=True)
class Body:
    """The lines, as many as there was room for, and which part of the whole they are."""

    lines: list[Line]
    top: int
    """The index of the first entry shown."""
    page_rows: int
    """The number of entries that there is room for."""
    total: int
    """The number of entries in all."""


def filled(lines: Sequence[Line], room: int) -> list[Line]:
    """Return so many lines: empty ones after those there are."""
    return [*lines[:room], *[Line()] * (room - len(lines))]


def scrolled(text: Sequence[Line], scroll: Scroll, room: int) -> Body:
    """Return the part of a text that is scrolled into view."""
    top = max(0, min(scroll.top, len(text) - room))
    return Body(filled(text[top : top + room], room), top, room, len(text))
