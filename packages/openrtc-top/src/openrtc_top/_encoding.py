"""Text for a terminal: what it would obey written out; where it cannot show all of Unicode, ASCII, cell for cell."""

from __future__ import annotations

import unicodedata

_ASCII = str.maketrans(
    {
        **dict.fromkeys("█▉▊▋▌", "#"),
        **dict.fromkeys("▍▎▏", "-"),
        **dict(zip("▁▂▃▄▅▆▇", "_.:-=+*", strict=True)),
        "·": ".",
        "▸": ">",
        "▼": "v",
        "▲": "^",
        "↑": "^",
        "↓": "v",
        "─": "-",
        "│": "|",
        "├": "|",
        "└": "`",
        "→": ">",
        "›": ">",
        "↻": "@",
        "★": "*",
        "–": "-",
        "…": "~",
        "≤": "<",
        "⏎": "t",
    }
)


def printable(text: str) -> str:
    """The text with everything that a terminal would obey instead of showing (control characters,
    escapes, changes of direction) written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shows_unicode(encoding: str | None) -> bool:
    """Whether text in this encoding can hold the marks of the view."""
    try:
        "█▏▁▸▼…─".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def encodable(text: str, encoding: str | None) -> str:
    """The text as this encoding can hold it, as wide as it was."""
    if shows_unicode(encoding):
        return text
    return "".join(_cell(character, encoding or "ascii") for character in text.translate(_ASCII))


def _cell(character: str, encoding: str) -> str:
    if character.isascii():
        return character
    try:
        character.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        wide = unicodedata.east_asian_width(character) in "WF"
        return "" if unicodedata.combining(character) else "?" * (1 + wide)
    return character
