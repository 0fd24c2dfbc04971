"""The user of a connection for which no task waits: the only session whose tasks hold the connection.

A connection that a session has opened may be a pool's, and serve another one by now. Whoever uses it has it near at
hand: in the variables of its tasks' functions, or in what these refer to. So the suspended tasks are searched, a part
with each stall sample, while no task runs: a callback does. Only references are followed, as the garbage collector sees
them, so no code of the host runs.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from types import CellType
from typing import Any

from .._sessions.session import Session
from .asyncio_names import coro_of, waiter_of
from .await_chain import suspended_in
from .connections import CONTAINERS, NOT_FOLLOWED, UVLOOP, Connection, parts_of

DEPTH = 3
"""References from a function's variable to the connection, containers not counted."""
MAX_OF_TASK = 300
"""The objects of one task that are looked at, the nearest first."""
MAX_ITEMS = 64
"""A container of more items is not followed."""
PART_S = 0.001
"""The longest part of a search, seconds: nobody has the GIL meanwhile."""

_OURS = "openrtc_introspect"


class UserSearch:
    """A search for the user of one connection. One thread goes on with it, any reads it."""

    def __init__(
        self,
        connection: Connection,
        tasks: Sequence[Callable[[], Any]],
        session_of: Callable[[asyncio.Task[Any]], Session | None],
        known: set[Session],
    ) -> None:
        """tasks: weak references. known: the sessions of the tasks that the connection's protocol refers to."""
        self._marks = {id(each) for each in parts_of(connection)}
        self._pending = list(tasks)
        self._session_of = session_of
        self._users: set[Session | None] = {*known}
        self._followed: dict[type, bool] = {}
        """Whether objects of each type are followed."""

    @property
    def user(self) -> Session | None:
        """Return the only session whose tasks hold the connection.

        None: several hold it, a task of no session or none does, or the search has not come to an end.
        """
        return next(iter(self._users)) if not self._pending and len(self._users) == 1 else None

    def go_on(self, seconds: float = PART_S) -> None:
        """Search for so many seconds more at most. Not while tasks of the loop run."""
        until = time.perf_counter() + seconds
        while self._pending and len(self._users) <= 1:
            task = self._pending.pop()()
            if task is not None and (session := self._session_of(task)) not in self._users and self._holds(task):
                self._users.add(session)
            if time.perf_counter() >= until:
                return

    def _holds(self, task: Any) -> bool:
        """Return whether a suspended task holds the connection."""
        seen: set[int] = set()
        chain, _ = suspended_in(coro_of(task), waiter_of(task))
        level = gc.get_referents(*chain)
        seen.update(map(id, chain))
        for _ in range(DEPTH + 1):
            objects: list[Any] = []
            while level:
                containers: list[Any] = []
                for each in level:
                    mark = id(each)
                    if mark in self._marks:
                        return True
                    if mark not in seen and self._follows(type(each)):
                        seen.add(mark)
                        if type(each) is CellType or (type(each) in CONTAINERS and len(each) <= MAX_ITEMS):
                            containers.append(each)
                        elif type(each) not in CONTAINERS:
                            objects.append(each)
                level = gc.get_referents(*containers) if containers else []
            if not objects or len(seen) > MAX_OF_TASK:
                return False
            level = gc.get_referents(*objects)
        return False

    def _follows(self, kind: type) -> bool:
        follows = self._followed.get(kind)
        if follows is None:
            follows = self._followed[kind] = not (
                issubclass(kind, (*NOT_FOLLOWED, asyncio.Future)) or str(kind.__module__).startswith((UVLOOP, _OURS))
            )
        return follows
