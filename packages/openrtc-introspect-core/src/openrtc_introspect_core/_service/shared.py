"""The parts of one introspector that all its loops share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._accounting.gc_monitor import GcMonitor
from .._accounting.thread_calls import ThreadCalls
from .._base.clock import Clock, WallTime
from .._base.notes import Notes
from .._blocks.history import BlockHistory
from .._blocks.watchdog import Watchdog
from .._loops.hook import LoopHook
from .._loops.sampler import Sampler
from .._os.stacks import Places
from .._os.thread_usage import HostPressure
from .._sessions.registry import SessionRegistry
from .._sessions.settings import Settings
from .._waits.thread_starts import ThreadStarts
from .._waits.wait_sampler import WaitSampler

if TYPE_CHECKING:  # loaded when needed: programs that only import the package do not wait for them
    from .._accounting.heap import Heap
    from ..black_box._writer import BoxWriter


@dataclass(slots=True)
class Shared:
    """The parts of one introspector.

    They are made with it; `heap`, `waits`, `watchdog`, `sampler`, `box` and `stall_log_fd` at its start, if its
    settings ask for them.
    """

    settings: Settings
    clock: Clock
    wall: WallTime
    notes: Notes
    sessions: SessionRegistry
    history: BlockHistory
    places: Places
    pressure: HostPressure
    gc_monitor: GcMonitor
    thread_calls: ThreadCalls
    thread_starts: ThreadStarts
    heap: Heap | None = None
    """None: memory by session is not measured."""
    waits: WaitSampler | None = None
    """None: steps are not timed."""
    watchdog: Watchdog | None = None
    sampler: Sampler | None = None
    box: BoxWriter | None = None
    """The black box. None: it is not wanted, or could not be made; a note says so."""
    hooks: Callable[[], list[LoopHook]] = list
    """Returns the hooks of all loops that are attached now."""
    hold_seen: Callable[[float], None] = lambda now: None
    """Called on the watchdog's thread, with the clock reading, for each sample of what has held a loop for longer than
    the threshold, if no thread in C records that."""
    stall_log_fd: int | None = None
    """The descriptor that a block is described to while it lasts. None: it goes nowhere."""

    @property
    def threads(self) -> list[Watchdog | Sampler]:
        """Return introspection's own threads except the service thread."""
        return [thread for thread in (self.sampler, self.watchdog) if thread is not None]
