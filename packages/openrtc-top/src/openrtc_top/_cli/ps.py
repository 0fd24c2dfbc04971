"""`openrtc ps`: the running workers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openrtc_top._cli.options import AllUsers, Sockets, ViaEach, Vias, Workers
from openrtc_top._cli.outcome import NO_WORKER, OK, escaped, fail, put, wants_color
from openrtc_top._cli.target import parse_target
from openrtc_top._client.targets import RemoteWorker, owner_name

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import WorkerSocket
    from openrtc_top._client.query import Answer
    from openrtc_top._view.line import Line


def ps(
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            metavar="",
            help="One JSON object a line for each worker: what it says of itself, its socket, the host (null: this "
            "one), the user it belongs to (null: you, or whoever relays), and as_of: null, or the time of what its "
            "black box says, if it does not answer.",
        ),
    ] = False,
    sockets: Sockets = None,
    workers: Workers = None,
    vias: Vias = None,
    via_each: ViaEach = None,
    all_users: AllUsers = False,
) -> None:
    """List the running workers: those of this user on this machine, unless an option names others.

    Below them are those that are frozen or have died, with what held their loop.
    """
    target = parse_target(sockets, workers, vias, all_users, via_each)
    with target.reached() as found:
        answered = _print(found, as_json=as_json)
        if not as_json:
            for line in target.dead_lines(found):
                _put(line)
        # A worker that was not named and does not answer is listed, which is all that was asked for.
        raise typer.Exit(target.exit_code(len(found), answered) if target.named else OK)


def _print(found: Sequence[WorkerSocket], *, as_json: bool) -> int:
    """Print a line for each. Return how many have answered."""
    from openrtc_top._client.query import read_all

    answers = read_all(found)
    if as_json:
        for worker, answer in answers:
            put(escaped(json.dumps(described(worker, answer), separators=(",", ":"), ensure_ascii=False)))
    else:
        from openrtc_top._client.targets import shown_name
        from openrtc_top._model.box_reading import BoxReading
        from openrtc_top._view.line import Line
        from openrtc_top._view.style import BAD
        from openrtc_top._view.unanswered import frozen_line
        from openrtc_top._view.workers import worker_table

        for line in worker_table(answers):
            _put(line)
        for worker, answer in answers:
            if isinstance(answer, BoxReading):
                _put(Line(frozen_line(shown_name(worker, answer.worker), answer), BAD))
    problems = [answer for _, answer in answers if isinstance(answer, Exception)]
    for problem in problems:
        fail(str(problem), NO_WORKER)
    return len(answers) - len(problems)


def _put(line: Line) -> None:
    from openrtc_top._view.text import line_to_text

    put(line_to_text(line, line.width, color=wants_color()))


def described(worker: WorkerSocket, answer: Answer) -> dict[str, Any]:
    """Return a worker as a JSON object.

    It has the wire's fields if the worker or its black box answers, else what its socket's name holds.
    """
    if isinstance(answer, Exception):
        fields = {"name": worker.name, "pid": worker.pid, "error": str(answer)}
    else:
        from openrtc_introspect_core.wire import to_json
        from openrtc_top._model.box_reading import BoxReading

        snapshot = answer.snapshot if isinstance(answer, BoxReading) else answer
        fields = json.loads(to_json(snapshot))["worker"]
        fields["as_of"] = snapshot.taken_at if isinstance(answer, BoxReading) else None
    if isinstance(worker, RemoteWorker):
        return {**fields, "host": worker.relay.label, "user": worker.user, "socket": worker.socket}
    return {**fields, "host": None, "user": owner_name(worker), "socket": str(worker.path)}
