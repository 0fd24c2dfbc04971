"""The live view, the printed table and the JSON of `openrtc top`."""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from openrtc_top._cli.outcome import escaped, put, say, wants_color, width
from openrtc_top._cli.target import CommandTarget
from openrtc_top._model.columns import DEFAULT, SORTS
from openrtc_top._model.rows import Filter, Row, Sort, arrange
from openrtc_top._view.encoding import encodable

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Snapshot, WorkerSocket
    from openrtc_top._model.box_reading import BoxReading
    from openrtc_top._model.state import State

    Answers = Sequence[tuple[WorkerSocket, Snapshot | BoxReading]]

DEFAULT_SORT = "cpu_pct"
GC_THRESHOLD = 50_000
"""Objects made before the live view looks for cycles."""


def live_state(sort: str | None, chosen: Filter, columns: str | None, answers: Answers = ()) -> State:
    """Return the live view's first state.

    It has the remembered columns, unless some are named now.
    """
    from openrtc_top._tui.config import ConfigError, read_columns

    state = first_state(sort, chosen, columns, answers)
    if columns:
        return state
    try:
        return replace(state, columns=read_columns())
    except ConfigError as error:
        say(f"warning: {error}; the default columns are shown")
        return replace(state, notice=f"{error}; the default columns are shown")


def first_state(sort: str | None, chosen: Filter, columns: str | None, answers: Answers = ()) -> State:
    from openrtc_top._client.targets import host_of
    from openrtc_top._model.box_reading import BoxReading
    from openrtc_top._model.events import Found, Frame, Unanswered
    from openrtc_top._model.reducer import reduce
    from openrtc_top._model.state import State

    named = tuple(columns.split(",")) if columns else DEFAULT
    state = State(
        sort=SORTS[sort or DEFAULT_SORT],
        filter=chosen,
        columns=named,
        always=frozenset(named) if columns else frozenset(),
    )
    for worker, answer in answers:
        key = str(worker.path)
        state = reduce(state, Found(key, worker.name, worker.pid, host_of(worker)))
        state = reduce(state, Unanswered(key, answer) if isinstance(answer, BoxReading) else Frame(key, answer))
    return state


def with_dead(state: State, target: CommandTarget, live: Sequence[WorkerSocket]) -> State:
    """Return the state with the workers that died."""
    from openrtc_top._client.black_boxes import find_dead

    return replace(state, dead=tuple(find_dead(target, live)))


def with_blocks(state: State, answers: Answers) -> State:
    """Return the state with the blocks that ended lately.

    Their places are not in a snapshot. While a loop is held, the block in progress is what counts, and the answer
    must come at once.
    """
    from openrtc_top._model.box_reading import BoxReading

    snapshots = [(worker, answer) for worker, answer in answers if not isinstance(answer, BoxReading)]
    if len(snapshots) < len(answers) or any(snapshot.blocks_in_progress for _, snapshot in snapshots):
        return state
    from openrtc_top._client.query import read_all_blocks
    from openrtc_top._model.events import Blocked
    from openrtc_top._model.reducer import reduce

    for worker, blocks in read_all_blocks([worker for worker, snapshot in snapshots if snapshot.worker.blocks]):
        if not isinstance(blocks, Exception):
            state = reduce(state, Blocked(str(worker.path), blocks))
    return state


def print_once(state: State, *, ascii: bool = False) -> None:
    """Print what the live view would show, with all its rows."""
    from openrtc_top._view.screen import render_once
    from openrtc_top._view.text import to_text

    columns = width()
    screen = render_once(state, columns)
    text = to_text(screen, columns, len(screen.lines), color=wants_color())
    put(encodable(text, "ascii") if ascii else text)


def json_line(
    snapshot: Snapshot, chosen: Filter, sort: Sort | None, host: str | None = None, *, ascii: bool = False
) -> str:
    """Return a snapshot in the wire's form, with only the chosen sessions.

    Without a sort they are in the worker's order. A worker that is not this user's on this machine has its `host`.
    """
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
    if host is not None:
        text = f'{text[:-1]},"host":{json.dumps(host, ensure_ascii=False)}}}'
    return json.dumps(json.loads(text), separators=(",", ":")) if ascii else escaped(text)


def run_live(
    state: State, found: Sequence[WorkerSocket], target: CommandTarget, rate: float, *, ascii: bool = False
) -> int:
    """Run the live view.

    Workers that start later are found too, unless sockets were named.
    """
    from openrtc_top._client.black_boxes import dead_finder
    from openrtc_top._client.targets import host_of
    from openrtc_top._model.events import Found
    from openrtc_top._model.reducer import reduce
    from openrtc_top._tui.live import run

    for worker in found:
        state = reduce(state, Found(str(worker.path), worker.name, worker.pid, host_of(worker)))
    # A screen of many sessions makes as many rows, and next to no cycles: they are not worth a collection each time.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    return run(
        state,
        target.find,
        rate=rate,
        color=wants_color(),
        ascii=ascii,
        relays=target.relays,
        hosts=target.hosts,
        find_dead=dead_finder(target),
    )
