"""`openrtc top`: the sessions of all local workers, live or once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openrtc_top._cli import complete
from openrtc_top._cli.options import (
    AllUsers,
    Sockets,
    Vias,
    Workers,
    parse_columns,
    parse_rate,
    parse_sort,
    parse_status,
)
from openrtc_top._cli.outcome import (
    NO_WORKER,
    OK,
    USAGE,
    escaped,
    fail,
    is_terminal,
    put,
    say,
    wants_color,
    width,
)
from openrtc_top._cli.target import Target, read_workers, target
from openrtc_top._columns import DEFAULT, IDS
from openrtc_top._encoding import encodable
from openrtc_top._rows import SORTS, STATUSES, Filter, Row, Sort, arrange

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Snapshot, WorkerSocket
    from openrtc_top._state import State

DEFAULT_SORT = "cpu_pct"
DEFAULT_RATE = 1.0


def top(
    once: Annotated[
        bool,
        typer.Option("--once", metavar="", help="Print one snapshot and exit; so it does where stdout is no terminal."),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            metavar="",
            help="Print one snapshot as JSON and exit: a line for each worker, as it sends it, "
            "but with only the sessions that the filters choose.",
        ),
    ] = False,
    refresh_rate: Annotated[
        float | None,
        typer.Option(
            "--refresh-rate",
            metavar="HZ",
            parser=parse_rate,
            help="Frames per second of the live view, 0.5 to 10. Without it: 1.",
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort",
            metavar="COLUMN",
            parser=parse_sort,
            autocompletion=complete.words(SORTS),
            help=f"{', '.join(SORTS)}. Numbers from the greatest down. Without it: {DEFAULT_SORT}.",
        ),
    ] = None,
    status: Annotated[
        str,
        typer.Option(
            "--status",
            metavar="STATUS",
            parser=parse_status,
            autocompletion=complete.words((*STATUSES, "all")),
            help=f"Only sessions that are {', '.join(STATUSES[:-1])} or {STATUSES[-1]}.",
        ),
    ] = "all",
    agent: Annotated[
        str | None,
        typer.Option("--agent", metavar="NAME", autocompletion=complete.agent, help="Only sessions of this agent."),
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option("--tenant", metavar="NAME", autocompletion=complete.tenant, help="Only sessions of this tenant."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            metavar="NAMES",
            parser=parse_columns,
            autocompletion=complete.listed(IDS),
            help=f"These columns, in this order, with commas between them: {', '.join(IDS)}.",
        ),
    ] = None,
    ascii: Annotated[
        bool,
        typer.Option(
            "--ascii", metavar="", help="Nothing but ASCII characters; in the table ? stands for what they cannot tell."
        ),
    ] = False,
    sockets: Sockets = None,
    workers: Workers = None,
    vias: Vias = None,
    all_users: AllUsers = False,
    recording: Annotated[
        Path | None,
        typer.Option(
            "--replay",
            metavar="FILE",
            help="Show what `openrtc record` wrote, instead of running workers. With --once, --json: its last frame.",
        ),
    ] = None,
) -> None:
    """Show the sessions of every worker of this user on this machine, or behind other commands.

    Which one holds the event loop now, which one blocked it, and what each costs.

    Keys: q quit, s sort, / filter, Enter a session's page, ? the others, and what the columns mean.
    """
    if columns and as_json:
        raise fail("--columns chooses what the table shows, and --json prints none; give one of them", USAGE)
    chosen = Filter(None if status == "all" else status, agent, tenant)
    live = is_terminal() and not once and not as_json
    if recording is not None:
        if sockets or workers or vias or all_users or refresh_rate is not None:
            problem = (
                "--replay shows what was recorded, as it was recorded: --socket, --worker, --via, --all-users and "
            )
            raise fail(problem + "--refresh-rate do not go with it", USAGE)
        raise typer.Exit(_replay(recording, live, as_json, sort, chosen, columns, ascii=ascii))
    looked_at = target(sockets, workers, vias, all_users)
    rate = refresh_rate or DEFAULT_RATE
    if live and not looked_at.sockets:
        found = [] if looked_at.vias else looked_at.must_find()
        raise typer.Exit(watch(live_state(sort, chosen, columns), found, looked_at, rate, ascii=ascii))
    with looked_at.reached() as found:
        snapshots = read_workers(found)
        code = looked_at.code(len(found), len(snapshots))
        if live and code == OK:
            raise typer.Exit(watch(live_state(sort, chosen, columns, snapshots), found, looked_at, rate, ascii=ascii))
        if as_json:
            for _, snapshot in snapshots:
                put(json_line(snapshot, chosen, SORTS[sort] if sort else None, ascii=ascii))
        elif snapshots and not live:
            print_once(with_blocks(_state(sort, chosen, columns, snapshots), snapshots), ascii=ascii)
        raise typer.Exit(code)


def _replay(
    file: Path, live: bool, as_json: bool, sort: str | None, chosen: Filter, columns: str | None, *, ascii: bool
) -> int:
    """Show a recording, or its last frame. Returns the exit code."""
    from openrtc_top._config import write_columns
    from openrtc_top._replay import run, show
    from openrtc_top._tape import NotARecording, Tape

    try:
        tape = Tape(file)
    except NotARecording as error:
        raise fail(f"{str(file)!r} {error}", USAGE) from None
    except OSError as error:
        raise fail(f"cannot read {str(file)!r}: {error.strerror}", USAGE) from None
    with tape:
        if not tape.times:
            raise fail(f"{str(file)!r} is a recording without a frame in it", NO_WORKER)
        if live:
            state = live_state(sort, chosen, columns)
            return run(state, tape, color=wants_color(), ascii=ascii, remember=write_columns)
        state = show(_state(sort, chosen, columns), tape, len(tape.times) - 1)
        if as_json:
            for worker in state.workers:
                if worker.snapshot is not None:
                    put(json_line(worker.snapshot, chosen, SORTS[sort] if sort else None, ascii=ascii))
        else:
            print_once(state, ascii=ascii)
        if tape.cut_off:
            say(f"note: {file} is cut off; this is its last whole frame")
        return OK


def live_state(
    sort: str | None, chosen: Filter, columns: str | None, snapshots: Sequence[tuple[WorkerSocket, Snapshot]] = ()
) -> State:
    """With the columns that were chosen the last time, unless some were named now."""
    from openrtc_top._config import ConfigError, read_columns

    state = _state(sort, chosen, columns, snapshots)
    if columns:
        return state
    try:
        return replace(state, columns=read_columns())
    except ConfigError as error:
        say(f"warning: {error}; the default columns are shown")
        return replace(state, notice=f"{error}; the default columns are shown")


def _state(
    sort: str | None, chosen: Filter, columns: str | None, snapshots: Sequence[tuple[WorkerSocket, Snapshot]] = ()
) -> State:
    from openrtc_top._sockets import host
    from openrtc_top._state import Found, Frame, State, reduce

    named = tuple(columns.split(",")) if columns else DEFAULT
    state = State(
        sort=SORTS[sort or DEFAULT_SORT],
        filter=chosen,
        columns=named,
        always=frozenset(named) if columns else frozenset(),
    )
    for worker, snapshot in snapshots:
        key = str(worker.path)
        state = reduce(state, Found(key, worker.name, worker.pid, host(worker)))
        state = reduce(state, Frame(key, snapshot))
    return state


def with_blocks(state: State, snapshots: Sequence[tuple[WorkerSocket, Snapshot]]) -> State:
    """The state with the blocks that ended lately: where they were is not in a snapshot.

    While a loop is held that is what there is to tell, and the answer must come at once.
    """
    if any(snapshot.blocks_in_progress for _, snapshot in snapshots):
        return state
    from openrtc_top._connection import read_all_blocks
    from openrtc_top._state import Blocked, reduce

    for worker, blocks in read_all_blocks([worker for worker, snapshot in snapshots if snapshot.worker.blocks]):
        if not isinstance(blocks, Exception):
            state = reduce(state, Blocked(str(worker.path), blocks))
    return state


def print_once(state: State, *, ascii: bool = False) -> None:
    """Print what the live view would show, all rows of it."""
    from openrtc_top._view import render_once, to_text

    columns = width()
    screen = render_once(state, columns)
    text = to_text(screen, columns, len(screen.lines), color=wants_color())
    put(encodable(text, "ascii") if ascii else text)


def json_line(snapshot: Snapshot, chosen: Filter, sort: Sort | None, *, ascii: bool = False) -> str:
    """A snapshot in the wire's form, with only the chosen sessions; no sort: in the worker's order."""
    from openrtc_introspect_core.wire import to_json

    text = to_json(snapshot).decode()
    if chosen or sort:
        accepts = chosen.test()
        rows = [Row("", session) for session in snapshot.sessions if accepts(session)]
        kept = [row.session.session_id for row in (arrange(rows, sort) if sort else rows)]
        document = json.loads(text)
        by_id = {session["session_id"]: session for session in document["sessions"]}
        document["sessions"] = [by_id[session_id] for session_id in kept]
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return json.dumps(json.loads(text), separators=(",", ":")) if ascii else escaped(text)


def watch(state: State, found: Sequence[WorkerSocket], looked_at: Target, rate: float, *, ascii: bool = False) -> int:
    """The live view. Workers that start later are found too, unless sockets were named."""
    from openrtc_top._live import run
    from openrtc_top._sockets import host
    from openrtc_top._state import Found, reduce

    for worker in found:
        state = reduce(state, Found(str(worker.path), worker.name, worker.pid, host(worker)))
    return run(state, looked_at.find, rate=rate, color=wants_color(), ascii=ascii, vias=looked_at.vias)
