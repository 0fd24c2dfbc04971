"""Text for a terminal: nothing that it obeys, and ASCII if it has no Unicode."""

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
        "⏎": "<",
    }
)


def printable(text: str) -> str:
    """Escape everything in a text that a terminal would obey instead of showing.

    These are control characters, escape sequences and changes of direction.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shows_unicode(encoding: str | None) -> bool:
    """Return whether text in this encoding can hold the marks of the view."""
    try:
        "█▏▁▸▼…─".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def encodable(text: str, encoding: str | None) -> str:
    """Return the text as this encoding can hold it, as wide as it was."""
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
