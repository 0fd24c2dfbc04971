"""`openrtc ps`: the running workers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openrtc_top._cli.options import AllUsers, Sockets, Vias, Workers
from openrtc_top._cli.outcome import NO_WORKER, OK, escaped, fail, put, wants_color
from openrtc_top._cli.target import target
from openrtc_top._sockets import RemoteWorker, owner_name

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Snapshot, WorkerSocket


def ps(
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            metavar="",
            help="One JSON object a line for each worker: what it tells of itself, its socket, the host (null: this "
            "one) and the user it belongs to (null: you, or whoever relays).",
        ),
    ] = False,
    sockets: Sockets = None,
    workers: Workers = None,
    vias: Vias = None,
    all_users: AllUsers = False,
) -> None:
    """List the running workers: those of this user on this machine, unless told otherwise."""
    looked_at = target(sockets, workers, vias, all_users)
    with looked_at.reached() as found:
        answered = _print(found, as_json=as_json)
        # One that was found by itself and does not answer is listed, which is all that was asked for.
        raise typer.Exit(looked_at.code(len(found), answered) if looked_at.named else OK)


def _print(found: Sequence[WorkerSocket], *, as_json: bool) -> int:
    """Print a line for each. Returns how many have answered."""
    from openrtc_top._connection import read_all

    answers = read_all(found)
    if as_json:
        for worker, answer in answers:
            put(escaped(json.dumps(described(worker, answer), separators=(",", ":"), ensure_ascii=False)))
    else:
        from openrtc_top._view import line_to_text
        from openrtc_top._view.workers import worker_table

        for line in worker_table(answers):
            put(line_to_text(line, line.width, color=wants_color()))
    problems = [answer for _, answer in answers if isinstance(answer, Exception)]
    for problem in problems:
        fail(str(problem), NO_WORKER)
    return len(answers) - len(problems)


def described(worker: WorkerSocket, answer: Snapshot | Exception) -> dict[str, Any]:
    """A worker as a JSON object: the wire's fields where it answers, else what its socket's name tells."""
    if isinstance(answer, Exception):
        told = {"name": worker.name, "pid": worker.pid, "error": str(answer)}
    else:
        from openrtc_introspect_core.wire import to_json

        told = json.loads(to_json(answer))["worker"]
    if isinstance(worker, RemoteWorker):
        return {**told, "host": worker.via.label, "user": worker.user, "socket": worker.socket}
    return {**told, "host": None, "user": owner_name(worker), "socket": str(worker.path)}
