"""The interface of hooks into event loops, for every kind of loop.

A hook tags tasks with their session, has each step metered into its loop's ledger, and times the loop's iterations if
the loop allows it. All methods run on the loop's own thread, except those that say "from any thread".
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, NamedTuple, Protocol

from .._accounting.ledger import Ledger
from .._os.stacks import Function, Places
from .._sessions.session import Session
from ..wire._messages import TaskInfo
from .callbacks import LoopCallbacks
from .greenlet_switches import GreenletSwitches
from .iterations import Fault, Iterations
from .stack_ends import StackEnds
from .suspended import SuspendedTask
from .task_starts import Note, TaskStarts


class Search(Protocol):
    """A search for the user of a connection, which goes on while its callback runs."""

    @property
    def user(self) -> Session | None:
        """Return the session that uses the connection. None: it is not known, or not known yet."""


class Running(NamedTuple):
    """The code that a loop's thread ran at one moment outside of metered steps; in them all is empty."""

    session: Session | None = None
    task: str | None = None
    """The task's name. None: no task's step."""
    callback: str | None = None
    """What is known of a connection's callback: the method, the other end. None: it is another callback."""
    signal: Function | None = None
    """The signal handler that ran. None: none did."""
    search: Search | None = None
    """The search for the session of a connection's callback. None: nothing is searched."""


class DelayedSessions(Protocol):
    """The sessions that a block of the loop delays."""

    available: bool
    """Whether this loop shows its queues; otherwise delayed sessions are not known."""

    def waiting(self, seconds: float) -> dict[Session, float]:
        """Return each session that waits now, and its wait in seconds.

        seconds: the length of the block that ends now; no wait is longer.
        """

    def ready(self, events: Any, /) -> set[Session]:
        """Return the sessions of the events that the loop found right after the block."""


class LoopHook(ABC):
    """Meters one loop."""

    kind: str
    """"asyncio", "uvloop", "trio", or the package that runs another loop."""
    delays: DelayedSessions
    callbacks: LoopCallbacks
    iterations: Iterations

    def __init__(self, ledger: Ledger, ends: frozenset[CodeType], *, meter: bool, on_fault: Fault) -> None:
        self.ledger = ledger
        self.ends = StackEnds(ends)
        self.meters = meter
        """Whether steps are timed."""
        self.thread = threading.current_thread()
        self.thread_id = threading.get_ident()
        self.on_moved: Callable[[], None] = _nothing
        """Called when another thread runs the loop than the one it was attached from."""
        self.on_one_context: Callable[[], None] = _nothing
        """Called on the loop's thread if the loop runs everything in one context, so that sessions are mixed up."""
        self._on_fault = on_fault
        self.greenlets = GreenletSwitches(on_fault)
        self.task_starts = TaskStarts(self, on_fault)

    # --- attaching -------------------------------------------------------------------------------

    @abstractmethod
    def attach(self) -> None: ...

    @abstractmethod
    def detach(self) -> None:
        """Restore everything that was changed, and then raise what prevented a part of it.

        From any thread.
        """

    @abstractmethod
    def loses_tasks(self) -> bool:
        """Return whether someone else replaced the method that sees tasks being created.

        From any thread.
        """

    @abstractmethod
    def is_loop(self, loop: Any) -> bool:
        """Return whether `loop` is the loop of this hook."""

    @abstractmethod
    def runs(self) -> bool:
        """Return whether the loop runs, on whatever thread. From any thread."""

    @abstractmethod
    def ended(self) -> bool:
        """Return whether the loop will never run again. From any thread."""

    @abstractmethod
    def runs_here(self) -> bool:
        """Return whether the calling code runs on this loop."""

    # --- tasks and scopes ------------------------------------------------------------------------

    @abstractmethod
    def enter_scope(self, session: Session, outer: Session | None) -> Any:
        """Charge the running code to `session` from now on.

        Return what `leave_scope` is to be given. outer: the session that was bound until now.
        """

    @abstractmethod
    def leave_scope(self, session: Session, entered: Any) -> None:
        """Stop charging the code to `session`; from any thread.

        `entered`: what `enter_scope` returned.
        """

    @abstractmethod
    def adopt_task(self, task: Any, session: Session) -> None:
        """Charge a suspended task to `session` until the task ends.

        The task was made outside of the session's scope.
        """

    @abstractmethod
    def rebind(self, before: Session | None) -> None:
        """Charge the running code to the session that is bound now, or to none.

        before: the session that was bound until now.
        """

    @abstractmethod
    def task_name(self) -> str | None:
        """Return the name of the task whose step runs or is being ended.

        None outside of tasks. From any thread.
        """

    @abstractmethod
    def tasks(self, session: Session, places: Places, *, first_id: int) -> list[TaskInfo]:
        """Return the session's live tasks on this loop by name, numbered from `first_id`.

        From any thread.

        At most one more than can be sent: the one more shows that there are more.
        """

    @abstractmethod
    def note_tasks(self, note: Note | None) -> None:
        """Call `note` with each new task and the frame that creates it from now on. None: no longer.

        From any thread.
        """

    @abstractmethod
    def live_tasks(self) -> list[Callable[[], Any]]:
        """Return a weak reference to each task that lives on this loop. From any thread, in slices."""

    @abstractmethod
    def stepped_at(self, task: Any) -> float | None:
        """Return the clock reading at the end of a suspended task's last step, at little cost.

        If only its session's last step is known, that one's. None: neither is. From any thread.
        """

    @abstractmethod
    def suspended_task(self, task: Any) -> SuspendedTask | None:
        """Return what a live task shows of itself.

        None: it runs now, has ended, is another loop's, or no task at all. From any thread.
        """

    def suspended(self) -> Iterator[SuspendedTask]:
        """Yield each task of this loop that does not run. From any thread.

        The GIL is not given away here: a reader of many does so between two of them.
        """
        for living in self.live_tasks():
            if (task := living()) is not None and (suspended := self.suspended_task(task)) is not None:
                yield suspended

    @abstractmethod
    def running_coroutine(self) -> Any:
        """Return the user's coroutine whose step runs, or is being ended. None: no task's does. From any thread."""

    @abstractmethod
    def running_session(self) -> Session | None:
        """Return the session whose task runs now, if steps are not metered.

        From any thread.
        """

    @abstractmethod
    def seen_running(self, frame: FrameType | None, end: FrameType | None) -> Running:
        """Return the code that runs outside of metered steps.

        From any thread, and cheap.

        frame: the innermost. end: the running frame that the code's own end at. The task itself is not returned: the
        result is kept, and would keep the task alive.
        """

    def begin_anew(self) -> None:
        """Count what holds the loop from now on: what did until now was introspection itself, which starts.

        On the loop's thread, at the end of attaching.
        """
        self.iterations.begin_anew()

    @abstractmethod
    def sessions_live(self, some: bool) -> None:
        """Take note that the first session has started, or the last one has ended.

        From any thread.
        """

    @abstractmethod
    def step_cost(self, ledger: Ledger) -> float:
        """Return the seconds that metering adds to one step on a loop of this kind.

        `ledger` is a spare one.
        """

    def follow_greenlets(self) -> None:
        """Follow switches of greenlets on the loop's thread, if greenlet has been loaded since. From any thread."""
        if self.runs() and self.greenlets.untraced():
            self._on_its_thread(self._trace_greenlets)

    # --- for hooks -------------------------------------------------------------------------------

    @abstractmethod
    def _on_its_thread(self, change: Callable[[], None]) -> None:
        """Call `change` on the loop's thread, or here if the loop does not run."""

    def _trace_greenlets(self) -> None:
        if self.runs_here():
            self.greenlets.trace()

    def _switch(self, before: Session | None, after: Session | None) -> None:
        """In mid-step, charge `after` from now on. before: the session that was bound until now."""
        ledger = self.ledger
        if ledger.holder is ledger.unsampled:
            ledger.switch_unsampled(ledger.account_of(before), ledger.account_of(after), self.task_name())
        else:
            ledger.switch(ledger.account_of(after))

    def _safely(self, change: Callable[[], None]) -> None:
        """Call `change` on the loop's behalf.

        What it raises is noted, and never reaches the loop: asyncio would only log it, and Trio would end the run. So
        an interrupt is noted as well.
        """
        try:
            change()
        except Exception as error:
            self._on_fault(f"what was to be changed on the loop's thread could not be: {error!r}", error)

    def _see_thread(self) -> None:
        """Take note that this thread runs the loop."""
        if self.thread_id != threading.get_ident():
            self.thread, self.thread_id = threading.current_thread(), threading.get_ident()
            self.on_moved()


def _nothing() -> None:
    pass
