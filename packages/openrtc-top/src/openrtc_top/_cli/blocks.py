"""`openrtc blocks`: the blocks of event loops, their culprits, and who waited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from openrtc_top._cli import complete
from openrtc_top._cli.options import AllUsers, Sockets, ViaEach, Vias, Workers, parse_cause, parse_count
from openrtc_top._cli.outcome import NO_WORKER, OK, USAGE, fail, put
from openrtc_top._cli.target import parse_target, read_workers, say_frozen
from openrtc_top._client.targets import shown_name
from openrtc_top._model.blocks import CAUSES, Choice, Entry, entries, in_order

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Block, Snapshot, WorkerSocket

Histories = list[tuple["WorkerSocket", "Snapshot", "list[Block]"]]


def blocks(
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", metavar="", help="Then print new blocks as they end, until Ctrl-C."),
    ] = False,
    stacks: Annotated[
        bool, typer.Option("--stacks", metavar="", help="Under each block its stack, the innermost call last.")
    ] = False,
    victims: Annotated[
        bool,
        typer.Option(
            "--victims",
            metavar="",
            help="Under each block the sessions that it kept waiting, and at the end who delayed whom: in how "
            "many blocks, in all, and at worst. ≤: at most that long. With --follow there is no such table.",
        ),
    ] = False,
    sessions: Annotated[
        list[str] | None,
        typer.Option(
            "--session",
            metavar="ID",
            autocompletion=complete.session,
            help="Only blocks of this session; with --victims also those that it waited for. "
            "Can be given several times.",
        ),
    ] = None,
    cause: Annotated[
        str | None,
        typer.Option(
            "--cause",
            metavar="CAUSE",
            parser=parse_cause,
            autocompletion=complete.words(CAUSES),
            help=f"Only these: {', '.join(CAUSES)}.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", metavar="N", parser=parse_count, help="Only the last N. Without it: all that are kept."
        ),
    ] = None,
    since: Annotated[
        int,
        typer.Option(
            "--since", metavar="SEQ", parser=parse_count, show_default=False, help="Only blocks whose seq is greater."
        ),
    ] = 0,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            metavar="",
            help="A JSON object a line for each block, as the worker sends it, stack and delayed sessions included.",
        ),
    ] = False,
    sockets: Sockets = None,
    workers: Workers = None,
    vias: Vias = None,
    via_each: ViaEach = None,
    all_users: AllUsers = False,
) -> None:
    """Print the blocks that the workers of this user remember: who held the event loop too long.

    A line each, the newest last: when it began, for how long, whose it was, why, where, and how many sessions waited.

    A block of no session has - for its session. Those that go on still come last, with … behind the time.
    """
    if as_json and (stacks or victims):
        raise fail("--json has stacks and delayed sessions in it; leave out --stacks and --victims", USAGE)
    target = parse_target(sockets, workers, vias, all_users, via_each)
    choice = Choice(frozenset(sessions or ()), cause, include_delayed=victims)
    with target.reached() as found:
        histories = _read(found, since)
        code = target.exit_code(len(found), len(histories))
    if not histories:
        raise typer.Exit(NO_WORKER)
    chosen = _chosen(histories, choice, limit, in_progress=not follow)
    if not chosen and not follow:
        if not as_json:
            put(_nothing(histories))
        raise typer.Exit(OK)

    from openrtc_top._cli.block_log import BlockHistory

    log = BlockHistory(histories, chosen, stacks=stacks, delayed=victims, as_json=as_json, follows=follow)
    for entry in chosen:
        log.show(entry)
    if follow:
        from openrtc_top._cli.block_feed import print_new

        last = {str(worker.path): max([0, *(block.seq for block in kept)]) for worker, _, kept in histories}
        known = {key: max(seq, since) for key, seq in last.items()}
        raise typer.Exit(print_new(log, choice, target, known))
    if victims:
        log.show_delays(chosen, choice)
    raise typer.Exit(code)


def _read(found: Sequence[WorkerSocket], since: int) -> Histories:
    """Return what the workers remember.

    Workers that do not answer are reported on stderr; if they are frozen, their black boxes have it.
    """
    from openrtc_top._client.query import read_all_blocks
    from openrtc_top._model.box_reading import BoxReading

    answers = read_workers(found)
    say_frozen(answers)
    known: dict[WorkerSocket, tuple[Snapshot, list[Block]]] = {}
    snapshots: dict[WorkerSocket, Snapshot] = {}
    for worker, answer in answers:
        if isinstance(answer, BoxReading):
            known[worker] = answer.snapshot, [block for block in answer.blocks if block.seq > since]
        else:
            snapshots[worker] = answer
    for worker, told in read_all_blocks(list(snapshots), since):
        if isinstance(told, Exception):
            fail(str(told), NO_WORKER)
        else:
            known[worker] = snapshots[worker], told
    return [(worker, *known[worker]) for worker, _ in answers if worker in known]


def _chosen(histories: Histories, choice: Choice, limit: int | None, *, in_progress: bool) -> list[Entry]:
    """Return the blocks to print, oldest first; the limit is for those that are over."""
    found = in_order(
        entry
        for worker, snapshot, blocks in histories
        for entry in entries(
            str(worker.path), shown_name(worker, snapshot.worker.name), blocks, snapshot if in_progress else None
        )
        if choice.accepts(entry.block)
    )
    over = [entry for entry in found if not entry.block.in_progress]
    going_on = found[len(over) :]
    return (over if limit is None else over[len(over) - min(limit, len(over)) :]) + going_on


def _nothing(histories: Histories) -> str:
    """Return why there is nothing to print."""
    from openrtc_top._view import quantity
    from openrtc_top._view.line import visible

    kept = sum(len(blocks) for _, _, blocks in histories)
    if kept or any(snapshot.worker.blocks for _, snapshot, _ in histories):
        return f"No blocks that these options choose, of {kept} that were read."
    if len(histories) > 1:
        return f"No blocks: nothing has held the loops of these {len(histories)} workers for too long."
    info = histories[0][1].worker
    threshold = f"{info.slow_session_threshold_ms:g} ms"
    up = quantity.uptime(info.uptime_s)
    return f"No blocks: nothing has held the loop of {visible(info.name)} longer than {threshold} in the {up} it is up."
