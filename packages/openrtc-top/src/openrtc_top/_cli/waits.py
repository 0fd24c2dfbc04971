"""`openrtc waits`: what the sessions wait for, grouped, and who holds it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from openrtc_top._cli import complete
from openrtc_top._cli.frozen import frozen_reason, print_stacks
from openrtc_top._cli.options import AllUsers, Sockets, ViaEach, Vias, Workers, parse_count, parse_waits
from openrtc_top._cli.outcome import NO_WORKER, escaped, fail, is_terminal, put, wants_color, width
from openrtc_top._cli.target import parse_target
from openrtc_top._model.waits import KINDS, Choice, Entry, entries

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Block, Hello, Waits, WorkerSocket

DEFAULT_LIMIT = 20


def waits(
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            parser=parse_waits,
            autocompletion=complete.words(KINDS),
            help=f"Only what is waited for in this way: {', '.join(KINDS)}.",
        ),
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option(
            "--agent",
            metavar="NAME",
            autocompletion=complete.agent,
            help="Only groups that name a session of this agent: as one that waits, or as the holder.",
        ),
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option(
            "--tenant",
            metavar="NAME",
            autocompletion=complete.tenant,
            help="Only groups that name a session of this tenant.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            metavar="N",
            parser=parse_count,
            help=f"Only the first N groups of each worker. Without it: {DEFAULT_LIMIT}; with --json or --all all.",
        ),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option(
            "--all",
            metavar="",
            help="Each group, even if all is well, and each waiter, holder and call that the worker names, "
            "with its line.",
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            metavar="",
            help="A line of JSON for each worker: its name and pid, and the answer as it sends it.",
        ),
    ] = False,
    sockets: Sockets = None,
    workers: Workers = None,
    vias: Vias = None,
    via_each: ViaEach = None,
    all_users: AllUsers = False,
) -> None:
    """Print what the sessions wait for: the same lock, pool, executor or line, those with the most sessions first.

    What holds a loop now comes first, if anything does: nobody moves meanwhile.

    Below a group that waits for another stands who holds it, since when, at which line, and who waits.

    Executors that are at work and loops that spin follow.

    `stuck` is the number of sessions in the group that do nothing else meanwhile.

    Workers look at their tasks when asked. Of a frozen one, what holds its loop is printed, and the exit code is 1.
    """
    if whole and as_json:
        raise fail("--json has all in it; leave out --all", 2)
    from openrtc_top._client.query import ask_all
    from openrtc_top._client.survey import ask_all_waits
    from openrtc_top._client.targets import shown_name
    from openrtc_top._model.box_reading import BoxReading

    target = parse_target(sockets, workers, vias, all_users, via_each)
    choice = Choice(kind, agent, tenant)
    answered = 0
    with target.reached() as found:
        for worker, answer in ask_all(found, ask_all_waits):
            if isinstance(answer, Exception):
                fail(str(answer), NO_WORKER)
            elif isinstance(answer, BoxReading):
                name = shown_name(worker, answer.worker)
                if not as_json:
                    print_stacks(name if len(found) > 1 else None, answer)
                fail(frozen_reason(name, answer, "waits"), NO_WORKER)
            else:
                if answered and not as_json:
                    put("")
                answered += 1
                _print(worker, *answer, choice, limit, whole=whole, as_json=as_json)
        raise typer.Exit(target.exit_code(len(found), answered))


def _print(
    worker: WorkerSocket,
    hello: Hello,
    reply: Waits,
    blocks: Sequence[Block],
    choice: Choice,
    limit: int | None,
    *,
    whole: bool,
    as_json: bool,
) -> None:
    from openrtc_top._client.targets import host_of, shown_name
    from openrtc_top._view.text import line_to_text
    from openrtc_top._view.waits import Answer, survey

    chosen = [entry for entry in entries(str(worker.path), hello.worker, reply) if choice.accepts(entry.group)]
    if as_json:
        put(escaped(_json(hello, host_of(worker), reply, chosen[:limit])))
        return
    shown = chosen if whole and limit is None else chosen[: DEFAULT_LIMIT if limit is None else limit]
    columns = width() if is_terminal() else None
    answer = Answer(reply, shown, blocks)
    for line in survey(shown_name(worker, hello.worker), hello.pid, answer, columns, whole=whole, chosen=bool(choice)):
        put(line_to_text(line, line.width, color=wants_color()))
    if len(shown) < len(chosen):
        more = len(chosen) - len(shown)
        put(f" … and {more} more group{'' if more == 1 else 's'}: --limit {len(chosen)}")
    elif not chosen and choice:
        put(f" No group of the {len(reply.groups)} is what these options choose.")


def _json(hello: Hello, host: str | None, reply: Waits, chosen: Sequence[Entry]) -> str:
    """Return the answer in the wire's form, with the chosen groups, after whose it is."""
    from msgspec import structs

    from openrtc_introspect_core.wire import to_json

    answer = json.loads(to_json(structs.replace(reply, groups=[entry.group for entry in chosen])))
    whose = {"worker": hello.worker, "pid": hello.pid, "host": host}
    return json.dumps({**whose, **answer}, ensure_ascii=False, separators=(",", ":"))
