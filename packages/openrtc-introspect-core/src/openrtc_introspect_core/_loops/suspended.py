"""A task that does not run now, as a hook hands it out."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Literal, NamedTuple

from .._sessions.session import Session


class SuspendedTask(NamedTuple):
    """A task between two of its steps. It may go on as soon as the reader gives the GIL away."""

    task: Any
    session: Session | None
    """The session that is bound in the task's context. None: it is no session's."""
    coro: Any
    """The user's coroutine."""
    since: float | None
    """Clock reading of its last step's end; if only that of its session is known, that. None: neither is known, or the
    task has not begun."""
    state: Literal["waiting", "ready"]
    """"ready": it will run as soon as the loop gets to it."""
    binding: ContextVar[Any]
    """The context variable of the session that is bound, of this introspector."""
    future: Any = None
    """What the task awaits, by its own word. None: nothing, or it does not say, as Trio's."""
