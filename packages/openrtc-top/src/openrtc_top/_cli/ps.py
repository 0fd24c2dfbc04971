"""`openrtc ps`: the running workers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openrtc_top._cli.outcome import fail, no_worker, put, wants_color

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Snapshot, WorkerSocket


def ps(
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            metavar="",
            help="One JSON object a line for each worker: what it tells of itself, and its socket.",
        ),
    ] = False,
) -> None:
    """List the workers of this user on this machine."""
    from openrtc_top._connection import find, read_all

    found = find()
    if not found:
        raise no_worker()
    answers = read_all(found)
    if as_json:
        for worker, answer in answers:
            put(json.dumps(described(worker, answer), separators=(",", ":")))
    else:
        from openrtc_top._view import line_to_text
        from openrtc_top._view.workers import worker_table

        for line in worker_table(answers):
            put(line_to_text(line, line.width, color=wants_color()))
    for _, answer in answers:
        if isinstance(answer, Exception):
            fail(str(answer), 0)


def described(worker: WorkerSocket, answer: Snapshot | Exception) -> dict[str, Any]:
    """A worker as a JSON object: the wire's fields where it answers, else what its socket's name tells."""
    if isinstance(answer, Exception):
        told = {"name": worker.name, "pid": worker.pid, "error": str(answer)}
    else:
        from openrtc_introspect_core.wire import to_json

        told = json.loads(to_json(answer))["worker"]
    return {**told, "socket": str(worker.path)}
