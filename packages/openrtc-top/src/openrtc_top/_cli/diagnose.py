"""`openrtc diagnose`: what is wrong with the workers, and what to do about it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openrtc_top._cli.options import AllUsers, Sockets, ViaEach, Vias, Workers, parse_observation
from openrtc_top._cli.outcome import FOUND, NO_WORKER, OK, escaped, fail, is_terminal, put, say, wants_color, width
from openrtc_top._cli.target import parse_target

if TYPE_CHECKING:
    from openrtc_introspect_core import Finding
    from openrtc_introspect_core.wire import WaitGroup
    from openrtc_top._model.observation import Observation

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
            parser=parse_observation,
            help="Watch for so long: the longer, the slower what it finds.",
        ),
    ] = 5.0,
    as_json: Annotated[
        bool,
        typer.Option("--json", metavar="", help="A JSON object a line for each worker, with its findings."),
    ] = False,
    sockets: Sockets = None,
    workers: Workers = None,
    vias: Vias = None,
    via_each: ViaEach = None,
    all_users: AllUsers = False,
) -> None:
    """Watch the workers of this user for some seconds and say what is wrong with them, the worst first.

    A worker that is frozen is told about at once, by its black box.

    Each finding says what was seen, from where on that is a finding, what most likely helps, and the runbook to read.

    `docs/diagnosis.md` has the rules. A script asks the exit code: 3 if something was found.
    """
    from openrtc_introspect_core import diagnose as findings_of
    from openrtc_top._client.observe import observe_workers
    from openrtc_top._client.targets import shown_name
    from openrtc_top._view.unanswered import frozen_line

    target = parse_target(sockets, workers, vias, all_users, via_each)
    with target.reached() as found:
        if sys.stderr is not None and sys.stderr.isatty():
            say(f"watching {'1 worker' if len(found) == 1 else f'{len(found)} workers'} for {seconds:g} s …")
        seen = observe_workers(found, seconds)
        code = NO_WORKER if target.unreached() else OK
    answered = [observed for observed in seen if observed.snapshots]
    for observed in seen:
        if observed.frozen is not None:
            say(f"note: {frozen_line(shown_name(observed.worker, observed.frozen.worker), observed.frozen)}")
        if observed.lost is not None:
            fail(observed.lost, NO_WORKER)
            code = NO_WORKER
    for number, observed in enumerate(answered):
        findings = findings_of(observed.snapshots, observed.blocks, observed.waits)
        code = FOUND if findings or code == FOUND else code
        if as_json:
            put(_json(observed, findings))
        else:
            if number:
                put("")
            _print(observed, findings)
    raise typer.Exit(code)


def _print(observed: Observation, findings: list[Finding]) -> None:
    from openrtc_top._view.findings import report
    from openrtc_top._view.text import line_to_text

    columns = width() if is_terminal() else None
    for line in report(observed, findings, columns):
        put(line_to_text(line, line.width, color=wants_color()))


def _json(observed: Observation, findings: list[Finding]) -> str:
    from openrtc_introspect_core.wire import to_json

    info = observed.snapshots[-1].worker
    document: dict[str, Any] = {"worker": info.name, "pid": info.pid, "socket": str(observed.worker.path)}
    document["host"] = observed.host
    document["as_of"] = None if observed.frozen is None else observed.frozen.snapshot.taken_at
    document |= {"seconds": round(observed.seconds, 3), "snapshots": len(observed.snapshots)}
    document["not_let_run_pct"] = round(observed.run_delay_pct, 1)
    document["waiting"] = [_place(group, observed.waits[-1].taken_at) for group in observed.waiting]
    document["findings"] = [json.loads(to_json(found)) for found in findings]
    return escaped(json.dumps(document, ensure_ascii=False, separators=(",", ":")))


def _place(group: WaitGroup, now: float) -> dict[str, Any]:
    """Return a place at which sessions wait; `longest_s` is null if it is not known."""
    from msgspec import to_builtins

    place = None if group.location is None else to_builtins(group.location)
    longest_s = None if group.since is None else round(now - group.since, 3)
    return {
        "kind": group.kind,
        "what": group.what,
        "sessions": group.stuck,
        "location": place,
        "longest_s": longest_s,
        "first": next((waiter.session_id for waiter in group.waiters if waiter.session_id is not None), None),
    }
