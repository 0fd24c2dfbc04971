"""Blocks as they end: every worker followed, reconnected when it is lost, until Ctrl-C."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import typer

from openrtc_top._blocks import Choice, entries
from openrtc_top._cli.blocklog import BlockLog
from openrtc_top._cli.outcome import OK, say
from openrtc_top._cli.target import Target
from openrtc_top._connection import follow_all
from openrtc_top._sockets import named
from openrtc_top._state import Blocked, Event, Found, Frame, Gone

POLL_S = 0.5


def print_new(log: BlockLog, choice: Choice, looked_at: Target, known: Mapping[str, int]) -> int:
    """Print the blocks above the known numbers, by worker's key. Returns the exit code."""
    try:
        return anyio.run(_Feed(log, choice, looked_at, known).run)
    except KeyboardInterrupt:
        return OK


class _Feed:
    def __init__(self, log: BlockLog, choice: Choice, looked_at: Target, known: Mapping[str, int]) -> None:
        self._log = log
        self._choice = choice
        self._looked_at = looked_at
        self._known = known
        self._names: dict[str, str] = {}
        self._hosts: dict[str, str | None] = {}
        self._lost: set[str] = set()
        self._exit_code = OK

    async def run(self) -> int:
        never = anyio.Event()
        with anyio.CancelScope() as self._scope:
            await follow_all(
                self._looked_at.find,
                POLL_S,
                self._dispatch,
                refreshed=lambda: never,
                wanted=self._looked_at.wanted,
                since=self._known,
                vias=self._looked_at.vias,
            )
        return self._exit_code

    def _dispatch(self, event: Event) -> None:
        try:
            self._tell(event)
        except typer.Exit as end:  # nobody reads it any more
            self._exit_code = end.exit_code
            self._scope.cancel()

    def _tell(self, event: Event) -> None:
        match event:
            case Found(key, name, _, host):
                self._hosts[key] = host
                self._names[key] = named(host, name)
            case Frame(key, snapshot):
                self._names[key] = named(self._hosts[key], snapshot.worker.name)
                if key in self._lost:
                    self._lost.discard(key)
                    say(f"{self._names[key]}: connected again")
            case Gone(key, reason) if key not in self._lost:
                self._lost.add(key)
                say(f"{self._names[key]}: {reason}; trying again")
            case Blocked(key, blocks):
                for entry in entries(key, self._names[key], blocks, None):
                    if self._choice.accepts(entry.block):
                        self._log.show(entry)
