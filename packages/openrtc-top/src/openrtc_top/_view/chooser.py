"""The list of columns that the key c opens."""

from __future__ import annotations

from openrtc_top._model.chooser import Chooser
from openrtc_top._model.columns import BY_ID
from openrtc_top._view.body import Body, filled
from openrtc_top._view.line import Line
from openrtc_top._view.style import BOLD, DIM, HEADING, PLAIN, SELECTED

_TITLE = 9


def chooser_page(chooser: Chooser, wanted: tuple[str, ...], width: int, room: int) -> Body:
    """Return the list in so many lines, heading included."""
    page_rows = max(1, room - 1)
    index = chooser.cursor.index(chooser.order) or 0
    top = chooser.cursor.window(index, len(chooser.order), page_rows)
    lines = [Line("  columns, left to right", HEADING).cropped(width)]
    for at, column in enumerate(chooser.order[top : top + page_rows], top):
        on = column in wanted
        line = Line("▸" if at == index else " ").add(f" [{'x' if on else ' '}] ", BOLD if on else DIM)
        line.add(f"{BY_ID[column].title:<{_TITLE}}", BOLD if on else PLAIN).add(BY_ID[column].meaning, DIM)
        lines.append(line.filled(width, SELECTED) if at == index else line.cropped(width))
    return Body([*lines[:1], *filled(lines[1:], page_rows)], top, page_rows, len(chooser.order))
