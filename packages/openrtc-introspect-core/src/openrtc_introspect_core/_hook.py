"""What a hook into an event loop does and tells, whatever kind of loop it is.

A hook tags tasks with their session, has each step metered into its loop's ledger, and times the
loop's iterations where the loop lets it. Everything but `attach`, `detach` and what is said to be
for any thread runs on the loop's own thread.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection
from types import CodeType, FrameType
from typing import Any, Protocol

from ._interrupts import is_interrupt
from ._ledger import Ledger
from ._sessions import Session

LONG_S = 0.0005
"""Iterations shorter than this are not kept: the lag's resolution."""

Stall = Callable[[float, float], None]

Fault = Callable[[str, BaseException], None]
"""Takes what went wrong, in words, and the error."""


class Victims(Protocol):
    """Who waits for the loop."""

    known: bool
    """Whether this loop tells."""

    def waiting(self, seconds: float) -> dict[Session, float]:
        """The sessions that wait now, at the end of a block of so many seconds, and for how long."""

    def ready(self, events: Any, /) -> set[Session]:
        """The sessions that what was found right after the block is for."""


class LoopHook(ABC):
    """Meters one loop."""

    kind: str
    """"asyncio", "uvloop", "trio"."""
    ends: Collection[CodeType]
    """Where a task's or a callback's own frames end: outside of them are ours and the loop's."""
    drives_in_c = False
    """Whether neither the loop nor the meter has a frame outside of a task's."""
    victims: Victims

    def __init__(self, ledger: Ledger, *, meter: bool, on_stall: Stall, on_fault: Fault) -> None:
        self.ledger = ledger
        self.meters = meter
        """Whether steps are timed."""
        self.long_waits: deque[tuple[float, float]] = deque(maxlen=8192)
        """(when, seconds): iterations of a note-worthy length, or each heartbeat's lateness."""
        self.busy_since: float | None = None
        """When the iteration in progress began; None while the loop waits, and where iterations are not timed."""
        self.waiting_since = 0.0
        """When the loop last began to wait."""
        self.times_iterations = False
        self.wakes_watchdog = False
        """Whether the watchdog sleeps until the loop's next iteration."""
        self.on_wake: Callable[[], None] = _nothing
        self.after_block: Callable[[Any], None] | None = None
        """Called once, with what the loop finds to do next."""
        self.thread = threading.current_thread()
        self.thread_id = threading.get_ident()
        self.on_moved: Callable[[], None] = _nothing
        """Called where the loop is run by another thread than the one it was attached from."""
        self._on_stall = on_stall
        self._on_fault = on_fault

    # --- attaching -------------------------------------------------------------------------------

    @abstractmethod
    def attach(self) -> None: ...

    @abstractmethod
    def detach(self) -> None:
        """Gives back each thing that was touched, and then raises what kept it from that. From any thread."""

    @abstractmethod
    def loses_tasks(self) -> bool:
        """Whether what sees tasks being created was replaced by someone else's. From any thread."""

    @abstractmethod
    def is_loop(self, loop: Any) -> bool:
        """Whether this is the loop that is hooked into."""

    @abstractmethod
    def ended(self) -> bool:
        """Whether the loop will never run again. From any thread."""

    @abstractmethod
    def runs_here(self) -> bool:
        """Whether the calling code runs on this loop."""

    # --- tasks and scopes ------------------------------------------------------------------------

    @abstractmethod
    def enter_scope(self, session: Session) -> Any:
        """The running code's session is `session` from now on. Returns what `leave_scope` wants back."""

    @abstractmethod
    def leave_scope(self, session: Session, entered: Any) -> None:
        """The scope is left, maybe elsewhere than it was entered."""

    @abstractmethod
    def adopt_task(self, task: Any, session: Session) -> None:
        """A task that waits, made outside of the session's scope, is the session's until it ends."""

    @abstractmethod
    def task_name(self) -> str | None:
        """The name of the task whose step runs or is being ended. None outside of tasks. From any thread."""

    @abstractmethod
    def running_session(self) -> Session | None:
        """The session whose task runs, where steps are not metered. From any thread."""

    @abstractmethod
    def seen_running(self, end: FrameType | None) -> tuple[Session | None, str | None]:
        """(session, task's name) of what runs now outside of metered steps; `end` is the frame of one of `ends`.

        Cheap, and from any thread. Not the task itself: what is seen is kept, and would keep the task alive.
        """

    @abstractmethod
    def sessions_live(self, some: bool) -> None:
        """The first session has started, or the last one has ended. From any thread."""

    @abstractmethod
    def step_cost(self, books: Ledger) -> float:
        """Seconds that metering adds to one step on a loop of this kind; `books` are none that count."""

    # --- iterations ------------------------------------------------------------------------------

    @abstractmethod
    def runs(self) -> bool:
        """Whether the loop runs, on whatever thread. From any thread."""

    def idle(self, now: float) -> float | None:
        """Seconds the loop has waited, the wait in progress included; None where it does not tell.

        From any thread: what changed while it was read is read again.
        """
        while True:
            idle, busy_since, waiting_since = self.ledger.idle, self.busy_since, self.waiting_since
            if idle is None:
                return None
            if idle == self.ledger.idle and busy_since == self.busy_since:
                resting = waiting_since if busy_since is None else now if self.runs() else busy_since
                return idle + max(0.0, now - resting)

    def stuck_since(self, now: float) -> float | None:
        """Since when the loop has got to nothing new; None where it waits or is stopped. From any thread."""
        since = self.busy_since
        return since if since is not None and self.runs() else None

    def _iterated(self, since: float, until: float) -> None:
        try:
            self.long_waits.append((until, until - since))
            if until - since > self.ledger.limit:
                self._on_stall(since, until)
        except Exception as error:
            if is_interrupt(error):
                raise
            self._on_fault(f"an iteration could not be booked: {error!r}", error)

    def _overslept(self, due: float, woke: float) -> None:
        """The wait ended far later than it should have: another thread kept the GIL, or the host the processor."""
        if self.ledger.idle is not None:
            self.ledger.idle -= woke - due
        self._iterated(due, woke)

    def _call_after_block(self, found: Any) -> None:
        then, self.after_block = self.after_block, None
        try:
            if then is not None:
                then(found)
        except Exception as error:
            if is_interrupt(error):
                raise
            self._on_fault(f"what waited for a block could not be booked: {error!r}", error)

    def _safely(self, change: Callable[[], None]) -> None:
        """Called by the loop: what it raises is no error of the loop's."""
        try:
            change()
        except Exception as error:
            self._on_fault(f"what was to be changed on the loop's thread could not be: {error!r}", error)

    def _moved_here(self) -> None:
        self.thread, self.thread_id = threading.current_thread(), threading.get_ident()
        self.on_moved()


def _nothing() -> None:
    pass
