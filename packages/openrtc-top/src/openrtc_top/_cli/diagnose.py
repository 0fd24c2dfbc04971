"""`openrtc diagnose`: watches for some seconds, and says what is wrong, why, and what to do about it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openrtc_top._cli.options import AllUsers, Sockets, Workers, parse_watch
from openrtc_top._cli.outcome import FOUND, NO_WORKER, OK, escaped, fail, is_terminal, put, say, wants_color, width
from openrtc_top._cli.target import target

if TYPE_CHECKING:
    from openrtc_introspect_core import Finding
    from openrtc_top._watching import Watched

EPILOG = (
    "Exit codes: 0 nothing found, 1 no worker (or one does not answer, and nothing was found), 2 wrong usage, "
    "3 something was found."
)


def diagnose(
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds",
            metavar="N",
            parser=parse_watch,
            help="Watch for so long: the longer, the slower what it finds.",
        ),
    ] = 5.0,
    as_json: Annotated[
        bool,
        typer.Option("--json", metavar="", help="A JSON object a line for each worker, with its findings."),
    ] = False,
    sockets: Sockets = None,
    workers: Workers = None,
    all_users: AllUsers = False,
) -> None:
    """Watch the workers of this user for some seconds and say what is wrong with them, the worst first.

    Each finding tells what was seen, from where on that is a finding, what most likely helps, and the runbook to read.

    `docs/diagnosis.md` has the rules. A script asks the exit code: 3 where something was found.
    """
    found = target(sockets, workers, all_users=all_users).must_find()
    if sys.stderr is not None and sys.stderr.isatty():
        say(f"watching {'1 worker' if len(found) == 1 else f'{len(found)} workers'} for {seconds:g} s …")

    from openrtc_introspect_core import diagnose as findings_of
    from openrtc_top._watching import watch_workers

    code = OK
    shown = 0
    for watched in watch_workers(found, seconds):
        if watched.lost is not None:
            fail(watched.lost, NO_WORKER)
            code = code or NO_WORKER
        if not watched.snapshots:
            continue
        findings = findings_of(watched.snapshots, watched.blocks)
        code = FOUND if findings else code
        if as_json:
            put(_json(watched, findings))
        else:
            if shown:
                put("")
            _print(watched, findings)
        shown += 1
    raise typer.Exit(code)


def _print(watched: Watched, findings: list[Finding]) -> None:
    from openrtc_top._view import line_to_text
    from openrtc_top._view.findings import report

    columns = width() if is_terminal() else None
    for line in report(watched, findings, columns):
        put(line_to_text(line, line.width, color=wants_color()))


def _json(watched: Watched, findings: list[Finding]) -> str:
    from openrtc_introspect_core.wire import to_json

    info = watched.snapshots[-1].worker
    told: dict[str, Any] = {"worker": info.name, "pid": info.pid, "socket": str(watched.worker.path)}
    told |= {"seconds": round(watched.seconds, 3), "snapshots": len(watched.snapshots)}
    told["not_let_run_pct"] = round(watched.not_let_run_pct, 1)
    told["findings"] = [json.loads(to_json(found)) for found in findings]
    return escaped(json.dumps(told, ensure_ascii=False, separators=(",", ":")))
