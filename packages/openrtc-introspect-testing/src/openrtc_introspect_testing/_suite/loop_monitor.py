"""The introspector that the plugin puts on one event loop of a test.

It uses core's parts that are not public, by `parts_of`.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from openrtc_introspect_core import Block, Introspector, StateError
from openrtc_introspect_core._blocks.watchdog import WATCHDOG_THREAD
from openrtc_introspect_core._introspector import parts_of
from openrtc_introspect_core._loops.running_loop import Loop, running_loop
from openrtc_introspect_core._service.service_thread import SERVICE_THREAD
from openrtc_introspect_core._sessions.scope import SessionScope


class LoopMonitor(Introspector):
    """An introspector of one loop that serves nothing and logs nothing.

    It finds blocks with or without sessions.

    It measures in real time on any loop: virtual time that a FakeLoop spends blocks no task.
    """

    def __init__(self, threshold_ms: float) -> None:
        super().__init__(
            name="pytest",
            socket_path=False,
            black_box=False,
            stall_log=None,
            slow_session_threshold_ms=threshold_ms,
        )
        self.folder = Path.cwd()
        """The folder that the blocks' files are relative to."""
        self.loop: Loop | None = None
        self._last_seq = 0
        parts_of(self).shared.history.logged = False  # the test's failure or the run's report shows each block

    def begin(self, loop: Loop) -> None:
        """Attach to the one loop that it measures."""
        self.attach(loop)
        self.loop = loop
        parts_of(self).watch_without_sessions()

    def session(self, session_id: str, **kwargs: Any) -> SessionScope:
        running = running_loop()
        if self.loop is not None and running is not None and running is not self.loop:
            raise StateError(
                "the fixture `introspector` measures the first loop that ran after it was set up, and this is another "
                "one: make an Introspector of your own here"
            )
        return super().session(session_id, **kwargs)

    def loop_has_ended(self) -> bool:
        """Return whether its loop will never run again."""
        return all(each.hook.ended() for each in parts_of(self).loops)

    def new_blocks(self) -> list[Block]:
        """Return the blocks since the last call."""
        blocks = self.blocks(since=self._last_seq)
        self._last_seq = blocks[-1].seq if blocks else self._last_seq
        return blocks

    def end(self) -> None:
        """Close, on the loop's own thread if the loop still runs in another one."""
        loop = self.loop
        here = asyncio._get_running_loop()
        if isinstance(loop, asyncio.AbstractEventLoop) and loop.is_running() and here is not loop:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(self.close)
                return
        self.close()


def end_threads() -> None:
    """Wait until introspection's threads have ended, unless someone needs them.

    They end by themselves, but the run of pytest may be over sooner.
    """
    for thread in (WATCHDOG_THREAD, SERVICE_THREAD):
        thread.end_if_idle(2.0)
