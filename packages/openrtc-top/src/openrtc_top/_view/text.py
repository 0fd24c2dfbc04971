"""A rendering as a string: plain, or with the codes of a colour terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.color import ColorSystem
from rich.style import Style

from openrtc_top._view.line import Line, cells

if TYPE_CHECKING:
    from openrtc_top._view.screen import Screen

_ERASE = "\x1b[2K"
# All but ASCII and what the view itself draws with: punctuation, arrows, boxes, bars, marks; and the Latin,
# Greek and Cyrillic letters, kana, Chinese characters and Korean syllables, whose widths are beyond dispute.
_DOUBTFUL = re.compile(
    "[^\x00-\u02ff\u0370-\u0482\u2010-\u2027\u2030-\u23ff\u2500-\u25ff\u2605\u3041-\u30ff\u4e00-\u9fff\uac00-\ud7a3]"
)

_CODES: dict[Style, tuple[str, str]] = {}


def to_text(renderable: Screen, width: int, height: int, color: bool = False) -> str:
    """Return the lines as one text, cropped to this size.

    It is plain text unless colour is asked for.
    """
    return "\n".join(line_to_text(line, width, color=color) for line in renderable.lines[:height])


def line_to_text(line: Line, width: int, *, color: bool, anchored: bool = False) -> str:
    """Return one line. Plain text has no blanks at its end.

    An anchored line is for a cursor at its beginning: after a text whose width terminals do not agree on (emoji,
    Indic scripts) it moves the cursor to the next column, so that the columns behind stand straight.
    """
    line = line.cropped(width)
    doubtful = [anchored and _doubtful(text) for text, _, _ in line.segments]
    if not color and not any(doubtful):
        return "".join(text for text, _, _ in line.segments).rstrip()
    parts = [_ERASE] if any(doubtful) else []
    column = 1
    for (text, style, _), unsure in zip(line.segments, doubtful, strict=True):
        before, after = _codes(style) if style and color else ("", "")
        parts.append(f"{before}{text}{after}" if text else "")
        column += cells(text)
        if unsure and column <= width:
            parts.append(f"\x1b[{column}G")
    return "".join(parts)


def _doubtful(text: str) -> bool:
    return not text.isascii() and _DOUBTFUL.search(text) is not None


def _codes(style: Style) -> tuple[str, str]:
    """Return the codes around a text.

    They are kept, since rich makes them anew for each text.
    """
    found = _CODES.get(style)
    if found is None:
        before, _, after = style.render("\0", color_system=ColorSystem.STANDARD).partition("\0")
        found = _CODES[style] = (before, after)
    return found
