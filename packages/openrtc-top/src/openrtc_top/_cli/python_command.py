"""A command that runs a Python program, taken apart: the interpreter, its options, the program and its arguments.

The interpreter is named in the command, or in the first line of the script that the command names, as those have that
pip, uv and pipx install.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from typing import NamedTuple

_INTERPRETER = re.compile(r"python(\d+(\.\d+)*)?[td]*(\.exe)?")
_FLAGS = frozenset("bBdEiIOPqRsSuv")
_VALUED = frozenset("WX")
_PROGRAMS = frozenset("cm")
_VALUED_WORD = "--check-hash-based-pycs"

# Where a path is too long or has spaces, installers have a shell execute the interpreter.
_BY_SHELL = re.compile(rb"""#!/bin/sh\r?\n'''exec' (?:"([^"\n]+)"|(\S+))((?: -\S+)*) "\$0" "\$@"\r?\n""")
_HEAD = 4096


class NoPythonProgram(ValueError):
    """The command runs no Python program; the message says what it is, and what to write."""


class PythonCommand(NamedTuple):
    """How the command runs its program."""

    interpreter: str
    """Its path, as the command names it or as it is found in $PATH."""
    options: list[str]
    """The interpreter's own."""
    program: list[str]
    """A script, `-m MODULE` or `-c CODE`, and the program's arguments."""


def taken_apart(command: Sequence[str]) -> PythonCommand:
    """Return how the command runs Python. Raise NoPythonProgram if it does not, or in a way that is not understood."""
    name, *arguments = command
    path = shutil.which(name)
    if path is None:
        raise NoPythonProgram(f"no such command: {name!r}; a script is run by its Python, such as `python {name}`")
    if _INTERPRETER.fullmatch(os.path.basename(path)):
        return PythonCommand(path, *_split(arguments))
    interpreter = _interpreter_of(path)
    if interpreter is None:
        raise NoPythonProgram(
            f"{name!r} is no Python program: name an interpreter, such as `python my_worker.py`, or a script in Python"
        )
    found = shutil.which(interpreter[0])
    if found is None or not _INTERPRETER.fullmatch(os.path.basename(found)):
        raise NoPythonProgram(f"{path!r} is run by {interpreter[0]!r}, which is no Python")
    return PythonCommand(found, interpreter[1:], [path, *arguments])


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return (the interpreter's options, the program and its arguments)."""
    at = 0
    while at < len(arguments):
        given = arguments[at]
        if given == "--":
            at += 1
            break
        if not given.startswith("-") or given == "-":
            break
        if given == _VALUED_WORD:
            at += 2
            continue
        for place, letter in enumerate(given[1:], start=1):
            if letter in _PROGRAMS:
                before = [given[:place]] if place > 1 else []
                return [*arguments[:at], *before], [f"-{given[place:]}", *arguments[at + 1 :]]
            if letter in _VALUED:
                at += place == len(given) - 1
                break
            if letter not in _FLAGS:
                raise NoPythonProgram(f"Python's option {given} runs no program; name a script, -m MODULE or -c CODE")
        at += 1
    options = [each for each in arguments[:at] if each != "--"]
    if at >= len(arguments) or arguments[at] == "-":
        raise NoPythonProgram("Python is to read its program from stdin; name a script, -m MODULE or -c CODE")
    return options, arguments[at:]


def _interpreter_of(path: str) -> list[str] | None:
    """Return the interpreter that the script's first line names, and its options. None: the file has no such line."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise NoPythonProgram(f"cannot read {path!r}: {error.strerror}") from None
    if (by_shell := _BY_SHELL.match(head)) is not None:
        return [os.fsdecode(by_shell[1] or by_shell[2]), *os.fsdecode(by_shell[3]).split()]
    if not head.startswith(b"#!"):
        return None
    words = os.fsdecode(head[2:].partition(b"\n")[0]).split()
    if words and os.path.basename(words[0]) == "env":
        words = [word for word in words[1:] if word != "-S"]
    return words if words and _INTERPRETER.fullmatch(os.path.basename(words[0])) else None
