"""What `--via` was given: the words of the command, and what the view calls the other side."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Sequence

RELAY = ("openrtc", "relay")
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)=(.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9._/@][A-Za-z0-9._/@:+-]*")
_RUNNER = re.compile(r"(.*/)?(env|exec|nice|sudo|uvx|python[0-9.]*)")
"""What may stand between the host and the relay."""
_OPENRTC = re.compile(r"(^|/)openrtc\S*$")
_OWN_RELAY = re.compile(r"\bopenrtc\S*\s+relay\b")
_LONGEST_LABEL = 32


class BadCommand(ValueError):
    """What was given to `--via` is no command; the message says why."""


def parse(text: str) -> tuple[str, list[str]]:
    """The label and the words of `COMMAND` or `NAME=COMMAND`. Raises BadCommand.

    The words are split as a shell would, but no shell runs them. Where the command does not name
    a relay itself, `openrtc relay` is put behind it.
    """
    named = _NAMED.fullmatch(text.strip())
    name, command = (named[1], named[2]) if named else (None, text)
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise BadCommand(f"{text!r}: {str(error).lower()}") from None
    if not words:
        raise BadCommand(f"{text!r} has no command in it")
    own = _OWN_RELAY.search(" ".join(words))
    return name or label(words), words if own else [*words, *RELAY]


def label(words: Sequence[str]) -> str:
    """The last word before the relay's own that can be a host's or a pod's name, without a user's."""
    before = itertools.takewhile(lambda word: not (_OWN_RELAY.search(word) or _OPENRTC.search(word)), words)
    plain = [word for word in before if _NAME.fullmatch(word) and not _RUNNER.fullmatch(word)]
    return (plain or words)[-1 if plain else 0].rpartition("@")[2].rpartition("/")[2][:_LONGEST_LABEL] or "remote"


def distinct(labels: Sequence[str]) -> list[str]:
    """The labels, with a number behind those that were there before."""
    found: list[str] = []
    for given in labels:
        number, name = 1, given
        while name in found:
            number += 1
            name = f"{given}#{number}"
        found.append(name)
    return found
