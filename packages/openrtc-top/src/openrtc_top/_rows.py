"""Which sessions the table shows, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import SessionRow

STATUSES = ("active", "slow", "blocked", "draining", "errored")


class Row(NamedTuple):
    """One session, and the key of the worker it lives in."""

    worker: str
    session: SessionRow

    @property
    def identity(self) -> tuple[str, str]:
        """What a selection holds on to while rows move."""
        return self.worker, self.session.session_id


@dataclass(frozen=True, slots=True)
class Sort:
    """An order of rows. Numbers go from the greatest down, text from a to z."""

    name: str
    column: str
    """The title of the table's column."""
    value: Callable[[Row], float | str | None]
    """None: unknown, which is last whichever way the order runs."""
    descending: bool = True


def _worst(row: Row) -> float | None:
    return row.session.worst_block_ms if row.session.blocks else None


SORTS = {
    sort.name: sort
    for sort in (
        Sort("mem_mb", "mem(MB)", lambda row: row.session.mem_mb),
        Sort("cpu_pct", "cpu%", lambda row: row.session.cpu_pct),
        Sort("duration_s", "dur", lambda row: row.session.duration_s),
        Sort("agent", "agent", lambda row: row.session.agent_name, descending=False),
        Sort("session", "session", lambda row: row.session.session_id, descending=False),
        Sort("tenant", "tenant", lambda row: row.session.tenant, descending=False),
        Sort("status", "status", lambda row: STATUSES.index(row.session.status)),
        Sort("blocks", "blocks", lambda row: row.session.blocks),
        Sort("worst", "worst", _worst),
        Sort("delayed", "delayed", lambda row: row.session.delayed_s),
    )
}
CYCLE = ("mem_mb", "cpu_pct", "duration_s", "agent", "session")
"""What the key s goes through."""

WIRE_NAMES = {
    "agent_name": "agent",
    "session_id": "session",
    "worst_block_ms": "worst",
    "delayed_s": "delayed",
}
"""The wire's names of columns that are called otherwise here: accepted too."""


@dataclass(frozen=True, slots=True)
class Filter:
    """What a session must be to be shown. None: anything."""

    status: str | None = None
    agent: str | None = None
    tenant: str | None = None
    text: str = ""
    """Words, each of which must be in the id, the agent or the tenant; upper and lower case are one."""

    def __bool__(self) -> bool:
        return not (self.status is self.agent is self.tenant is None) or bool(self.text.strip())

    def test(self) -> Callable[[SessionRow], bool]:
        """Whether a session is accepted, as a function to be used many times."""
        status, agent, tenant = self.status, self.agent, self.tenant
        words = self.text.casefold().split()

        def accepts(session: SessionRow) -> bool:
            if (
                (status is not None and session.status != status)
                or (agent is not None and session.agent_name != agent)
                or (tenant is not None and session.tenant != tenant)
            ):
                return False
            if not words:
                return True
            texts = f"{session.session_id}\n{session.agent_name}\n{session.tenant or ''}".casefold()
            return all(word in texts for word in words)

        return accepts

    def accepts(self, session: SessionRow) -> bool:
        """Whether it fulfils all that is asked."""
        return self.test()(session)


def arrange(rows: Iterable[Row], sort: Sort, *, inverted: bool = False) -> list[Row]:
    """The rows in order; those that tie stand by session id, so that nothing trembles."""
    value = sort.value
    known: list[Row] = []
    unknown: list[Row] = []
    for row in sorted(rows, key=lambda row: row.session.session_id):
        (unknown if value(row) is None else known).append(row)
    # reverse=True keeps the order of equals, so ties stay by id both ways.
    known.sort(key=value, reverse=sort.descending is not inverted)  # type: ignore[arg-type]
    return known + unknown


def raised(rows: list[Row], pins: Collection[tuple[str, str]]) -> tuple[list[Row], int]:
    """The pinned rows before the others, each group in the order it was in, and how many are pinned."""
    ids = {session_id for _, session_id in pins}
    pinned = [row for row in rows if row.session.session_id in ids and row.identity in pins]
    if not pinned:
        return rows, 0
    here = {row.identity for row in pinned}
    rest = [row for row in rows if row.session.session_id not in ids or row.identity not in here]
    return pinned + rest, len(pinned)
