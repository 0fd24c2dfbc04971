"""Printing blocks as they end, until Ctrl-C.

Every worker is followed, and reconnected when it is lost.
"""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import typer

from openrtc_top._cli.block_log import BlockHistory
from openrtc_top._cli.outcome import OK, say
from openrtc_top._cli.target import CommandTarget
from openrtc_top._client.follow import follow_all
from openrtc_top._client.loop import run_loop
from openrtc_top._model.blocks import Choice, entries
from openrtc_top._model.events import Blocked, Event, Found, Frame, Gone, Listed, Unanswered
from openrtc_top._model.workers import worker_label
from openrtc_top._view.unanswered import frozen_line

POLL_S = 0.5


def print_new(log: BlockHistory, choice: Choice, target: CommandTarget, known: Mapping[str, int]) -> int:
    """Print the blocks above the known numbers, which are by worker's key.

    Return the exit code.
    """
    try:
        return run_loop(_Feed(log, choice, target, known).run)
    except KeyboardInterrupt:
        return OK


class _Feed:
    def __init__(self, log: BlockHistory, choice: Choice, target: CommandTarget, known: Mapping[str, int]) -> None:
        self._log = log
        self._choice = choice
        self._target = target
        self._known = known
        self._names: dict[str, str] = {}
        self._hosts: dict[str, str | None] = {}
        self._lost: set[str] = set()
        self._frozen: set[str] = set()
        self._exit_code = OK

    async def run(self) -> int:
        never = anyio.Event()
        with anyio.CancelScope() as self._scope:
            await follow_all(
                self._target.find,
                POLL_S,
                self._dispatch,
                refreshed=lambda: never,
                wanted=self._target.wanted,
                since=self._known,
                relays=self._target.relays,
                hosts=self._target.hosts,
            )
        return self._exit_code

    def _dispatch(self, event: Event) -> None:
        try:
            self._print(event)
        except typer.Exit as end:  # nobody reads it any more
            self._exit_code = end.exit_code
            self._scope.cancel()

    def _print(self, event: Event) -> None:
        match event:
            case Found(key, name, _, host):
                self._hosts[key] = host
                self._names[key] = worker_label(host, name)
            case Frame(key, snapshot):
                self._names[key] = worker_label(self._hosts[key], snapshot.worker.name)
                if key in self._lost:
                    self._lost.discard(key)
                    say(f"{self._names[key]}: connected again")
                if key in self._frozen:
                    self._frozen.discard(key)
                    say(f"{self._names[key]}: answers again")
            case Unanswered(key, reading) if reading.held is not None and key not in self._frozen:
                self._frozen.add(key)
                say(frozen_line(self._names[key], reading))
            case Listed(str() as problem):
                say(f"--via-each: {problem}")
            case Gone(key, reason) if key not in self._lost:
                self._lost.add(key)
                say(f"{self._names[key]}: {reason}; trying again")
            case Blocked(key, blocks):
                for entry in entries(key, self._names[key], blocks, None):
                    if self._choice.accepts(entry.block):
                        self._log.show(entry)
