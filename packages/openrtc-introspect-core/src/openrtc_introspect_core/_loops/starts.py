"""The starts of live threads or tasks: each with the line that started it, and the session bound there."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any, NamedTuple

from .._os.stacks import Call
from .._sessions.session import Session

MAX_PLACES = 1000
"""The most places for which starts are counted."""

Names = tuple[str, str, str | None]
"""A session's id, agent and tenant. The session itself is not kept: what it has started may outlive it."""


class Start(NamedTuple):
    """The start of one thread or task."""

    call: Call | None
    """The user's line that led to it. None: there was none."""
    function: str
    """The qualified name of what it runs."""
    session: Names | None
    """The session that was bound. None: none was."""


class Starts:
    """The starts that were seen, of what lives. It is written on any thread, a thing by its own, and read from any."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], Start]] = {}
        """By id, until the thing is freed: one of the host's need not be hashable."""
        self.started: Counter[tuple[Call | None, str]] = Counter()
        """How many have been started, by place and function."""

    def note(self, thing: Any, start: Start) -> None:
        """Note a start. Raise TypeError if nothing can refer to the thing weakly."""
        key = id(thing)
        self._known[key] = weakref.ref(thing, lambda _: self._known.pop(key, None)), start
        place = start.call, start.function
        if place in self.started or len(self.started) < MAX_PLACES:
            self.started[place] += 1

    def of(self, thing: Any) -> Start | None:
        """Return where a thing was started. None: nobody saw."""
        known = self._known.get(id(thing))
        return known[1] if known is not None and known[0]() is thing else None


def names_of(session: Session | None) -> Names | None:
    """Return how a session is named."""
    return (session.session_id, session.agent_name, session.tenant) if session is not None else None
