"""`openrtc demo`: a worker with one culprit among good sessions, and the view."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openrtc_top._cli.options import parse_seconds, parse_sessions
from openrtc_top._cli.outcome import NO_WORKER, OK, fail, is_terminal, wants_color
from openrtc_top._demo.process import CULPRIT, DemoFailed, demo_worker

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Snapshot

SEEN_WITHIN_S = 6.0
SETTLED_S = 2.0
POLL_S = 0.25


def demo(
    once: Annotated[
        bool,
        typer.Option(
            "--once",
            metavar="",
            help="Wait a few seconds until the culprit was seen, print one snapshot and exit; "
            "so it does if stdout is no terminal.",
        ),
    ] = False,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", metavar="N", parser=parse_seconds, help="End by itself after so long."),
    ] = None,
    sessions: Annotated[
        int,
        typer.Option("--sessions", metavar="N", parser=parse_sessions, help="So many well-behaved sessions."),
    ] = 12,
) -> None:
    """Watch a worker of well-behaved sessions, one that blocks and one that is busy.

    The worker is a process of its own and ends with this command.
    """
    try:
        with demo_worker(sessions) as socket:
            show = _live if is_terminal() and not once else _once
            code = show(socket, seconds)
    except DemoFailed as error:
        raise fail(str(error), NO_WORKER) from None
    raise typer.Exit(code)


def _live(socket: Path, seconds: float | None) -> int:
    from openrtc_top._cli.show import live_state
    from openrtc_top._client.targets import worker_at
    from openrtc_top._model.rows import Filter
    from openrtc_top._tui.live import run

    worker = worker_at(socket)
    return run(live_state(None, Filter(), None), lambda: [worker], rate=1.0, color=wants_color(), seconds=seconds)


def _once(socket: Path, seconds: float | None) -> int:
    from openrtc_top._cli.show import print_once, with_blocks
    from openrtc_top._client.query import read
    from openrtc_top._client.targets import worker_at
    from openrtc_top._model.box_reading import BoxReading
    from openrtc_top._model.events import Frame
    from openrtc_top._model.reducer import reduce
    from openrtc_top._model.state import State

    worker = worker_at(socket)
    state = State()
    deadline = time.monotonic() + (SEEN_WITHIN_S if seconds is None else seconds)
    while True:
        answer = read(worker)
        if isinstance(answer, Exception):
            raise fail(f"the demo worker does not answer: {answer}", NO_WORKER)
        if isinstance(answer, BoxReading):  # the machine is busy
            continue
        state = reduce(state, Frame(str(worker.path), answer))
        if time.monotonic() >= deadline or (seconds is None and _culprit_seen(answer)):
            break
        time.sleep(POLL_S)
    print_once(with_blocks(state, [(worker, answer)]))
    return OK


def _culprit_seen(snapshot: Snapshot) -> bool:
    """Return whether the culprit has blocked, and the worker knows shares by now."""
    blocked = any(session.session_id == CULPRIT and session.blocks for session in snapshot.sessions)
    return blocked and snapshot.worker.uptime_s > SETTLED_S
