"""The rows of the table: which sessions it shows, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import SessionRow

STATUSES = ("active", "slow", "blocked", "draining", "errored")


class Row(NamedTuple):
    """One session, and the key of the worker it lives in."""

    worker: str
    session: SessionRow

    @property
    def identity(self) -> tuple[str, str]:
        """The key by which a selection stays with its row while rows move."""
        return self.worker, self.session.session_id


_ID = attrgetter("session.session_id")


def rows_of(worker: str, sessions: Iterable[SessionRow]) -> list[Row]:
    """Return the rows of one worker.

    They are made anew for each screen: a named tuple's own constructor takes twice as long.
    """
    new = tuple.__new__
    return [new(Row, (worker, session)) for session in sessions]


@dataclass(frozen=True, slots=True)
class Sort:
    """An order of rows. Numbers go from the greatest down, text from a to z."""

    name: str
    """The id of the column that the rows are sorted by."""
    value: Callable[[SessionRow], float | str | None]
    """None: unknown, which is last whichever way the order runs."""
    descending: bool = True


@dataclass(frozen=True, slots=True)
class Filter:
    """A choice of sessions to be shown. None: no condition."""

    status: str | None = None
    agent: str | None = None
    tenant: str | None = None
    text: str = ""
    """Words, each of which must be in the id, the agent, the tenant or the kind of its wait; upper and lower case are
    one."""
    waits: str | None = None
    """The kind of what the session waits for."""

    def __bool__(self) -> bool:
        return not (self.status is self.agent is self.tenant is self.waits is None) or bool(self.text.strip())

    def test(self) -> Callable[[SessionRow], bool]:
        """Return the test of one session, as a function that can be used many times."""
        status, agent, tenant, waits = self.status, self.agent, self.tenant, self.waits
        words = self.text.casefold().split()

        def accepts(session: SessionRow) -> bool:
            if (
                (status is not None and session.status != status)
                or (agent is not None and session.agent_name != agent)
                or (tenant is not None and session.tenant != tenant)
                or (waits is not None and session.waits != waits)
            ):
                return False
            if not words:
                return True
            texts = (
                f"{session.session_id}\n{session.agent_name}\n{session.tenant or ''}\n{session.waits or ''}".casefold()
            )
            return all(word in texts for word in words)

        return accepts

    def accepts(self, session: SessionRow) -> bool:
        """Return whether the session passes every condition."""
        return self.test()(session)


def arrange(rows: Iterable[Row], sort: Sort, *, inverted: bool = False) -> list[Row]:
    """Return the rows in order; equal ones by session id, so that no row flickers."""
    by_id = sorted(rows, key=_ID)
    value = sort.value
    values: list[Any] = [value(session) for _, session in by_id]
    known = [index for index, value in enumerate(values) if value is not None]
    unknown = [index for index, value in enumerate(values) if value is None] if len(known) < len(values) else []
    # reverse=True keeps the order of equals, so ties stay by id both ways.
    known.sort(key=values.__getitem__, reverse=sort.descending is not inverted)
    return [by_id[index] for index in (*known, *unknown)]


def pinned_first(rows: list[Row], pins: Collection[tuple[str, str]]) -> tuple[list[Row], int]:
    """Return the rows with the pinned ones first, and how many are pinned.

    Both groups keep their order.
    """
    if not pins:
        return rows, 0
    ids = {session_id for _, session_id in pins}
    pinned = [row for row in rows if row.session.session_id in ids and row.identity in pins]
    if not pinned:
        return rows, 0
    here = {row.identity for row in pinned}
    rest = [row for row in rows if row.session.session_id not in ids or row.identity not in here]
    return pinned + rest, len(pinned)
