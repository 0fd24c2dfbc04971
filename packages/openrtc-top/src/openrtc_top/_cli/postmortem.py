"""`openrtc postmortem`: what workers died of, from the black boxes that they left."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openrtc_top._cli import complete
from openrtc_top._cli.options import AllUsers, Sockets, ViaEach, Vias
from openrtc_top._cli.outcome import NO_WORKER, OK, USAGE, escaped, fail, is_terminal, put, say, wants_color, width
from openrtc_top._cli.target import CommandTarget, parse_target

if TYPE_CHECKING:
    from openrtc_top._model.box_reading import BoxReading

EPILOG = "Exit codes: 0 ok, 1 no worker died and left a black box that can be read, 2 wrong usage."


@dataclass(frozen=True, slots=True)
class _Found:
    """A dead worker's box, and where it is."""

    reading: BoxReading
    host: str | None = None
    user: str | None = None
    path: Path | None = None
    """The file, if it is to be removed once it was shown."""


def postmortem(
    workers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WORKER]...",
            help="Only the dead workers of these names or process ids. Without it: all.",
            autocompletion=complete.dead_worker,
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", metavar="", help="A JSON object a line for each worker: all that its black box says."),
    ] = False,
    keep: Annotated[
        bool,
        typer.Option("--keep", metavar="", help="Keep the boxes. Without it each is removed once it was shown."),
    ] = False,
    boxes: Annotated[
        list[Path] | None,
        typer.Option(
            "--box",
            metavar="PATH",
            help="This black box, which may be a copy from elsewhere. It is kept. Can be given several times.",
        ),
    ] = None,
    sockets: Sockets = None,
    vias: Vias = None,
    via_each: ViaEach = None,
    all_users: AllUsers = False,
) -> None:
    """Say what workers died of: when, what held the loop at which line, their memory, their sessions.

    A worker that is killed leaves its black box, for a day. It is removed once it was shown; boxes of other users and
    of other hosts are kept.
    """
    if boxes and (workers or sockets or vias or via_each or all_users):
        raise fail("--box names the black boxes itself; leave out WORKER, --socket, --via and --all-users", USAGE)
    if workers and sockets:
        raise fail("WORKER and --socket both say which workers; give one of them", USAGE)
    target = parse_target(sockets, workers, vias, all_users, via_each)
    shown = 0
    for found in _at(boxes) if boxes else _there(target) if target.remote else _here(target):
        if shown and not as_json:
            put("")
        _show(found, as_json=as_json)
        shown += 1
        if found.path is not None and not keep:
            _remove(found.path)
    if not shown:
        raise _nothing(target, boxes)
    raise typer.Exit(OK)


def _at(paths: Sequence[Path]) -> Iterator[_Found]:
    """Yield the boxes that were named."""
    from openrtc_introspect_core import BoxError
    from openrtc_top._client.black_boxes import read_box

    for path in dict.fromkeys(paths):
        try:
            reading = read_box(path)
        except BoxError as error:
            fail(str(error), NO_WORKER)
            continue
        if reading.alive:
            fail(f"black box {str(path)!r}: its worker lives; `openrtc top` shows it", NO_WORKER)
        else:
            yield _Found(reading)


def _here(target: CommandTarget) -> Iterator[_Found]:
    """Yield the dead workers of this machine, the one that died last at the end."""
    from openrtc_introspect_core import BoxError
    from openrtc_top._client.black_boxes import read_box
    from openrtc_top._client.targets import owner_name

    found: list[_Found] = []
    for file in target.boxes():
        try:
            reading = read_box(file.path, file.owner)
        except BoxError as error:
            fail(str(error), NO_WORKER)
            continue
        if not reading.alive:
            user = owner_name(file)
            found.append(_Found(reading, user=user, path=file.path if user is None else None))
    yield from sorted(found, key=lambda each: each.reading.at)


def _there(target: CommandTarget) -> Iterator[_Found]:
    """Yield the dead workers of other hosts, host by host. If a host cannot be reached, there is no other error."""
    found: list[_Found] = []
    with target.connected():
        reached = not target.unreached()
        for relay in target.all_relays:
            for dead in sorted(relay.dead, key=lambda each: -each.age_s):
                told = dead.error or relay.call(partial(relay.box, dead.box))
                if isinstance(told, str):
                    fail(f"{relay.label}: {told}", NO_WORKER)
                elif not told.alive:
                    found.append(_Found(told, host=relay.label, user=dead.user))
    if not found and not reached:
        raise typer.Exit(NO_WORKER)
    yield from found


def _show(found: _Found, *, as_json: bool) -> None:
    if as_json:
        put(_json(found))
        return
    from openrtc_top._model.workers import worker_label
    from openrtc_top._view.postmortem import report
    from openrtc_top._view.text import line_to_text

    name = found.reading.worker if found.user is None else worker_label(found.user, found.reading.worker)
    columns = width() if is_terminal() else None
    for line in report(found.reading, worker_label(found.host, name), columns):
        put(line_to_text(line, line.width, color=wants_color()))


def _json(found: _Found) -> str:
    from msgspec.json import encode

    document = {"host": found.host, "user": found.user, **json.loads(encode(found.reading))}
    document["trend_mb_per_min"] = found.reading.trend_mb_per_min
    return escaped(json.dumps(document, ensure_ascii=False, separators=(",", ":")))


def _remove(path: Path) -> None:
    from openrtc_introspect_core import BoxError
    from openrtc_introspect_core.black_box import remove_box

    try:
        remove_box(path)
    except BoxError as error:
        say(f"note: {error}")


def _nothing(target: CommandTarget, boxes: Sequence[Path] | None) -> typer.Exit:
    """Report that there is nothing to show. Return the exit to raise."""
    if boxes:
        return typer.Exit(NO_WORKER)
    where = f" at {', '.join(relay.label for relay in target.all_relays)}" if target.remote else ""
    wanted = f" of the name or process id {' or '.join(map(repr, target.names))}" if target.names else ""
    end = fail(f"no worker{wanted} has died{where} and left a black box", NO_WORKER)
    if not target.relays and not target.sockets:
        from openrtc_top._client.unseen import unseen

        for reason in unseen(target.all_users):
            say(reason)
    return end
