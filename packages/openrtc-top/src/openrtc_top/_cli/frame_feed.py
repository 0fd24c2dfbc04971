"""Printing each frame of each worker as a line of JSON, until Ctrl-C."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import typer

from openrtc_top._cli.outcome import OK, put, say
from openrtc_top._cli.show import json_line
from openrtc_top._client.follow import follow_all
from openrtc_top._client.loop import run_loop
from openrtc_top._model.box_reading import overlaid
from openrtc_top._model.events import Dropped, Event, Found, Frame, Gone, Listed, Unanswered
from openrtc_top._model.rows import Filter, Sort
from openrtc_top._model.workers import worker_label
from openrtc_top._view.unanswered import frozen_line

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Snapshot
    from openrtc_top._cli.target import CommandTarget


def print_frames(target: CommandTarget, rate: float, chosen: Filter, sort: Sort | None, *, ascii: bool) -> int:
    """Print so many frames of each worker a second. Return the exit code."""
    try:
        return run_loop(_Feed(target, rate, chosen, sort, ascii=ascii).run)
    except KeyboardInterrupt:
        return OK


class _Feed:
    def __init__(self, target: CommandTarget, rate: float, chosen: Filter, sort: Sort | None, *, ascii: bool) -> None:
        self._target = target
        self._interval_s = 1 / rate
        self._chosen = chosen
        self._sort = sort
        self._ascii = ascii
        self._found: dict[str, tuple[str | None, str]] = {}
        """The workers: their hosts and names."""
        self._last: dict[str, Snapshot] = {}
        self._silent: set[str] = set()
        """The workers of which it was said that they are lost, or frozen."""
        self._exit_code = OK

    async def run(self) -> int:
        never = anyio.Event()
        with anyio.CancelScope() as self._scope:
            await follow_all(
                self._target.find,
                self._interval_s,
                self._dispatch,
                refreshed=lambda: never,
                wanted=self._target.wanted,
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
                self._found[key] = host, name
            case Frame(key, snapshot):
                if key in self._silent:
                    self._silent.discard(key)
                    say(f"{self._name(key)}: answers again")
                self._put(key, snapshot)
            case Unanswered(key, reading):
                if reading.held is not None and key not in self._silent:
                    self._silent.add(key)
                    say(frozen_line(self._name(key), reading))
                self._put(key, overlaid(self._last.get(key), reading))
            case Listed(str() as problem):
                say(f"--via-each: {problem}")
            case Gone(key, reason):
                self._last.pop(key, None)
                if key not in self._silent:
                    self._silent.add(key)
                    say(f"{self._name(key)}: {reason}; trying again")
            case Dropped(key):
                self._last.pop(key, None)

    def _name(self, key: str) -> str:
        return worker_label(*self._found[key])

    def _put(self, key: str, snapshot: Snapshot) -> None:
        self._last[key] = snapshot
        host, _ = self._found[key]
        self._found[key] = host, snapshot.worker.name
        put(json_line(snapshot, self._chosen, self._sort, host, ascii=self._ascii))
