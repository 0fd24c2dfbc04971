"""Bytes that a terminal sends, as the names of keys.

A printable character is its own name; the other keys are listed below. An unknown sequence is swallowed whole, so
that its tail never counts as letters. Escape and a character that come at once are two keys: so they come over a
slow line, and from Alt, which means nothing here.
"""

from __future__ import annotations

import codecs
import re

_NAMED = {
    "\r": "enter",
    "\n": "enter",
    "\t": "tab",
    "\x7f": "backspace",
    "\x08": "backspace",
    " ": "space",
}
_FINAL = {"A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end"}
_FINAL |= dict(zip("PQRS", ("f1", "f2", "f3", "f4"), strict=True))
_TILDE = {"1": "home", "4": "end", "5": "pageup", "6": "pagedown", "7": "home", "8": "end", "3": "delete"}
_TILDE |= {"11": "f1", "12": "f2", "13": "f3", "14": "f4", "17": "f6", "21": "f10"}

# CSI: parameters, intermediates, a final character; SS3: one character.
_SEQUENCE = re.compile(r"\x1b(?:\[([0-?]*)[ -/]*([@-~])|O([A-Za-z]))")
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]{0,32}[ -/]{0,8}|O)?\Z")
_BROKEN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?")


class KeyDecoder:
    """Decodes what was read, piece by piece: a sequence may come in two reads."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._pending = ""

    @property
    def waiting(self) -> bool:
        """The last byte read may be the Escape key or the start of a sequence."""
        return bool(self._pending)

    def feed(self, data: bytes) -> list[str]:
        """Return the keys that are complete with these bytes."""
        text = self._pending + self._decode(data)
        self._pending = ""
        keys: list[str] = []
        at = 0
        while at < len(text):
            if text[at] != "\x1b":
                keys.append(_character(text[at]))
                at += 1
            elif _UNFINISHED.match(text, at):
                self._pending = text[at:]
                break
            elif match := _SEQUENCE.match(text, at):
                keys += _named(match)
                at = match.end()
            else:  # the sequence breaks off at a character that cannot be part of it
                broken = _BROKEN.match(text, at)
                assert broken is not None
                keys += ["escape"] if broken.group() == "\x1b" else []
                at = broken.end()
        return keys

    def flush(self) -> list[str]:
        """Return the Escape key if a lone ESC was last.

        The start of any other sequence is dropped.
        """
        pending, self._pending = self._pending, ""
        return ["escape"] if pending == "\x1b" else []


def _character(character: str) -> str:
    if named := _NAMED.get(character):
        return named
    if character < " ":
        return f"ctrl-{chr(ord(character) + 0x60)}"
    return character


def _named(match: re.Match[str]) -> list[str]:
    parameters, final, single = match.groups()
    if single:
        name = _FINAL.get(single)
    elif final == "~":
        name = _TILDE.get(parameters.partition(";")[0])
    else:
        name = _FINAL.get(final or "")
    return [name] if name else []
