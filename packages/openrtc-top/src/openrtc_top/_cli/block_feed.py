"""Printing blocks as they end, until Ctrl-C.

Every worker is followed, and reconnected when it is lost.
"""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import typer

from openrtc_top._cli.block_log import BlockHistory
from openrtc_top._cli.outcome import OK
from openrtc_top._cli.target import CommandTarget
from openrtc_top._cli.worker_log import WorkerLog
from openrtc_top._client.follow import follow_target
from openrtc_top._client.loop import run_loop
from openrtc_top._model.blocks import Choice, entries
from openrtc_top._model.events import Blocked, Event

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
        self._workers = WorkerLog()
        self._exit_code = OK

    async def run(self) -> int:
        with anyio.CancelScope() as self._scope:
            await follow_target(self._target, POLL_S, self._dispatch, self._known)
        return self._exit_code

    def _dispatch(self, event: Event) -> None:
        try:
            self._print(event)
        except typer.Exit as end:  # nobody reads it any more
            self._exit_code = end.exit_code
            self._scope.cancel()

    def _print(self, event: Event) -> None:
        self._workers.take(event)
        if isinstance(event, Blocked):
            for entry in entries(event.worker, self._workers.label(event.worker), event.blocks, None):
                if self._choice.accepts(entry.block):
                    self._log.show(entry)
