"""Blocks on stdout: a table that grows, or JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from openrtc_top._cli.outcome import escaped, is_terminal, put, wants_color, width
from openrtc_top._model.blocks import Choice, Entry
from openrtc_top._model.delays import pair_delays
from openrtc_top._view import blocks as table
from openrtc_top._view.delays import delay_table
from openrtc_top._view.line import Line
from openrtc_top._view.text import line_to_text

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Block, Snapshot, WorkerSocket


class BlockHistory:
    """Prints blocks, in columns that are chosen once.

    They fit the terminal's width; in a pipe nothing is cut.
    """

    def __init__(
        self,
        histories: Sequence[tuple[WorkerSocket, Snapshot, Sequence[Block]]],
        chosen: Sequence[Entry],
        *,
        stacks: bool,
        delayed: bool,
        as_json: bool,
        follows: bool,
    ) -> None:
        self._stacks = stacks
        self._delayed = delayed
        self._as_json = as_json
        self._width = width() if is_terminal() else None
        self._color = wants_color()
        # Sessions without a block so far may be the next to block.
        sessions = [session for _, snapshot, _ in histories if follows for session in snapshot.sessions]
        names = {(session.session_id, session.agent_name) for session in sessions}
        self._several = len(histories) > 1
        self._form = table.columns(chosen, self._width, workers=self._several, names=names)
        if not as_json:
            self._put(table.heading(self._form))

    def show(self, entry: Entry) -> None:
        """Print one block, and below it what was asked for."""
        if self._as_json:
            from openrtc_introspect_core.wire import to_json

            put(escaped(to_json(entry.block).decode()))
            return
        self._put(table.row(entry, self._form))
        if self._stacks:
            for line in table.stack(entry.block, self._width):
                self._put(line)
        delayed = table.delayed(entry.block, self._width) if self._delayed else None
        if delayed is not None:
            self._put(delayed)

    def show_delays(self, found: Sequence[Entry], choice: Choice) -> None:
        """Print who delayed whom, if anyone did."""
        pairs = pair_delays(found, choice.sessions)
        if pairs:
            put("")
            for line in delay_table(pairs, workers=self._several):
                self._put(line)

    def _put(self, line: Line) -> None:
        put(line_to_text(line, line.width if self._width is None else self._width, color=self._color))
