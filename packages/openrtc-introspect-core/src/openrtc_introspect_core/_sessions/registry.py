"""The sessions of one introspector, and what their scopes need."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol

from .._base.clock import Clock
from .._base.errors import ArgumentError, StateError
from .._base.gil import copied
from .._base.notes import Notes
from .._base.units import MIB
from .failures import Failures
from .session import Binding, Session

HELD_BYTES = MIB
"""The bytes that an ended session must still hold to be listed."""
MAX_HELD = 256
"""The number of retired sessions kept that hold so much: the latest."""


class ScopeHook(Protocol):
    """A loop's hook, as far as scopes need one."""

    def enter_scope(self, session: Session, outer: Session | None) -> Any:
        """Charge the running code to `session` from now on.

        Return what `leave_scope` is to be given. outer: the session that was bound until now.
        """

    def leave_scope(self, session: Session, entered: Any) -> None:
        """Stop charging the code to `session`; from any thread.

        `entered`: what `enter_scope` returned.
        """

    def adopt_task(self, task: Any, session: Session) -> None:
        """Charge a suspended task to `session` until the task ends.

        The task was made outside of the session's scope.
        """

    def rebind(self, before: Session | None) -> None:
        """Charge the running code to the session that is bound now, or to none.

        before: the session that was bound until now.
        """


class LoopOfScope(Protocol):
    """A loop that a scope can be entered on."""

    @property
    def name(self) -> str: ...

    @property
    def hook(self) -> ScopeHook: ...


class SessionRegistry:
    """The live sessions by id, and counts of all sessions so far.

    Scopes are entered and left on any loop's thread: under `lock`, which also covers what follows from the first
    session's start and the last one's end.
    """

    def __init__(self, name: str, clock: Clock, notes: Notes) -> None:
        self._name = name
        self.clock = clock
        self.notes = notes
        self.binding: Binding = ContextVar(f"openrtc_session_of_{name}")
        self.failures = Failures()
        self.lock = threading.RLock()
        """Reentrant: a garbage collection that runs while it is held may end a forgotten scope."""
        self.live: dict[str, Session] = {}
        self.started = 0
        self.errored = 0
        self.state = "not started"
        """"not started", "open" or "closed": sessions can begin only while it is open."""
        self.loop_here: Callable[[], LoopOfScope | None] = lambda: None
        """Return the attached loop that the calling code runs on; None: no attached loop runs here."""
        self.on_live: Callable[[bool], None] = lambda some: None
        """Called, under the lock, when the first session has begun (True) or the last one has ended (False)."""
        self.given_back: Callable[[], int] | None = None
        """Return the bytes that all code has freed so far; None: memory by session is not measured."""
        self._ended: dict[int, Session] = {}
        """Ended sessions, by id(): their tasks may still run, and are still charged to them."""
        self._holding: deque[Session] = deque(maxlen=MAX_HELD)
        """The last retired sessions that have not freed what they allocated."""

    def check_open(self) -> None:
        """Raise StateError unless sessions can begin."""
        if self.state != "open":
            raise StateError(
                f"introspector {self._name!r} is {self.state}: its sessions go inside `async with Introspector(...)`"
            )

    def check_free(self, session_id: str) -> None:
        """Raise ArgumentError if a live session has this id."""
        held = self.live.get(session_id)
        if held is not None and not held.ended:
            raise ArgumentError(
                f"session id {session_id!r} is live already: an id is free again once its session has ended"
            )

    def add(self, session: Session) -> None:
        """List a session as live; under the lock.

        Raise ArgumentError if a live session has its id.
        """
        self.check_free(session.session_id)
        self.live[session.session_id] = session
        self.started += 1

    def remove(self, session: Session, *, error: BaseException | None = None) -> None:
        """List a live session as ended, by `error` if that is an Exception.

        A cancellation is no failure.
        """
        try:
            with self.lock:
                session.ended = True
                del self.live[session.session_id]
                self._ended[id(session)] = session
                self.errored += isinstance(error, Exception)
                if not self.live:
                    self.on_live(False)
        finally:  # an interrupt may come out of `on_live`
            if isinstance(error, Exception):
                self.failures.add(session, session.ended_at, error)

    def retire(self) -> list[Session]:
        """Remove and return ended sessions without tasks: their accounts can be closed.

        About once a second.
        """
        retired = [session for session in list(self._ended.values()) if session.tasks <= 0]
        for session in retired:
            del self._ended[id(session)]
            if session.held >= HELD_BYTES:
                self._holding.append(session)
        return retired

    def outlived(self, before: float) -> list[Session]:
        """Return sessions that ended before `before`, and have tasks that live on."""
        return [session for session in list(self._ended.values()) if session.ended_at < before and session.tasks > 0]

    def holding(self, since: float) -> list[Session]:
        """Return sessions that ended after `since` and hold memory, the largest first."""
        ended = [*self._ended.values(), *copied(self._holding)]
        held = [session for session in ended if session.held >= HELD_BYTES and session.ended_at > since]
        return sorted(held, key=lambda session: -session.held)
