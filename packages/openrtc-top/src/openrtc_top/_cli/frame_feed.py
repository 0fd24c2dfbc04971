"""Printing each frame of each worker as a line of JSON, until Ctrl-C."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import typer

from openrtc_top._cli.outcome import OK, put
from openrtc_top._cli.show import json_line
from openrtc_top._cli.worker_log import WorkerLog
from openrtc_top._client.follow import follow_target
from openrtc_top._client.loop import run_loop
from openrtc_top._model.box_reading import overlaid
from openrtc_top._model.events import Dropped, Event, Frame, Gone, Unanswered
from openrtc_top._model.rows import Filter, Sort

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
        self._log = WorkerLog()
        self._last: dict[str, Snapshot] = {}
        self._exit_code = OK

    async def run(self) -> int:
        with anyio.CancelScope() as self._scope:
            await follow_target(self._target, self._interval_s, self._dispatch)
        return self._exit_code

    def _dispatch(self, event: Event) -> None:
        try:
            self._print(event)
        except typer.Exit as end:  # nobody reads it any more
            self._exit_code = end.exit_code
            self._scope.cancel()

    def _print(self, event: Event) -> None:
        self._log.take(event)
        match event:
            case Frame(key, snapshot):
                self._put(key, snapshot)
            case Unanswered(key, reading):
                self._put(key, overlaid(self._last.get(key), reading))
            case Gone(key) | Dropped(key):
                self._last.pop(key, None)

    def _put(self, key: str, snapshot: Snapshot) -> None:
        self._last[key] = snapshot
        put(json_line(snapshot, self._chosen, self._sort, self._log.hosts[key], ascii=self._ascii))
