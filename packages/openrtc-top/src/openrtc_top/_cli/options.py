"""The values that options take, and the messages for other values.

A default goes through its parser too, so the parsers of numbers take numbers as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openrtc_top._cli import complete
from openrtc_top._model.blocks import CAUSES
from openrtc_top._model.columns import IDS, SORTS, known, known_sort
from openrtc_top._model.rows import STATUSES
from openrtc_top._model.waits import KINDS

MIN_RATE = 0.5
MAX_RATE = 10.0
MAX_SECONDS = 86400.0
MIN_INTERVAL = 0.1
MAX_INTERVAL = 30.0
"""A connection that asks for nothing is closed after a minute."""
MIN_OBSERVATION_S = 2.0
MAX_OBSERVATION_S = 3600.0
MAX_SESSIONS = 1000
MAX_COUNT = 10**12
MAX_MEMORY = 10**9
ISOLATIONS = ("coroutine", "process")


def parse_rate(given: str | float) -> float:
    """Parse frames per second."""
    return _number(given, MIN_RATE, MAX_RATE, "frames per second")


def parse_seconds(given: str | float) -> float:
    """Parse a duration."""
    return _number(given, 0.1, MAX_SECONDS, "seconds")


def parse_interval(given: str | float) -> float:
    """Parse seconds between two frames."""
    return _number(given, MIN_INTERVAL, MAX_INTERVAL, "seconds")


def parse_observation(given: str | float) -> float:
    """Parse how long workers are observed for a diagnosis."""
    return _number(given, MIN_OBSERVATION_S, MAX_OBSERVATION_S, "seconds")


def parse_sessions(given: str | int) -> int:
    """Parse how many sessions are run."""
    return _whole(given, 1, MAX_SESSIONS)


def parse_threshold(given: str | float) -> float:
    """Parse how long a block is at least."""
    return _number(given, 0.1, 1000.0 * MAX_SECONDS, "milliseconds")


def parse_memory(given: str | float) -> float:
    """Parse a limit to memory, MB; 0: none."""
    return _number(given, 0.0, MAX_MEMORY, "MB")


def parse_isolation(text: str) -> str:
    """Parse where sessions run."""
    if text not in ISOLATIONS:
        raise typer.BadParameter(f"{text!r}; accepted are {', '.join(ISOLATIONS)}")
    return text


def parse_count(given: str | int) -> int:
    """Parse how many of something, or the number of one."""
    return _whole(given, 0, MAX_COUNT)


def _whole(given: str | int, minimum: int, maximum: int) -> int:
    text = str(given)
    if not (text.isascii() and text.isdigit() and len(text) < 15 and minimum <= int(text) <= maximum):
        raise typer.BadParameter(f"{text!r}; accepted are {minimum} to {maximum}")
    return int(text)


def _number(given: str | float, minimum: float, maximum: float, unit: str) -> float:
    try:
        value = float(given)
    except ValueError:
        value = float("nan")
    if not minimum <= value <= maximum:  # false for nan
        raise typer.BadParameter(f"{str(given)!r}; accepted are {minimum:g} to {maximum:g} {unit}")
    return value


def parse_sort(text: str) -> str:
    """Parse the name of a sort."""
    name = known_sort(text)
    if name is None:
        raise typer.BadParameter(f"{text!r}; accepted are {', '.join(SORTS)}")
    return name


def parse_status(text: str) -> str:
    """Parse a status, or "all"."""
    if text not in (*STATUSES, "all"):
        raise typer.BadParameter(f"{text!r}; accepted are {', '.join(STATUSES)}, all")
    return text


def parse_waits(text: str) -> str:
    """Parse a kind of what tasks wait for."""
    if text not in KINDS:
        raise typer.BadParameter(f"{text!r}; accepted are {', '.join(KINDS)}")
    return text


def parse_cause(text: str) -> str:
    """Parse a cause of blocks."""
    if text not in CAUSES:
        raise typer.BadParameter(f"{text!r}; accepted are {', '.join(CAUSES)}")
    return text


def check_condition(text: str) -> str:
    """Check that the text is a condition on workers and sessions."""
    from openrtc_top._model.condition import BadCondition, parse

    try:
        return parse(text).text
    except BadCondition as error:
        raise typer.BadParameter(str(error)) from None


def parse_columns(text: str) -> str:
    """Parse names of columns, with commas between them; return their ids."""
    columns = []
    for name in text.split(","):
        column = known(name.strip())
        if column is None:
            raise typer.BadParameter(f"{name.strip()!r}; accepted are {', '.join(IDS)}")
        columns.append(column)
    return ",".join(dict.fromkeys(columns))


Sockets = Annotated[
    list[Path] | None,
    typer.Option("--socket", metavar="PATH", help="This worker's socket. Can be given several times."),
]
Workers = Annotated[
    list[str] | None,
    typer.Option(
        "--worker",
        metavar="NAME|PID",
        autocompletion=complete.worker,
        help="Only this worker. Can be given several times.",
    ),
]
Vias = Annotated[
    list[str] | None,
    typer.Option(
        "--via",
        metavar="COMMAND",
        help="The workers of another host, instead of this one's: the command with `openrtc relay` behind it is run "
        'here, as in --via "ssh voice-3" or --via "kubectl exec -i POD --". NAME=COMMAND gives the host another '
        "name. Can be given several times.",
    ),
]
ViaEach = Annotated[
    str | None,
    typer.Option(
        "--via-each",
        metavar="COMMAND",
        help="Whatever hosts this command lists, a line each, run again every 15 s; {} in --via stands for each of "
        'them, as in --via-each "cat hosts" --via "ssh {}".',
    ),
]
AllUsers = Annotated[
    bool,
    typer.Option("--all-users", metavar="", help="The workers of every user of this machine. Only for root."),
]
