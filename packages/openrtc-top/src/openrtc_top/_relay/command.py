"""The value of `--via`: the words of the command, and the host's label."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Sequence

RELAY = ("openrtc", "relay")
PLACE = "{}"
"""It stands for each host of `--via-each`."""
NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)=(.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9._/@][A-Za-z0-9._/@:+-]*")
_RUNNER = re.compile(r"(.*/)?(env|exec|nice|sudo|uvx|python[0-9.]*)")
"""Words that may stand between the host and the relay."""
_OPENRTC = re.compile(r"(^|/)openrtc\S*$")
_OWN_RELAY = re.compile(r"\bopenrtc\S*\s+relay\b")
_MAX_LABEL_LENGTH = 32


class BadCommand(ValueError):
    """The value of `--via` is no command; the message says why."""


def parse(text: str) -> tuple[str, list[str]]:
    """Return the label and the words of `COMMAND` or `NAME=COMMAND`.

    Raises BadCommand.

    The words are split as a shell would, but no shell runs them. If the command does not name a relay itself,
    `openrtc relay` is put behind it.
    """
    named = NAMED.fullmatch(text.strip())
    name, command = (named[1], named[2]) if named else (None, text)
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise BadCommand(f"{text!r}: {str(error).lower()}") from None
    if not words:
        raise BadCommand(f"{text!r} has no command in it")
    own = _OWN_RELAY.search(" ".join(words))
    return name or label(words), words if own else [*words, *RELAY]


def label(words: Sequence[str], longest: int = _MAX_LABEL_LENGTH) -> str:
    """Return what can be the name of a host or a pod, without a user's, in so many characters.

    It is the last such word before the relay's own.
    """
    before = itertools.takewhile(lambda word: not (_OWN_RELAY.search(word) or _OPENRTC.search(word)), words)
    plain = [word for word in before if _NAME.fullmatch(word) and not _RUNNER.fullmatch(word)]
    return (plain or words)[-1 if plain else 0].rpartition("@")[2].rpartition("/")[2][:longest] or "remote"


def distinct(labels: Sequence[str]) -> list[str]:
    """Return the labels, with a number behind those that were there before."""
    found: list[str] = []
    for given in labels:
        number, name = 1, given
        while name in found:
            number += 1
            name = f"{given}#{number}"
        found.append(name)
    return found
