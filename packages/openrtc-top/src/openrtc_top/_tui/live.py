"""The live view: tasks that turn news into events, and one that draws.

All of them end with the view; the terminal is put back, whatever happens.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import anyio

from openrtc_top._client.follow import follow_all
from openrtc_top._client.loop import run_loop
from openrtc_top._client.targets import Find, Hosts, Relay
from openrtc_top._model.events import Event, Frame, Gone, Key, Noticed, Shown, Tick, Unanswered
from openrtc_top._model.reducer import reduce, take_in
from openrtc_top._model.state import State
from openrtc_top._tui.config import ConfigError, write_columns
from openrtc_top._tui.keys import KeyDecoder
from openrtc_top._tui.terminal import Terminal
from openrtc_top._view.screen import Screen, render

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from openrtc_top._client.black_boxes import FindDead


ESCAPE_S = 0.05
"""A lone ESC that nothing follows for this long was the Escape key."""
REDRAW_S = 0.04
"""Frames that come closer together than this are drawn as one."""
CLOCK_S = 0.02
"""News that come within this time of each other come at the same moment."""
REST = 40.0
"""After each second of drawing, so many without, but no more than two periods, unless a key is pressed: of many workers
some frame comes always."""
_ENDINGS = {signal.SIGINT: 0, signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGHUP: 128 + signal.SIGHUP}
"""The signals that end the view, and the exit codes. SIGINT is Ctrl-C, as good a way out as q."""


Remember = Callable[[tuple[str, ...]], None]
"""A function that keeps the chosen columns for the next time. Raises ConfigError."""


def run(
    state: State,
    find: Find,
    *,
    rate: float,
    color: bool,
    ascii: bool = False,
    seconds: float | None = None,
    remember: Remember = write_columns,
    relays: Sequence[Relay] = (),
    hosts: Hosts | None = None,
    find_dead: FindDead = lambda live: (),
) -> int:
    """Show the workers that `find`, the `relays` and the `hosts` offer until the user quits.

    Return the exit code.
    """
    with Terminal(sys.stdout, keyboard(), color=color, ascii=ascii) as terminal:
        return run_loop(Live(state, find, terminal, rate, remember, relays, hosts, find_dead).run, seconds)


def keyboard() -> int | None:
    """Return the descriptor that keys are read from. None: stdin is no terminal."""
    try:
        return sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else None
    except (OSError, ValueError):
        return None


class Live:
    """The view on a terminal, and the tasks that feed it."""

    def __init__(
        self,
        state: State,
        find: Find,
        terminal: Terminal,
        rate: float,
        remember: Remember,
        relays: Sequence[Relay],
        hosts: Hosts | None,
        find_dead: FindDead,
    ) -> None:
        self._state = reduce(replace(state, period_s=1 / rate), Tick(time.monotonic()))
        self._find_dead = find_dead
        self._find = find
        self._relays = relays
        self._hosts = hosts
        self._terminal = terminal
        self._interval_s = 1 / rate
        self._exit_code = 0
        self._remember = remember
        self._remembered = state.columns

    async def run(self, seconds: float | None) -> int:
        """Run until the user quits, or for so many seconds. Return the exit code."""
        self._changed = anyio.Event()
        self._pressed = anyio.Event()
        self._refreshed = anyio.Event()
        # To the very end, which commands of --via may delay: a second Ctrl-C must not leave them behind.
        with anyio.open_signal_receiver(*_ENDINGS, signal.SIGWINCH, signal.SIGTSTP) as signals:
            with anyio.move_on_after(seconds):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._heed_signals, signals)
                    tasks.start_soon(self._read_keys)
                    self._feed(tasks)
                    await self._draw()
                    self._terminal.leave()
                    tasks.cancel_scope.cancel()
        return self._exit_code

    def _feed(self, tasks: TaskGroup) -> None:
        """Start the tasks that report the workers."""
        tasks.start_soon(
            partial(
                follow_all,
                self._find,
                self._interval_s,
                self._dispatch,
                refreshed=lambda: self._refreshed,
                wanted=lambda key: self._state.follows(key),
                inspects=lambda key: self._state.inspects(key),
                surveys=lambda key: self._state.surveys(key),
                relays=self._relays,
                hosts=self._hosts,
                find_dead=self._find_dead,
            )
        )
        tasks.start_soon(self._tick)

    def _screen(self, columns: int, lines: int) -> Screen:
        return render(self._state, (columns, lines), unicode=self._terminal.unicode)

    def _handle_key(self, name: str) -> None:
        self._dispatch(Key(name))
        self._pressed.set()

    def _dispatch(self, event: Event) -> None:
        before = self._state
        # The age of what is shown counts from the moment at which it came.
        late = isinstance(event, (Frame, Unanswered, Gone)) and time.monotonic() - before.now > CLOCK_S
        self._state = take_in(take_in(before, Tick(time.monotonic())) if late else before, event)
        if self._state.refreshes != before.refreshes:
            self._refreshed.set()
            self._refreshed = anyio.Event()
        if self._state.columns != self._remembered and (self._state.chooser is None or self._state.done):
            self._keep_columns()
        if self._state is not before:
            self._changed.set()

    def _keep_columns(self) -> None:
        self._remembered = self._state.columns
        try:
            self._remember(self._remembered)
        except ConfigError as error:
            self._state = reduce(self._state, Noticed(f"the columns are not remembered: {error}"))

    async def _draw(self) -> None:
        while not self._state.done:
            self._changed, self._pressed = anyio.Event(), anyio.Event()
            began = time.monotonic()
            self._state = self._state.derived_anew()
            screen = self._screen(*self._terminal.size())
            self._state = reduce(self._state, Shown(screen.top, screen.page_rows))
            try:
                self._terminal.draw(screen)
            except OSError:  # the terminal is gone
                return
            took_s = time.monotonic() - began
            await anyio.sleep(REDRAW_S)
            rest_s = min(2 * self._interval_s, REST * took_s)
            with anyio.move_on_after(max(0.0, rest_s - REDRAW_S)):
                await self._pressed.wait()
            await self._changed.wait()

    async def _tick(self) -> None:
        while True:
            await anyio.sleep(1)
            self._dispatch(Tick(time.monotonic()))

    async def _read_keys(self) -> None:
        keyboard = self._terminal.keys
        if keyboard is None:
            return
        decoder = KeyDecoder()
        while True:
            with anyio.move_on_after(ESCAPE_S if decoder.waiting else None) as timeout:
                await anyio.wait_readable(keyboard)
            if timeout.cancelled_caught:
                names = decoder.flush()
            else:
                data = b""
                with contextlib.suppress(OSError):
                    data = os.read(keyboard, 4096)
                names = decoder.feed(data) if data else ["q"]  # no data: the terminal was closed
            for name in names:
                self._handle_key(name)
            if self._state.done:
                return

    async def _heed_signals(self, signals: AsyncIterator[signal.Signals]) -> None:
        async for number in signals:
            if number in _ENDINGS:
                self._exit_code = _ENDINGS[number]
                self._dispatch(Key("q"))
                return
            if number == signal.SIGTSTP:
                self._suspend()
            self._terminal.forget()
            self._changed.set()

    def _suspend(self) -> None:
        """Give the terminal back at Ctrl-Z, until the process is in the foreground."""
        self._terminal.leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._terminal.enter()
