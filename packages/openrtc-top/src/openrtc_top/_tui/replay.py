"""The live view's other feed: a recording, at the moment that the keys choose."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from openrtc_top._model.events import Event, Inspected, Surveyed
from openrtc_top._model.page import Inspection
from openrtc_top._model.playback import Playback
from openrtc_top._model.reducer import reduce
from openrtc_top._model.state import State
from openrtc_top._model.waits import Survey
from openrtc_top._tui.live import Live, Remember, keyboard
from openrtc_top._tui.terminal import Terminal
from openrtc_top._view.playback import playback_line
from openrtc_top._view.screen import Screen

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from openrtc_top._recording.tape import Tape

_NOT_RECORDED = Inspection(problem="a recording does not hold the tasks and stacks of sessions")
_NO_WAITS = Survey(None, "a recording does not hold what tasks wait for")


def show(state: State, tape: Tape, frame: int) -> State:
    """Return the state with the workers as they were at this frame."""
    at = replace(state, now=tape.times[frame], period_s=tape.first.interval_s, live_workers=None)
    return at.showing(tape.workers(frame))


def run(state: State, tape: Tape, *, color: bool, ascii: bool, remember: Remember) -> int:
    """Replay on the terminal until the user quits. Return the exit code."""
    with Terminal(sys.stdout, keyboard(), color=color, ascii=ascii) as terminal:
        return anyio.run(_Replay(state, tape, terminal, remember).run, None)


class _Replay(Live):
    def __init__(self, state: State, tape: Tape, terminal: Terminal, remember: Remember) -> None:
        super().__init__(state, list, terminal, 1.0, remember, (), None, lambda live: ())
        self._tape = tape
        self._playback = Playback(tape.times, cut_off=tape.cut_off)
        self._steered = anyio.Event()
        self._state = show(self._state, tape, 0)

    def _feed(self, tasks: TaskGroup) -> None:
        tasks.start_soon(self._play)

    async def _play(self) -> None:
        due = anyio.current_time()
        while True:
            wait_s = self._playback.wait_s()
            due = max(due + (wait_s or 0.0), anyio.current_time())  # so that the time for drawing is made up for
            self._steered = anyio.Event()
            with anyio.CancelScope(deadline=math.inf if wait_s is None else due) as waited:
                await self._steered.wait()
            if waited.cancelled_caught:
                self._go(self._playback.next())
            else:
                due = anyio.current_time()

    def _go(self, playback: Playback) -> None:
        moved = playback.frame != self._playback.frame
        self._playback = playback
        if moved:
            self._state = show(self._state, self._tape, playback.frame)
            self._say_what_is_missing()
        self._changed.set()

    def _handle_key(self, name: str) -> None:
        typing = self._state.editing or self._state.chooser is not None
        steered = None if typing else self._playback.handle_key(name)
        if steered is None:
            super()._handle_key(name)
            return
        self._go(steered)
        self._steered.set()

    def _dispatch(self, event: Event) -> None:
        super()._dispatch(event)
        self._say_what_is_missing()

    def _say_what_is_missing(self) -> None:
        """Answer for the workers what a recording does not hold."""
        page = self._state.page
        if page is not None and page.inspection is None:
            self._state = reduce(self._state, Inspected(*page.identity, _NOT_RECORDED))
        if self._state.view == "waits":
            for worker in self._state.scope:
                if worker.survey is None:
                    self._state = reduce(self._state, Surveyed(worker.key, _NO_WAITS))

    def _screen(self, columns: int, lines: int) -> Screen:
        screen = super()._screen(columns, max(1, lines - 1))
        return replace(screen, lines=[*screen.lines[: lines - 1], playback_line(self._playback, columns)])
