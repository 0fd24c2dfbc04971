"""A LoopMonitor on every event loop that runs during a test.

While a test is observed, core's `LoopStarts` reports each loop before it runs, so that even the loop's first task is
metered. When the test is over, all methods are the original ones again.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest

from openrtc_introspect_core import Block
from openrtc_introspect_core._loops.loop_starts import LoopStarts
from openrtc_introspect_core._loops.running_loop import Loop, running_loop

from .._loops.introspection_threads import is_ours
from .finding import Finding, finding_of
from .loop_monitor import LoopMonitor
from .session_mirror import SessionMirror


class LoopAttacher:
    """A context manager: every loop that runs inside it gets a monitor.

    threshold_ms: how long a block lasts at least, in milliseconds. root: the folder that files are shown relative to.
    """

    def __init__(self, threshold_ms: float, root: Path) -> None:
        self.threshold_ms = threshold_ms
        self.loops = 0
        """How many loops have had a monitor."""
        self.faults: list[str] = []
        """What kept loops from having a monitor."""
        self._root = root
        self._monitors: list[LoopMonitor] = []
        self._found: list[Finding] = []
        """The blocks of loops that are closed."""
        self._by_loop: dict[Loop, LoopMonitor] = {}
        self._of_fixture: LoopMonitor | None = None
        """The monitor that the test has as its fixture."""
        self._lock = threading.Lock()
        self._over = False
        self._patch = pytest.MonkeyPatch()
        self._starts = LoopStarts(self._attach_if_new, self._detach, self._guarded)

    def __enter__(self) -> LoopAttacher:
        with contextlib.ExitStack() as undo:
            undo.push(self.__exit__)
            self._starts.__enter__()
            SessionMirror(self._monitor_here, self._guarded).install(self._patch)
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over = True
        with self._lock:
            monitors, self._monitors = self._monitors, []
            self._by_loop.clear()
        with contextlib.ExitStack() as parts:  # each part ends, whatever the others raise
            for monitor in monitors:
                parts.callback(monitor.end)
            parts.callback(self._patch.undo)
            parts.callback(self._starts.__exit__, None, None, None)

    def introspector(self) -> LoopMonitor:
        """Return the monitor for the fixture.

        It is attached to the running loop, or else to the first loop that runs from now on.
        """
        if self._of_fixture is None:
            monitor = self._of_fixture = LoopMonitor(self.threshold_ms)
            running = running_loop()
            if running is not None:
                self._attach(monitor, running)
        return self._of_fixture

    def found(self) -> list[Finding]:
        """Return the blocks since the last call."""
        with self._lock:
            monitors = list(self._monitors)
            found, self._found = self._found, []
        return found + [self._finding(block, monitor) for monitor in monitors for block in monitor.new_blocks()]

    def _finding(self, block: Block, monitor: LoopMonitor) -> Finding:
        on_trio = not isinstance(monitor.loop, asyncio.AbstractEventLoop)
        return finding_of(block, folder=monitor.folder, root=self._root, on_trio=on_trio)

    # --- loops that begin and end ----------------------------------------------------------------

    def _attach_if_new(self, loop: Loop) -> bool:
        """Attach to a loop that has no monitor; return whether this call did."""
        try:
            waits = self._of_fixture if self._of_fixture is not None and self._of_fixture.loop is None else None
            if loop in self._by_loop and waits is None:
                return False
            # A replaced method may be called after the test is over: the next turn of a guest run does that.
            if self._over or is_ours(threading.current_thread()):
                return False
            self._attach(waits or LoopMonitor(self.threshold_ms), loop)
        except Exception as error:  # the test goes on without a monitor
            self.faults.append(f"{type(loop).__module__}.{type(loop).__qualname__}: {error!r}")
            return False
        return True

    def _attach(self, monitor: LoopMonitor, loop: Loop) -> None:
        before = self._by_loop.get(loop)
        if before is not None:
            before.end()
        monitor.begin(loop)
        with self._lock:
            self.loops += before is None
            ended = [each for each, its in self._by_loop.items() if its.loop_has_ended()]
            over = [self._by_loop.pop(each) for each in ended]
            self._by_loop[loop] = monitor
            self._monitors.append(monitor)
        for each in over:  # a test may run a thousand loops, one after the other
            each.end()

    def _detach(self, loop: Loop) -> None:
        """Keep what was found in a loop that ends, and not the loop."""
        with self._lock:
            monitor = self._by_loop.pop(loop, None)
        if monitor is not None:
            monitor.end()
            if monitor is not self._of_fixture:  # the test may go on to read its fixture
                with self._lock:
                    self._monitors.remove(monitor)
                self._found += [self._finding(block, monitor) for block in monitor.new_blocks()]

    def _monitor_here(self) -> LoopMonitor | None:
        """Return the monitor of the running loop, or None.

        If none runs here and one loop alone has a monitor, return that one.
        """
        running = running_loop()
        loops = [running] if running is not None else list(self._by_loop)
        return self._by_loop.get(loops[0]) if len(loops) == 1 else None

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        """Note an error as a fault, and keep it from the code under test."""
        try:
            yield
        except Exception as error:
            self.faults.append(f"{what}: {error!r}")
