"""`openrtc wait`: for scripts, ends once a worker or a session fulfils a condition."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from openrtc_top._cli import complete
from openrtc_top._cli.options import AllUsers, Sockets, ViaEach, Vias, Workers, check_condition, parse_seconds
from openrtc_top._cli.outcome import NO_WORKER, OK, TIMED_OUT, fail, put, say
from openrtc_top._cli.target import parse_target

if TYPE_CHECKING:
    import anyio

    from openrtc_introspect_core.wire import Snapshot
    from openrtc_top._cli.target import CommandTarget
    from openrtc_top._model.condition import Condition, Fulfilled
    from openrtc_top._model.events import Event

EPILOG = (
    "Exit codes: 0 the condition is met, 1 the time is over and no worker answers, 2 wrong usage, "
    "4 the time is over and the condition is not met."
)
POLL_S = 0.5


def wait(
    until: Annotated[
        str,
        typer.Option(
            "--until",
            metavar="CONDITION",
            parser=check_condition,
            autocompletion=complete.condition,
            help="active, slow, blocked, draining, errored; the wire's fields of sessions and workers, with < <= == != "
            ">= >; and, or, not, parentheses. count(…) is the number of a worker's sessions of which that is true.",
        ),
    ],
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="SECONDS", parser=parse_seconds, help="Wait no longer. Without it: until Ctrl-C."
        ),
    ] = None,
    sockets: Sockets = None,
    workers: Workers = None,
    vias: Vias = None,
    via_each: ViaEach = None,
    all_users: AllUsers = False,
) -> None:
    """Wait until a worker fulfils the condition, itself or with one of its sessions, and print which one.

    The whole condition is asked about one of them at a time, twice a second. Workers that start meanwhile count too.

    As in --until "blocked or lag_p99 > 200", or --until "agent == 'dental' and cpu_pct > 50", or --until "sessions
    == 0".
    """
    from openrtc_top._client.loop import run_loop
    from openrtc_top._model.condition import parse

    target = parse_target(sockets, workers, vias, all_users, via_each)
    if not target.remote and not target.find():
        from openrtc_top._client.unseen import searched, unseen

        named = f" {' or '.join(map(repr, workers))}" if workers else ""
        say(f"no worker{named} runs so far: waiting for one")
        for line in unseen(all_users) or [searched()]:
            say(line)
    waiter = _Waiter(parse(until), target)
    try:
        run_loop(waiter.run, timeout)
    except KeyboardInterrupt:
        raise typer.Exit(128 + 2) from None
    if waiter.met is not None:
        put(waiter.met)
        raise typer.Exit(OK)
    if not waiter.answering:
        raise fail(f"no worker {'answers' if waiter.log.hosts else 'runs'} after {timeout:g} s", NO_WORKER)
    answering = len(waiter.answering)
    counted = "the worker" if answering == 1 else f"any of {answering} workers"
    raise fail(f"{until!r} is not true of {counted} after {timeout:g} s", TIMED_OUT)


class _Waiter:
    """Follows the workers until one of them fulfils the condition."""

    def __init__(self, condition: Condition, target: CommandTarget) -> None:
        from openrtc_top._cli.worker_log import WorkerLog

        self.met: str | None = None
        """Who has fulfilled it, in one line. None: nobody."""
        self.answering: dict[str, Snapshot] = {}
        """The last snapshots of the workers that answer, or whose black boxes do."""
        self.log = WorkerLog()
        self._condition = condition
        self._target = target
        self._began = time.monotonic()
        self._scope: anyio.CancelScope

    async def run(self, seconds: float | None) -> None:
        import anyio

        from openrtc_top._client.follow import follow_target

        with anyio.move_on_after(seconds) as self._scope:
            await follow_target(self._target, POLL_S, self._dispatch)

    def _dispatch(self, event: Event) -> None:
        from openrtc_top._model.box_reading import overlaid
        from openrtc_top._model.events import Dropped, Frame, Gone, Unanswered

        self.log.take(event)
        match event:
            case Frame(key, snapshot):
                self._ask(key, snapshot)
            case Unanswered(key, reading):
                self._ask(key, overlaid(self.answering.get(key), reading))
            case Gone(key) | Dropped(key):
                self.answering.pop(key, None)

    def _ask(self, key: str, snapshot: Snapshot) -> None:
        self.answering[key] = snapshot
        found = self._condition.by(snapshot)
        if found is not None and self.met is None:
            self.met = self._line(key, snapshot, found)
            self._scope.cancel()

    def _line(self, key: str, snapshot: Snapshot, found: Fulfilled) -> str:
        from openrtc_top._view.line import visible

        who = f"{self.log.label(key)} (pid {snapshot.worker.pid})"
        if (row := found.session) is not None:
            who = f"{row.session_id} ({row.agent_name}) of {who}"
        return visible(f"met after {time.monotonic() - self._began:.1f} s: {who}")
