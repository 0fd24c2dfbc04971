"""`openrtc tasks SESSION`: a session's tasks as a tree, with where each waits."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from openrtc_top._cli import complete
from openrtc_top._cli.frozen import frozen_reason, print_stacks
from openrtc_top._cli.options import AllUsers, Sockets, ViaEach, Vias, Workers
from openrtc_top._cli.outcome import NO_WORKER, OK, escaped, fail, is_terminal, put, say, wants_color, width
from openrtc_top._cli.target import parse_target, read_workers, snapshot_of

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Client, Snapshot, Tasks, WorkerSocket
    from openrtc_top._model.box_reading import BoxReading

MAX_NAMED = 5


def tasks(
    session: Annotated[
        str,
        typer.Argument(metavar="SESSION", help="The session's id.", autocompletion=complete.session),
    ],
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", metavar="", help="The tasks as the worker sends them, a line of JSON for each worker that has it."
        ),
    ] = False,
    sockets: Sockets = None,
    workers: Workers = None,
    vias: Vias = None,
    via_each: ViaEach = None,
    all_users: AllUsers = False,
) -> None:
    """Print what a session's tasks wait for, each below the one that waits for it.

    Behind each task its await chain, the innermost call last: that is the line it waits at, or runs. A task that
    several wait for has one place in the tree, and the others name it; so do tasks that wait for each other in a ring.

    A worker that is frozen cannot tell tasks: the stack of the session is printed if it holds the loop, and the exit
    code is 1.
    """
    target = parse_target(sockets, workers, vias, all_users, via_each)
    with target.reached() as found:
        answers = read_workers(found)
        if not answers:
            raise typer.Exit(NO_WORKER)
        having = [(worker, answer) for worker, answer in answers if session in _sessions(snapshot_of(answer))]
        if not having:
            raise _no_session(session, [snapshot_of(answer) for _, answer in answers])
        printed = [_print_tasks(worker, answer, session, as_json, several=len(having) > 1) for worker, answer in having]
        raise typer.Exit(OK if all(printed) else NO_WORKER)


def _sessions(snapshot: Snapshot) -> set[str]:
    return {row.session_id for row in snapshot.sessions}


def _print_tasks(
    worker: WorkerSocket, read: Snapshot | BoxReading, session: str, as_json: bool, *, several: bool
) -> bool:
    """Print one worker's answer. Return False if there is none; then stderr says why."""
    from openrtc_introspect_core import IntrospectError
    from openrtc_introspect_core.wire import to_json
    from openrtc_top._client.query import ask, must_list
    from openrtc_top._client.targets import shown_name
    from openrtc_top._model.box_reading import BoxReading

    async def tasks_of(client: Client) -> Tasks:
        must_list(client.hello, "tasks")
        return await client.tasks(session)

    try:
        answer = read if isinstance(read, BoxReading) else ask(worker, tasks_of)
    except (IntrospectError, OSError) as error:
        fail(str(error), NO_WORKER)
        return False
    name = shown_name(worker, snapshot_of(read).worker.name)
    if isinstance(answer, BoxReading):
        if not as_json:
            print_stacks(name if several else None, answer, session)
        fail(frozen_reason(name, answer, "tasks", session), NO_WORKER)
        return False
    if as_json:
        put(escaped(to_json(answer).decode()))
    else:
        _print(name if several else None, answer)
    return True


def _print(name: str | None, answer: Tasks) -> None:
    from openrtc_top._model.tree import grow
    from openrtc_top._view.line import visible
    from openrtc_top._view.text import line_to_text
    from openrtc_top._view.tree import tree_lines
    from openrtc_top._view.wall_time import wall_time_lines

    if name is not None:
        put(f"{visible(name)}:")
    columns = width() if is_terminal() else None
    for line in tree_lines(grow(answer.tasks, limit=len(answer.tasks)), columns):
        put(line_to_text(line, line.width, color=wants_color()))
    for line in wall_time_lines(answer.wall_time, columns):
        put(line_to_text(line, line.width, color=wants_color()))
    if answer.truncated:
        say("note: there are more tasks than the worker reports")


def _no_session(session: str, snapshots: Sequence[Snapshot]) -> typer.Exit:
    """Report that no session has this id, with similar ids. Return the exit to raise."""
    known = sorted({session_id for snapshot in snapshots for session_id in _sessions(snapshot)})
    parts = [session_id for session_id in known if session in session_id]
    near = parts or sorted(difflib.get_close_matches(session, known, MAX_NAMED, 0.5))
    if near:
        more = f" and {len(near) - MAX_NAMED} more" if len(near) > MAX_NAMED else ""
        hint = f"; near it: {', '.join(near[:MAX_NAMED])}{more}"
    else:
        hint = f", of {len(known)} that live" if known else "; none lives"
    return fail(f"no session {session!r}{hint}", NO_WORKER)
