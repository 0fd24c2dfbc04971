"""A rendering as a string: plain, or with the codes of a colour terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.color import ColorSystem
from rich.style import Style

from openrtc_top._view.line import Line

if TYPE_CHECKING:
    from openrtc_top._view.screen import Screen

_CODES: dict[Style, tuple[str, str]] = {}


def to_text(renderable: Screen, width: int, height: int, color: bool = False) -> str:
    """The screen's lines, cropped to this size, joined by newlines; plain text unless colour is asked for."""
    return "\n".join(line_to_text(line, width, color=color) for line in renderable.lines[:height])


def line_to_text(line: Line, width: int, *, color: bool) -> str:
    """One line. Plain text has no blanks at its end."""
    line = line.cropped(width)
    if not color:
        return "".join(text for text, _, _ in line.segments).rstrip()
    parts = []
    for text, style, _ in line.segments:
        before, after = _codes(style) if style else ("", "")
        parts.append(f"{before}{text}{after}" if text else "")
    return "".join(parts)


def _codes(style: Style) -> tuple[str, str]:
    """The codes around a text, which rich makes for each text anew."""
    found = _CODES.get(style)
    if found is None:
        before, _, after = style.render("\0", color_system=ColorSystem.STANDARD).partition("\0")
        found = _CODES[style] = (before, after)
    return found
