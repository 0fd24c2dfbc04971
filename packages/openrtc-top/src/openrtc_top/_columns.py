"""The columns of the table: what there is, what each means, and which are wanted in which order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from openrtc_top._cursor import Cursor


class Column(NamedTuple):
    """One column."""

    id: str
    """What `--columns` and the config file call it; where there is a sort of that column, the sort's name."""
    title: str
    meaning: str
    automatic: bool = False
    """It is shown only where there is something to tell."""
    default: bool = True


COLUMNS = (
    Column("number", "#", "the row's place in the present order"),
    Column("session", "session", "the session's id"),
    Column("agent", "agent", "the agent's name"),
    Column("tenant", "tenant", "whom the session serves, where the worker was told"),
    Column("worker", "worker", "the worker it lives in; there where there are several", automatic=True),
    Column("loop", "loop", "the event loop it lives on; there where a worker has several", automatic=True),
    Column("duration_s", "dur", "since the session began"),
    Column("cpu_pct", "cpu%", "share of the loop's time over the last second or two; 100 is the whole loop"),
    Column("mem_mb", "mem(MB)", "an equal share of the process's memory, not the session's own"),
    Column("peak_mb", "peak", "the highest such share while it lived"),
    Column("heap_mb", "heap", "its own net allocations in MB, where the worker measures them", automatic=True),
    Column("status", "status", "BLOCKED holds the loop now; SLOW did within the last seconds; GONE: its worker is"),
    Column("pin", "pin", "★ is kept at the top by the key p", automatic=True),
    Column("blocks", "blocks", "how often it held the loop too long"),
    Column("worst", "worst", "the longest of these"),
    Column("delayed", "delayed", "how long others' blocks kept it waiting, in all", automatic=True),
    Column("worst_delay", "wait", "the longest it was kept waiting by one block", default=False),
    Column("cpu_s", "cpu(s)", "seconds it has held the loop since it began", default=False),
    Column("steps", "steps", "task steps it has run", default=False),
    Column("tasks", "tasks", "tasks it has now", default=False),
    Column("heap_growth", "grow/min", "how fast its own memory has grown lately, MB a minute", default=False),
    Column("thread_cpu_s", "threads", "CPU seconds that its calls in threads have used", default=False),
)
IDS = tuple(column.id for column in COLUMNS)
DEFAULT = tuple(column.id for column in COLUMNS if column.default)
BY_ID = {column.id: column for column in COLUMNS}

ALIASES = {
    **{column.title: column.id for column in COLUMNS},
    "session_id": "session",
    "agent_name": "agent",
    "worst_block_ms": "worst",
    "delayed_s": "delayed",
    "heap_growth_mb_per_min": "heap_growth",
    "worst_delay_ms": "worst_delay",
}
"""The titles, and the wire's names of columns that are called otherwise here: accepted too."""


def known(name: str) -> str | None:
    """The column's id. None: there is no such column."""
    name = ALIASES.get(name, name)
    return name if name in BY_ID else None


@dataclass(frozen=True, slots=True)
class Chooser:
    """The list in which columns are switched on and off and moved about."""

    order: tuple[str, ...]
    """All of them: the wanted ones as the table has them, then the others."""
    cursor: Cursor[str]

    def press(self, key: str, wanted: tuple[str, ...]) -> tuple[Chooser, tuple[str, ...]]:
        """The list and the wanted columns after a key."""
        moved = self.cursor.press(key, self.order)
        if moved is not None:
            return replace(self, cursor=moved), wanted
        if key == "d":
            return chooser(DEFAULT), DEFAULT
        at = self.cursor.index(self.order) or 0
        chosen = self.order[at]
        if key == "space":
            on = {*wanted} ^ {chosen}
            return self, self._in_order(on) or wanted
        if key in ("J", "K"):
            to = min(max(at + (1 if key == "J" else -1), 0), len(self.order) - 1)
            order = [*self.order]
            order.insert(to, order.pop(at))
            after = Chooser(tuple(order), self.cursor.select(order, to))
            return after, after._in_order({*wanted})
        return self, wanted

    def _in_order(self, wanted: set[str]) -> tuple[str, ...]:
        return tuple(column for column in self.order if column in wanted)


def chooser(wanted: tuple[str, ...]) -> Chooser:
    """The list when it is opened."""
    order = (*wanted, *(column for column in IDS if column not in wanted))
    return Chooser(order, Cursor(chosen=order[0]))
