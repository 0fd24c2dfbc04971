"""`openrtc run`: a Python program, with introspection attached to each of its event loops."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from openrtc_top._cli.options import parse_threshold
from openrtc_top._cli.outcome import USAGE, fail
from openrtc_top._cli.python_command import NoPythonProgram, taken_apart

RUNNER = "openrtc_introspect_core"
PACKAGE = "openrtc-introspect-core"

_HAS_RUNNER = f"""\
import importlib.util, os, sys
spec = importlib.util.find_spec({RUNNER!r})
folder = os.path.dirname(spec.origin) if spec and spec.origin else None
sys.exit(0 if folder and os.path.exists(os.path.join(folder, "__main__.py")) else 3)
"""


def run(
    command: Annotated[
        list[str],
        typer.Argument(metavar="COMMAND", help="python my_worker.py, python -m app, uvicorn app:app, and arguments."),
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The worker's name. Without it: the program's.")
    ] = None,
    threshold_ms: Annotated[
        float | None,
        typer.Option(
            "--slow-session-threshold-ms", metavar="N", parser=parse_threshold, help="What counts as a block; 50."
        ),
    ] = None,
    socket: Annotated[
        Path | None,
        typer.Option("--socket-path", metavar="PATH", help="The socket's place. Without it: the usual one."),
    ] = None,
) -> None:
    """Run a Python program, introspected, without changing it: each of its event loops is measured.

    Its top-level tasks are the sessions. The program replaces this command in its process: signals, stdin, stdout
    and the exit code are its own. Write `--` before COMMAND. Its Python needs the package openrtc-introspect-core.
    """
    if os.name != "posix":
        raise fail(f"on this platform, run `python -m {RUNNER} my_worker.py`", USAGE)
    try:
        found = taken_apart(command)
    except NoPythonProgram as error:
        raise fail(str(error), USAGE) from None
    if found.interpreter != sys.executable and not has_runner(found.interpreter):
        install = f"{found.interpreter} -m pip install {PACKAGE}"
        raise fail(f"{found.interpreter!r} has no {PACKAGE}, or an older one: {install}", USAGE)
    options = {"--name": name, "--slow-session-threshold-ms": threshold_ms, "--socket-path": socket}
    given = [f"{option}={value}" for option, value in options.items() if value is not None]
    sys.stdout.flush()
    arguments = [found.interpreter, *found.options, "-m", RUNNER, *given, "--", *found.program]
    try:
        os.execv(found.interpreter, arguments)
    except OSError as error:
        raise fail(f"cannot run {found.interpreter!r}: {error.strerror}", USAGE) from None


def has_runner(interpreter: str) -> bool:
    """Return whether this Python has the package that runs programs."""
    try:
        asked = subprocess.run(
            [interpreter, "-c", _HAS_RUNNER], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError:
        return False
    return asked.returncode == 0
