"""What the view shows, and how it changes: `reduce(state, event) -> state`, without any I/O.

Frames, keys and the clock all arrive as events, so live view, tests and a replayed recording take
the same way. The only clock of the view is `State.now`, set by Tick: durations that a worker reports
are never mixed with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from openrtc_top._blocklist import BlockList
from openrtc_top._blocks import Entry, entries, in_order, later
from openrtc_top._rows import CYCLE, SORTS, STATUSES, Filter, Row, Sort, arrange
from openrtc_top._sockets import named

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Block, Snapshot, WorkerInfo

HISTORY_S = 60
FORGET_GONE_S = 60.0
"""A worker that is gone disappears after this long, if others are there."""


@dataclass(frozen=True, slots=True)
class Found:
    """A worker's socket was found; no snapshot yet."""

    worker: str
    name: str
    pid: int | None = None
    origin: str | None = None
    """Where it runs, or whose it is, if not here and ours."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Nothing is to be shown of this any more: what it stood for is there now."""

    worker: str


@dataclass(frozen=True, slots=True)
class Frame:
    """A worker sent a snapshot."""

    worker: str
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Blocked:
    """A worker told blocks that are over, oldest first."""

    worker: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Gone:
    """The connection to a worker was lost, or could not be made."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class Key:
    """A key was pressed: a name from `_keys`."""

    name: str


@dataclass(frozen=True, slots=True)
class Tick:
    """The view's own clock, seconds, monotonic."""

    now: float


@dataclass(frozen=True, slots=True)
class Shown:
    """What the last rendering had room for: the first row's index, and the number of rows."""

    top: int
    page: int


Event = Found | Dropped | Frame | Blocked | Gone | Key | Tick | Shown


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker, as far as this view knows it."""

    key: str
    name: str
    """What it calls itself, after its origin and a colon where it has one."""
    pid: int | None = None
    snapshot: Snapshot | None = None
    history: tuple[tuple[int, float], ...] = ()
    """Seconds of the worker's clock and how busy its loop was, percent; oldest first."""
    blocks: tuple[Block, ...] = ()
    """The last that are over, oldest first."""
    heard_at: float | None = None
    """When its last snapshot came, by the view's clock."""
    gone: str | None = None
    """Why it cannot be read now. None: it can, or it was not tried yet."""
    gone_at: float | None = None
    origin: str | None = None
    """Where it runs, or whose it is, if not here and ours."""


@dataclass(frozen=True, slots=True)
class State:
    """Everything a rendering depends on, but for the terminal's size."""

    workers: tuple[Worker, ...] = ()
    """By name, then process id."""
    sort: Sort = SORTS["cpu_pct"]
    inverted: bool = False
    filter: Filter = field(default_factory=Filter)
    selected: tuple[str, str] | None = None
    """Worker key and session id."""
    selected_at: int = 0
    """The index it was last seen at, for when it ends."""
    top: int = 0
    page: int = 10
    help: bool = False
    blocks: BlockList = field(default_factory=BlockList)
    """The list of blocks, which takes the table's place while it is open."""
    refreshes: int = 0
    """How often a refresh was asked for."""
    done: bool = False
    now: float = 0.0
    rows: tuple[Row, ...] = ()
    """Derived: the sessions that pass the filter, in order."""
    longest: dict[str, int] = field(default_factory=dict)
    """Derived: the longest text seen in a column, so that its width doesn't change with each frame."""
    extras: frozenset[str] = frozenset()
    """Derived: the columns that are shown only when a session has a value: heap, delayed."""

    def worker(self, key: str) -> Worker | None:
        """The worker of this key."""
        return next((worker for worker in self.workers if worker.key == key), None)

    def entries(self) -> list[Entry]:
        """The blocks of all workers, newest first, those in progress before all."""
        found = [
            entry
            for worker in self.workers
            for entry in entries(
                worker.key, worker.name, worker.blocks, worker.snapshot if worker.gone is None else None
            )
        ]
        return in_order(found)[::-1]


def busy_pct(worker: WorkerInfo) -> float | None:
    """How much of its time the loop was at work. Where the idle time is not to be had, the sum of
    the parts that are, which is a lower bound."""
    time = worker.loop_time
    if time.idle_pct is not None:
        return min(100.0, max(0.0, 100.0 - time.idle_pct))
    parts = [part for part in (time.sessions_pct, time.untagged_pct, time.gc_pct, time.other_pct) if part is not None]
    return min(100.0, sum(parts)) if parts else None


def reduce(state: State, event: Event) -> State:
    """The state after the event."""
    match event:
        case Frame():
            return _derive(_put(state, _heard(state, event)))
        case Blocked(key, blocks):
            known = state.worker(key)
            return _put(state, replace(known, blocks=later(known.blocks, blocks))) if known and blocks else state
        case Gone(key, reason):
            lost = state.worker(key) or Worker(key, name=key)
            since = state.now if lost.gone_at is None else lost.gone_at
            return _put(state, replace(lost, gone=reason, gone_at=since))
        case Found(key, name, pid, origin):
            return state if state.worker(key) else _put(state, Worker(key, named(origin, name), pid, origin=origin))
        case Dropped(key):
            others = tuple(worker for worker in state.workers if worker.key != key)
            return state if others == state.workers else _derive(replace(state, workers=others))
        case Tick(now):
            return _forget(replace(state, now=now))
        case Shown(top, page):
            return _shown(state, top, page)
        case Key(name):
            return _press(state, name)


def _shown(state: State, top: int, page: int) -> State:
    view = state.blocks if state.blocks.open else state
    if (top, page) == (view.top, view.page):
        return state
    if state.blocks.open:
        return replace(state, blocks=replace(state.blocks, top=top, page=page))
    return replace(state, top=top, page=page)


def _press(state: State, key: str) -> State:
    if state.blocks.open and not state.help:
        pressed = state.blocks.press(key, state.entries())
        if pressed is not None:
            return replace(state, blocks=pressed)
    action = _KEYS.get(key)
    return action(state) if action else state


def _put(state: State, worker: Worker) -> State:
    others = [other for other in state.workers if other.key != worker.key]
    ordered = sorted([*others, worker], key=lambda worker: (worker.name, worker.pid or 0, worker.key))
    return replace(state, workers=tuple(ordered))


def _heard(state: State, frame: Frame) -> Worker:
    snapshot = frame.snapshot
    info = snapshot.worker
    before = state.worker(frame.worker)
    history: tuple[tuple[int, float], ...] = ()
    blocks: tuple[Block, ...] = ()
    if before and before.snapshot and before.snapshot.worker.epoch == info.epoch:
        history, blocks = before.history, before.blocks
    busy = busy_pct(info)
    if busy is not None:
        second = int(snapshot.taken_at)
        kept = [point for point in history if second - HISTORY_S < point[0] < second]
        history = (*kept, (second, busy))
    origin = before.origin if before else None
    name = named(origin, info.name)
    return Worker(frame.worker, name, info.pid, snapshot, history, blocks, heard_at=state.now, origin=origin)


def _forget(state: State) -> State:
    """Drop the workers that have been gone for long, but never the last one."""
    stale = [w for w in state.workers if w.gone_at is not None and state.now - w.gone_at > FORGET_GONE_S]
    if not stale or len(stale) == len(state.workers):
        return state
    return _derive(replace(state, workers=tuple(worker for worker in state.workers if worker not in stale)))


def _derive(state: State) -> State:
    accepts = state.filter.accepts if state.filter else None
    rows: list[Row] = []
    longest = dict(state.longest)
    extras = set()
    for worker in state.workers:
        if worker.snapshot is None:
            continue
        sessions = worker.snapshot.sessions
        for column, texts in (
            ("session", {session.session_id for session in sessions}),
            ("agent", {session.agent_name for session in sessions}),
            ("tenant", {session.tenant or "-" for session in sessions}),
            ("worker", {worker.name}),
        ):
            longest[column] = max(longest.get(column, 0), _widest(texts))
        if any(session.heap_mb is not None for session in sessions):
            extras.add("heap")
        if any(session.delayed_s is not None for session in sessions):
            extras.add("delayed")
        key = worker.key
        rows += [Row(key, session) for session in sessions if accepts is None or accepts(session)]
    arranged = arrange(rows, state.sort, inverted=state.inverted)
    state = replace(state, rows=tuple(arranged), longest=longest, extras=frozenset(extras))
    return _follow(state)


def _widest(texts: set[str]) -> int:
    """Columns the longest text needs; where a text is not ASCII, the most it can need."""
    return max((len(text) if text.isascii() else 2 * len(text) for text in texts), default=0)


def _follow(state: State) -> State:
    """Find the selected session's new place; where it has ended, select what now stands there."""
    if state.selected is None:
        return state
    worker, session_id = state.selected
    for index, row in enumerate(state.rows):
        if row.session.session_id == session_id and row.worker == worker:
            return replace(state, selected_at=index)
    return _select(state, state.selected_at) if state.rows else replace(state, selected=None)


def _select(state: State, index: int) -> State:
    if not state.rows:
        return replace(state, selected=None)
    index = min(max(index, 0), len(state.rows) - 1)
    return replace(state, selected=state.rows[index].identity, selected_at=index)


def _move(by: Callable[[State], int]) -> Callable[[State], State]:
    def move(state: State) -> State:
        if state.selected is None:  # the first step only shows where you are
            step = by(state)
            first = state.top if step in (1, -1) else state.top + step
            return _select(state, first)
        return _select(state, state.selected_at + by(state))

    return move


def _cycle_sort(state: State) -> State:
    name = state.sort.name
    following = CYCLE[(CYCLE.index(name) + 1) % len(CYCLE)] if name in CYCLE else CYCLE[0]
    return _derive(replace(state, sort=SORTS[following], inverted=False))


def _cycle_status(state: State) -> State:
    choices = (None, *STATUSES)
    following = choices[(choices.index(state.filter.status) + 1) % len(choices)]
    return _derive(replace(state, filter=replace(state.filter, status=following)))


def _escape(state: State) -> State:
    return replace(state, help=False) if state.help else replace(state, selected=None)


_KEYS: dict[str, Callable[[State], State]] = {
    "q": lambda state: replace(state, done=True),
    "ctrl-c": lambda state: replace(state, done=True),
    "r": lambda state: replace(state, refreshes=state.refreshes + 1),
    "s": _cycle_sort,
    "f": _cycle_status,
    "i": lambda state: _derive(replace(state, inverted=not state.inverted)),
    "?": lambda state: replace(state, help=not state.help),
    "b": lambda state: replace(state, help=False, blocks=BlockList(open=True)),
    "escape": _escape,
    "up": _move(lambda state: -1),
    "down": _move(lambda state: 1),
    "pageup": _move(lambda state: -max(1, state.page)),
    "pagedown": _move(lambda state: max(1, state.page)),
    "home": lambda state: _select(state, 0),
    "end": lambda state: _select(state, len(state.rows) - 1),
}
