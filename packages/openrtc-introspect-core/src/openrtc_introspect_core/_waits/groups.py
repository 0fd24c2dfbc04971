"""Tasks that wait, in groups: those that wait for one object, and those that wait alike at one line.

There may be tens of thousands of rows. They are kept in flat arrays of numbers and lists of objects that exist anyway:
an object made for each would set off collections of the host's whole heap.
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from .._sessions.session import Session
from ..wire._messages import MAX_WAITERS
from .found import Line

Sort = tuple[str, str]
"""(kind, description)."""

UNKNOWN = float("inf")
"""A time that is not known."""

STUCK_FOR = 0.9
"""A session is stuck if it has not stepped for this share of its wait: others of its tasks may have begun to wait a
little later."""


class Rows:
    """The tasks that wait, one row each, in several lists."""

    def __init__(self) -> None:
        self.tasks: list[Callable[[], Any]] = []
        """Weak references."""
        self.ids = array("Q")
        """The tasks' id()."""
        self.sessions: list[Session | None] = []
        """None: the task belongs to no live session."""
        self.since = array("d")
        """Clock readings at the end of the last step; UNKNOWN."""
        self.lines: list[Line | None] = []
        """The user's lines at which they wait. None: not known."""
        self.sorts: list[Sort] = []
        self.targets = array("Q")
        """The id() of what they wait for. 0: nobody else can wait for the same."""

    def __len__(self) -> int:
        return len(self.tasks)

    def add(
        self, living: Callable[[], Any], task_id: int, session: Session | None, since: float | None, line: Line | None,
        sort: Sort, target: int,
    ) -> None:  # fmt: skip
        self.tasks.append(living)
        self.ids.append(task_id)
        self.sessions.append(session)
        self.since.append(UNKNOWN if since is None else since)
        self.lines.append(line)
        self.sorts.append(sort)
        self.targets.append(target)


class Group:
    """Rows that wait for the same."""

    __slots__ = ("_eldest", "kind", "latest", "lines", "oldest", "targets", "tasks", "what")

    def __init__(self, sort: Sort) -> None:
        self.kind, self.what = sort
        self.tasks = 0
        self.latest: dict[Session, float] = {}
        """By session, when the last of its tasks in the group began to wait; UNKNOWN, if it is of one of them."""
        self.lines: Counter[Line] = Counter()
        self.oldest = UNKNOWN
        """When the one that waits longest began to."""
        self.targets: set[int] = set()
        """What is waited for, by id(); 0 among them: for things that nobody else waits for. At most MAX_WAITERS."""
        self._eldest: list[tuple[float, int]] = []
        """(-since, row) of those that have waited longest, the shortest wait first."""

    def add(self, rows: Rows, row: int) -> None:
        since, session, line = rows.since[row], rows.sessions[row], rows.lines[row]
        self.tasks += 1
        if session is not None:
            self.latest[session] = max(since, self.latest.get(session, since))
        if line is not None:
            self.lines[line] += 1
        if since < self.oldest:
            self.oldest = since
        if len(self.targets) < MAX_WAITERS:
            self.targets.add(rows.targets[row])
        if len(self._eldest) < MAX_WAITERS:
            heapq.heappush(self._eldest, (-since, row))
        elif -since > self._eldest[0][0]:
            heapq.heapreplace(self._eldest, (-since, row))

    @property
    def shared(self) -> bool:
        """Return whether several tasks wait, all for one object."""
        return self.tasks > 1 and len(self.targets) == 1 and 0 not in self.targets

    def waiters(self) -> list[int]:
        """Return the rows that have waited longest, the longest first."""
        return [row for _, row in sorted(self._eldest, reverse=True)]

    def stuck(self, now: float) -> Iterator[bool]:
        """Yield for each session whether none of its tasks has stepped since they began to wait here."""
        for session, since in self.latest.items():
            yield since != UNKNOWN and now - session.last_step >= STUCK_FOR * (now - since)


class Groups:
    """All groups, made of all rows."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._of_object: dict[int, Group] = {}
        self._alike: dict[tuple[Sort, Line | None], Group] = {}

    def fill(self, common: set[int], left_out: set[int]) -> Iterator[None]:
        """Put each row into its group. Yields after each.

        common: the objects that tasks of several sessions wait for, by id(). left_out: the tasks that are not counted.
        """
        rows = self._rows
        for row in range(len(rows)):
            if rows.ids[row] not in left_out:
                self._group(row, common).add(rows, row)
            yield

    def _group(self, row: int, common: set[int]) -> Group:
        rows = self._rows
        target, sort = rows.targets[row], rows.sorts[row]
        if target in common:
            group = self._of_object.get(target)
            if group is None:
                group = self._of_object[target] = Group(sort)
            return group
        key = sort, rows.lines[row]
        group = self._alike.get(key)
        if group is None:
            group = self._alike[key] = Group(sort)
        return group

    def all(self) -> list[Group]:
        """Return the groups, those with the most sessions first."""
        groups = [*self._of_object.values(), *self._alike.values()]
        return sorted(groups, key=lambda group: (-len(group.latest), -group.tasks, group.oldest))
