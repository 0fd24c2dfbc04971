"""The end of a command: its exit codes, its error line, and its output."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence

import typer

from openrtc_top._view.encoding import encodable, printable

OK = 0
NO_WORKER = 1
FAILED = 1
USAGE = 2
FOUND = 3
TIMED_OUT = 4

HINT = """\
No OpenRTC worker is running for this user.
Start one (`openrtc run -- python my_worker.py`, or `openrtc demo` to try), then run `openrtc top`.\
"""
PIPE_WIDTH = 120

_NOT_ASCII = re.compile("[^ -~]")


def fail(message: str, code: int) -> typer.Exit:
    """Print what is wrong in one line on stderr. Return the exit to raise."""
    say(f"error: {' '.join(message.split())}")
    return typer.Exit(code)


def no_worker(reasons: Sequence[str] = (), searched: str = "") -> typer.Exit:
    """Print why there may be none, such as that it died, or else how to get one, on stderr. Return the exit to raise.

    searched: a line that says where it was looked for.
    """
    none, hint = HINT.splitlines()
    for line in (none, *(reasons or (searched, hint))):
        say(line)
    return typer.Exit(NO_WORKER)


def say(line: str) -> None:
    """Print one line on stderr."""
    print(encodable(printable(line), sys.stderr.encoding), file=sys.stderr)


def escaped(json: str) -> str:
    """Escape everything in JSON that a terminal would obey, or not show.

    JSON itself leaves DEL, C1 controls, changes of direction and the like as they are.
    """
    return json if json.isprintable() else _NOT_ASCII.sub(_shown, json)


def _shown(match: re.Match[str]) -> str:
    character = match.group()
    if character.isprintable():
        return character
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def put(text: str) -> None:
    """Print text and a newline on stdout.

    If nobody reads it any more, the command ends without an error.
    """
    if sys.stdout is None:
        raise fail("stdout is closed", FAILED)
    try:
        sys.stdout.write(encodable(text, sys.stdout.encoding) + "\n")
        sys.stdout.flush()
    except OSError as error:
        # The buffered rest must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(OK) from None
        raise fail(f"cannot write to stdout: {error.strerror}", FAILED) from None


def is_terminal() -> bool:
    """Return whether stdout is a terminal on which a cursor can be moved."""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def wants_color() -> bool:
    """Return whether to print colour.

    It goes to terminals only, and to none if NO_COLOR (no-color.org) is set.
    """
    return is_terminal() and not os.environ.get("NO_COLOR")


def width() -> int:
    """Return the width of the terminal, or what COLUMNS says; 120 in a pipe."""
    return shutil.get_terminal_size((PIPE_WIDTH, 24)).columns
