"""The command line of `python -m openrtc_introspect_core`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from .._base.errors import ArgumentError
from .._introspector import Introspector
from .process import follow
from .program import Kind, Program

USAGE = """\
usage: python -m openrtc_introspect_core [OPTION…] SCRIPT | -m MODULE | -c CODE [ARGUMENT…]

Run a Python program with introspection attached to each of its event loops.

  --name NAME                      the worker's name; default: the program's
  --slow-session-threshold-ms N    what counts as a block; default: 50
  --socket-path PATH               the socket's place; default: the user's runtime directory
"""

_KINDS: dict[str, Kind] = {"-m": "module", "-c": "code"}
MAX_NAME = 64


def main() -> None:
    """Run the program that the process's arguments name, in this process."""
    options, program = parse(sys.argv[1:])
    try:
        Introspector(**options)  # checks the options, and is never started
    except ArgumentError as error:
        _refuse(str(error))
    introspection = follow(options)
    try:
        program.run()
    except BaseException as error:
        introspection.ended_by(error)
        raise


def parse(arguments: Sequence[str]) -> tuple[dict[str, Any], Program]:
    """Return (the arguments of the Introspector, the program); exit with a line on stderr if there is no program."""
    options: dict[str, Any] = {}
    left = list(arguments)
    while left and left[0].startswith("--"):
        option, equals, value = left.pop(0).partition("=")
        if option == "--" and not equals:
            break
        if option == "--help":
            print(USAGE, end="")
            raise SystemExit(0)
        if option not in ("--name", "--slow-session-threshold-ms", "--socket-path"):
            _refuse(f"no such option: {option} (see --help)")
        if not equals and not left:
            _refuse(f"{option} takes a value (see --help)")
        options[option.removeprefix("--").replace("-", "_")] = value if equals else left.pop(0)
    program = _program(left)
    if (threshold := options.get("slow_session_threshold_ms")) is not None:
        try:
            options["slow_session_threshold_ms"] = float(threshold)
        except ValueError:
            _refuse(f"--slow-session-threshold-ms takes a number of milliseconds, got {threshold!a}")
    name = "".join(each if each.isprintable() else "?" for each in program.name)[:MAX_NAME]
    return {"name": name or "python", "stall_log": None, **options}, program


def _program(left: list[str]) -> Program:
    if left and left[0][:2] in _KINDS:
        kind, value = _KINDS[left[0][:2]], left[0][2:]
        if value or left[1:]:
            return Program(kind, value or left[1], left[1:] if value else left[2:])
    if not left or left[0].startswith("-"):
        _refuse("name a program: a script, -m MODULE or -c CODE (see --help)")
    return Program("script", left[0], left[1:])


def _refuse(problem: str) -> NoReturn:
    print(f"openrtc_introspect_core: {problem}", file=sys.stderr)
    raise SystemExit(2)
