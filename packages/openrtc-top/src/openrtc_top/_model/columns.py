"""The columns of the table, each declared once.

Everything else follows from `COLUMNS`: what `--columns`, `--sort` and the config file accept, the titles, the
cells and their widths, which columns go if there is no room, the key s, the help, and shell completion.
`_view.cells` knows how a value of each `Form` is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from openrtc_top._model.rows import STATUSES, Sort

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import SessionRow


class Form(Enum):
    """A way to draw a column's value."""

    TEXT = auto()
    """None: a dash."""
    NUMBER = auto()
    """One digit behind the point."""
    INTEGER = auto()
    TALLY = auto()
    """An integer that stands out if it is not 0."""
    COUNT = auto()
    """An integer that may be large: 18,204, 1.2M."""
    CLOCK = auto()
    """Seconds as h:mm:ss."""
    CLOCK_IF_ANY = auto()
    """None: a dash."""
    SECONDS = auto()
    """Seconds as ms or s."""
    MILLISECONDS = auto()
    MILLISECONDS_IF_ANY = auto()
    """None: a dash."""
    STATUS = auto()
    ROW_NUMBER = auto()
    WORKER = auto()
    PIN = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorting:
    """A way to sort rows by a column."""

    place: int
    """Among the sorts, from 1."""
    cycle: bool = False
    """The key s goes through it."""
    descending: bool = True
    value: Callable[[SessionRow], float | str | None] | None = None
    """The value that is compared. None: the column's own."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column."""

    id: str
    """Its name in `--columns`, `--sort` and the config file."""
    wire: str | None
    """The wire's field, whose name is accepted as well. None: the column shows no field of a session."""
    title: str
    width: int
    """The least number of cells."""
    meaning: str
    form: Form = Form.NUMBER
    max_width: int = 0
    """A text grows to so many cells if there is room. 0: the width is fixed."""
    drop: int = 0
    """If there is no room, the column of the lowest rank goes first; those of `DROPPED_LATE` or more go only
    once the gaps and the bar have shrunk. 0: it goes after all these, from the right."""
    default: bool = True
    automatic: bool = False
    """The column is shown only if a row has a value for it."""
    sorting: Sorting | None = None
    value: Callable[[SessionRow], Any] | None = None
    """The value of a session, by default the wire's field. None: the column shows no field of a session."""

    def __post_init__(self) -> None:
        if self.value is None and self.wire is not None:
            object.__setattr__(self, "value", attrgetter(self.wire))


def _worst(session: SessionRow) -> float | None:
    return session.worst_block_ms if session.blocks else None


def _idle_s(session: SessionRow) -> float | None:
    """Return the seconds since its last step, up to the snapshot that the row is of. None: not known, or it runs."""
    if session.last_step_at is None:
        return None
    return max(0.0, session.started_at + session.duration_s - session.last_step_at)


def _status(session: SessionRow) -> int:
    return STATUSES.index(session.status)


DROPPED_LATE = 200

COLUMNS = (
    Column(
        "number", None, "#", 4, "the row's place in the present order",
        Form.ROW_NUMBER, drop=10,
    ),
    Column(
        "session", "session_id", "session", 10, "the session's id",
        Form.TEXT, max_width=40, sorting=Sorting(place=5, cycle=True, descending=False),
    ),
    Column(
        "agent", "agent_name", "agent", 8, "the agent's name",
        Form.TEXT, max_width=24, drop=230, sorting=Sorting(place=4, cycle=True, descending=False),
    ),
    Column(
        "tenant", "tenant", "tenant", 7, "whom the session serves, if the worker was given it",
        Form.TEXT, max_width=24, drop=120, sorting=Sorting(place=6, descending=False),
    ),
    Column(
        "worker", None, "worker", 8, "the worker it lives in, if there are several",
        Form.WORKER, max_width=24, drop=210, automatic=True,
    ),
    Column(
        "loop", "loop", "loop", 9, "the event loop it lives on, if a worker has several",
        Form.TEXT, drop=110, automatic=True,
    ),
    Column(
        "duration_s", "duration_s", "dur", 7, "since the session began",
        Form.CLOCK, drop=240, sorting=Sorting(place=3, cycle=True),
    ),
    Column(
        "cpu_pct", "cpu_pct", "cpu%", 5,
        "share of the loop's time over the last second or two; 100 is the whole loop",
        sorting=Sorting(place=2, cycle=True),
    ),
    Column(
        "mem_mb", "mem_mb", "mem(MB)", 8, "an equal share of the process's memory, not the session's own",
        drop=250, sorting=Sorting(place=1, cycle=True),
    ),
    Column(
        "peak_mb", "peak_mb", "peak", 6, "the highest such share while it lived",
        drop=100,
    ),
    Column(
        "heap_mb", "heap_mb", "heap", 6, "its own net allocations in MB, where the worker measures them",
        drop=90, automatic=True,
    ),
    Column(
        "status", "status", "status", 8,
        "BLOCKED holds the loop now; SLOW did within the last seconds; GONE: its worker is",
        Form.STATUS, sorting=Sorting(place=7, value=_status),
    ),
    Column(
        "waits", "waits", "waits", 8, "the kind of what it waits for, looked at about once a second",
        Form.TEXT, drop=75, max_width=11, automatic=True, sorting=Sorting(place=12, descending=False),
    ),
    Column(
        "idle", "last_step_at", "idle", 7, "since its last step; -: it runs now, or steps are not timed",
        Form.CLOCK_IF_ANY, drop=5, automatic=True, sorting=Sorting(place=11), value=_idle_s,
    ),
    Column(
        "pin", None, "pin", 3, "★ is kept at the top by the key p",
        Form.PIN, automatic=True,
    ),
    Column(
        "blocks", "blocks", "blocks", 7, "how often it held the loop too long",
        Form.TALLY, drop=220, sorting=Sorting(place=8),
    ),
    Column(
        "worst", "worst_block_ms", "worst", 6, "the longest of these",
        Form.MILLISECONDS_IF_ANY, drop=130, sorting=Sorting(place=9), value=_worst,
    ),
    Column(
        "delayed", "delayed_s", "delayed", 7, "how long others' blocks kept it waiting, in all",
        Form.SECONDS, drop=80, automatic=True, sorting=Sorting(place=10),
    ),
    Column(
        "worst_delay", "worst_delay_ms", "wait", 6, "the longest it was kept waiting by one block",
        Form.MILLISECONDS, drop=40, default=False,
    ),
    Column(
        "cpu_s", "cpu_s", "cpu(s)", 7, "seconds it has held the loop since it began",
        drop=30, default=False,
    ),
    Column(
        "steps", "steps", "steps", 7, "task steps it has run",
        Form.COUNT, drop=20, default=False,
    ),
    Column(
        "tasks", "tasks", "tasks", 5, "tasks it has now",
        Form.INTEGER, drop=50, default=False,
    ),
    Column(
        "heap_growth", "heap_growth_mb_per_min", "grow/min", 8,
        "how fast its own memory has grown lately, MB a minute",
        drop=70, default=False,
    ),
    Column(
        "thread_cpu_s", "thread_cpu_s", "threads", 7, "CPU seconds that its calls in threads have used",
        drop=60, default=False,
    ),
)  # fmt: skip

IDS = tuple(column.id for column in COLUMNS)
DEFAULT = tuple(column.id for column in COLUMNS if column.default)
BY_ID = {column.id: column for column in COLUMNS}
GROWING = tuple(column for column in COLUMNS if column.max_width)

ALIASES = {column.title: column.id for column in COLUMNS}
ALIASES |= {column.wire: column.id for column in COLUMNS if column.wire}
"""Titles and the wire's names, which are accepted for ids."""

_DROPPED = sorted((column for column in COLUMNS if column.drop), key=lambda column: column.drop)
DROPPED_FIRST = tuple(column.id for column in _DROPPED if column.drop < DROPPED_LATE)
DROPPED_LAST = tuple(column.id for column in _DROPPED if column.drop >= DROPPED_LATE)


def _sorts() -> dict[str, Sort]:
    sortable = [(column.sorting.place, column, column.sorting) for column in COLUMNS if column.sorting]
    found = {}
    for _, column, sorting in sorted(sortable, key=lambda entry: entry[0]):
        value = sorting.value or column.value
        assert value is not None
        found[column.id] = Sort(column.id, value, sorting.descending)
    return found


SORTS = _sorts()
CYCLE = tuple(name for name in SORTS if (sorting := BY_ID[name].sorting) and sorting.cycle)
"""The sorts that the key s goes through."""


def known(name: str) -> str | None:
    """Return the column's id, by its id, title or wire name.

    None: there is no such column.
    """
    name = ALIASES.get(name, name)
    return name if name in BY_ID else None


def known_sort(name: str) -> str | None:
    """Return the sort's name, by the column's id or wire name.

    None: there is no such sort.
    """
    return next((sort for sort in SORTS if name in (sort, BY_ID[sort].wire)), None)
