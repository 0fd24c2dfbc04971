"""`openrtc top`: the sessions of all local workers, live or once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openrtc_top._cli import complete
from openrtc_top._cli.options import (
    AllUsers,
    Sockets,
    ViaEach,
    Vias,
    Workers,
    parse_columns,
    parse_rate,
    parse_sort,
    parse_status,
    parse_waits,
)
from openrtc_top._cli.outcome import (
    NO_WORKER,
    OK,
    USAGE,
    fail,
    is_terminal,
    put,
    say,
    wants_color,
)
from openrtc_top._cli.show import (
    DEFAULT_SORT,
    first_state,
    json_line,
    live_state,
    print_once,
    run_live,
    with_blocks,
    with_dead,
)
from openrtc_top._cli.target import line_text, parse_target, read_workers, say_frozen, snapshot_of
from openrtc_top._client.targets import host_of
from openrtc_top._model.columns import IDS, SORTS
from openrtc_top._model.rows import STATUSES, Filter
from openrtc_top._model.waits import KINDS

DEFAULT_RATE = 1.0


def top(
    once: Annotated[
        bool,
        typer.Option("--once", metavar="", help="Print one snapshot and exit; so it does if stdout is no terminal."),
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
    follow: Annotated[
        bool,
        typer.Option("--follow", metavar="", help="With --json: go on, a line for each frame, until Ctrl-C."),
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
    waits: Annotated[
        str | None,
        typer.Option(
            "--waits",
            metavar="KIND",
            parser=parse_waits,
            autocompletion=complete.words(KINDS),
            help=f"Only sessions that wait for this: {', '.join(KINDS)}.",
        ),
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
            "--ascii", metavar="", help="Nothing but ASCII characters; in the table ? stands for what they cannot show."
        ),
    ] = False,
    sockets: Sockets = None,
    workers: Workers = None,
    vias: Vias = None,
    via_each: ViaEach = None,
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

    The table shows which one holds the event loop now, which one blocked it, and what each costs.

    Keys: q quit, s sort, / filter, Enter a session's page, ? the others, and what the columns mean.
    """
    if follow and (once or not as_json):
        raise fail("--follow goes with --json, and not with --once; the view itself goes on without it", USAGE)
    if columns and as_json:
        raise fail("--columns chooses what the table shows, and --json prints none; give one of them", USAGE)
    chosen = Filter(None if status == "all" else status, agent, tenant, waits=waits)
    live = is_terminal() and not once and not as_json
    if recording is not None:
        if sockets or workers or vias or via_each or all_users or follow or refresh_rate is not None:
            problem = "--replay shows what was recorded, as it was recorded: --socket, --worker, --via, --all-users, "
            raise fail(problem + "--follow and --refresh-rate do not go with it", USAGE)
        raise typer.Exit(_replay(recording, live, as_json, sort, chosen, columns, ascii=ascii))
    target = parse_target(sockets, workers, vias, all_users, via_each)
    rate = refresh_rate or DEFAULT_RATE
    if follow:
        from openrtc_top._cli.frame_feed import print_frames

        if not target.named:
            target.must_find()
        raise typer.Exit(print_frames(target, rate, chosen, SORTS[sort] if sort else None, ascii=ascii))
    if live and not target.sockets:
        found = [] if target.remote else target.must_find()
        raise typer.Exit(run_live(live_state(sort, chosen, columns), found, target, rate, ascii=ascii))
    with target.reached() as found:
        answers = read_workers(found)
        code = target.exit_code(len(found), len(answers))
        if not answers:
            for line in target.dead_lines([]):
                say(line_text(line))
        if live and code == OK:
            raise typer.Exit(run_live(live_state(sort, chosen, columns, answers), found, target, rate, ascii=ascii))
        if as_json:
            for worker, answer in answers:
                order = SORTS[sort] if sort else None
                put(json_line(snapshot_of(answer), chosen, order, host_of(worker), ascii=ascii))
            say_frozen(answers)
        elif answers and not live:
            state = with_blocks(first_state(sort, chosen, columns, answers), answers)
            print_once(with_dead(state, target, found), ascii=ascii)
        raise typer.Exit(code)


def _replay(
    file: Path, live: bool, as_json: bool, sort: str | None, chosen: Filter, columns: str | None, *, ascii: bool
) -> int:
    """Show a recording, or its last frame. Return the exit code."""
    from openrtc_top._recording.tape import NotARecording, Tape
    from openrtc_top._tui.config import write_columns
    from openrtc_top._tui.replay import run, show

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
        state = show(first_state(sort, chosen, columns), tape, len(tape.times) - 1)
        if as_json:
            for worker in state.workers:
                if worker.snapshot is not None:
                    put(json_line(worker.snapshot, chosen, SORTS[sort] if sort else None, ascii=ascii))
        else:
            print_once(state, ascii=ascii)
        if tape.cut_off:
            say(f"note: {file} is cut off; this is its last whole frame")
        return OK
