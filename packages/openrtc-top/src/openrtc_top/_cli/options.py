"""The values that options take: what is accepted, and the message where something else was given.

A default goes through its parser too, so the parsers of numbers take numbers as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openrtc_top._blocks import CAUSES
from openrtc_top._cli import complete
from openrtc_top._columns import IDS, known
from openrtc_top._rows import SORTS, STATUSES, WIRE_NAMES

RATE_LEAST = 0.5
RATE_MOST = 10.0
SECONDS_MOST = 86400.0
INTERVAL_LEAST = 0.1
INTERVAL_MOST = 30.0
"""A connection that asks for nothing is closed after a minute."""
WATCH_LEAST, WATCH_MOST = 2.0, 3600.0
SESSIONS_MOST = 1000
COUNT_MOST = 10**12
MEMORY_MOST = 10**9
ISOLATIONS = ("coroutine", "process")


def parse_rate(given: str | float) -> float:
    """Frames per second."""
    return _number(given, RATE_LEAST, RATE_MOST, "frames per second")


def parse_seconds(given: str | float) -> float:
    """A duration."""
    return _number(given, 0.1, SECONDS_MOST, "seconds")


def parse_interval(given: str | float) -> float:
    """Seconds between two frames."""
    return _number(given, INTERVAL_LEAST, INTERVAL_MOST, "seconds")


def parse_watch(given: str | float) -> float:
    """For how long to look before judging."""
    return _number(given, WATCH_LEAST, WATCH_MOST, "seconds")


def parse_sessions(given: str | int) -> int:
    """How many sessions are run."""
    return _whole(given, 1, SESSIONS_MOST)


def parse_threshold(given: str | float) -> float:
    """What counts as a block."""
    return _number(given, 0.1, 1000.0 * SECONDS_MOST, "milliseconds")


def parse_memory(given: str | float) -> float:
    """A limit to memory; 0: none."""
    return _number(given, 0.0, MEMORY_MOST, "MiB")


def parse_isolation(text: str) -> str:
    """Where sessions run."""
    if text not in ISOLATIONS:
        raise typer.BadParameter(f"{text!r}; accepted are {', '.join(ISOLATIONS)}")
    return text


def parse_count(given: str | int) -> int:
    """How many of something, or the number of one."""
    return _whole(given, 0, COUNT_MOST)


def _whole(given: str | int, least: int, most: int) -> int:
    text = str(given)
    if not (text.isascii() and text.isdigit() and len(text) < 15 and least <= int(text) <= most):
        raise typer.BadParameter(f"{text!r}; accepted are {least} to {most}")
    return int(text)


def _number(given: str | float, least: float, most: float, unit: str) -> float:
    try:
        value = float(given)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:  # false for nan
        raise typer.BadParameter(f"{str(given)!r}; accepted are {least:g} to {most:g} {unit}")
    return value


def parse_sort(text: str) -> str:
    """The name of a sort."""
    name = WIRE_NAMES.get(text, text)
    if name not in SORTS:
        raise typer.BadParameter(f"{text!r}; accepted are {', '.join(SORTS)}")
    return name


def parse_status(text: str) -> str:
    """A status, or "all"."""
    if text not in (*STATUSES, "all"):
        raise typer.BadParameter(f"{text!r}; accepted are {', '.join(STATUSES)}, all")
    return text


def parse_cause(text: str) -> str:
    """A cause of blocks."""
    if text not in CAUSES:
        raise typer.BadParameter(f"{text!r}; accepted are {', '.join(CAUSES)}")
    return text


def parse_columns(text: str) -> str:
    """Names of columns, with commas between them."""
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
AllUsers = Annotated[
    bool,
    typer.Option("--all-users", metavar="", help="The workers of every user of this machine. Only for root."),
]
