"""`openrtc tasks SESSION`: a session's tasks as a tree, each with the line where it waits."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from openrtc_top._cli import complete
from openrtc_top._cli.options import AllUsers, Sockets, Vias, Workers
from openrtc_top._cli.outcome import NO_WORKER, OK, escaped, fail, is_terminal, put, say, wants_color, width
from openrtc_top._cli.target import read_workers, target

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Snapshot, Tasks, WorkerSocket

MOST_NAMED = 5


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
    all_users: AllUsers = False,
) -> None:
    """Print what a session's tasks wait for, each below the one that waits for it.

    Behind each task its await chain, the innermost call last: that is the line it waits at, or runs. A task that
    several wait for has one place in the tree, and the others name it; so do tasks that wait for each other in a ring.
    """
    looked_at = target(sockets, workers, vias, all_users)
    with looked_at.reached() as found:
        snapshots = read_workers(found)
        if not snapshots:
            raise typer.Exit(NO_WORKER)
        having = [(worker, snapshot) for worker, snapshot in snapshots if session in _sessions(snapshot)]
        if not having:
            raise _no_session(session, [snapshot for _, snapshot in snapshots])
        told = [_tell(worker, snapshot, session, as_json, several=len(having) > 1) for worker, snapshot in having]
        raise typer.Exit(OK if all(told) else NO_WORKER)


def _sessions(snapshot: Snapshot) -> set[str]:
    return {row.session_id for row in snapshot.sessions}


def _tell(worker: WorkerSocket, snapshot: Snapshot, session: str, as_json: bool, *, several: bool) -> bool:
    """Print one worker's answer. False: there is none, and stderr tells why."""
    from openrtc_introspect_core import IntrospectError
    from openrtc_introspect_core.wire import to_json
    from openrtc_top._connection import ask
    from openrtc_top._sockets import shown_name

    try:
        answer = ask(worker, lambda client: client.tasks(session))
    except (IntrospectError, OSError) as error:
        fail(str(error), NO_WORKER)
        return False
    if as_json:
        put(escaped(to_json(answer).decode()))
    else:
        _print(shown_name(worker, snapshot.worker.name) if several else None, answer)
    return True


def _print(name: str | None, answer: Tasks) -> None:
    from openrtc_top._tree import grow
    from openrtc_top._view import line_to_text
    from openrtc_top._view.line import visible
    from openrtc_top._view.tree import tree_lines

    if name is not None:
        put(f"{visible(name)}:")
    columns = width() if is_terminal() else None
    for line in tree_lines(grow(answer.tasks, most=len(answer.tasks)), columns):
        put(line_to_text(line, line.width, color=wants_color()))
    if answer.truncated:
        say("note: there are more tasks than the worker tells")


def _no_session(session: str, snapshots: Sequence[Snapshot]) -> typer.Exit:
    """Say so, with the ids that look like it."""
    known = sorted({session_id for snapshot in snapshots for session_id in _sessions(snapshot)})
    parts = [session_id for session_id in known if session in session_id]
    near = parts or sorted(difflib.get_close_matches(session, known, MOST_NAMED, 0.5))
    if near:
        more = f" and {len(near) - MOST_NAMED} more" if len(near) > MOST_NAMED else ""
        hint = f"; near it: {', '.join(near[:MOST_NAMED])}{more}"
    else:
        hint = f", of {len(known)} that live" if known else "; none lives"
    return fail(f"no session {session!r}{hint}", NO_WORKER)
