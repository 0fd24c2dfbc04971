"""What the view shows, and how it changes: `reduce(state, event) -> state`, without any I/O.

Frames, keys and the clock all arrive as events, so live view, tests and a replayed recording take
the same way. The only clock of the view is `State.now`, set by Tick: durations that a worker reports
are never mixed with it. What keys do is in `_press`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from openrtc_top import _workers
from openrtc_top._blocklist import BlockList
from openrtc_top._blocks import Entry, entries, in_order
from openrtc_top._columns import DEFAULT, Chooser
from openrtc_top._cursor import Cursor, Scroll
from openrtc_top._history import HISTORY_S
from openrtc_top._page import Inspection, SessionPage
from openrtc_top._press import press
from openrtc_top._rows import SORTS, Filter, Row, Sort, arrange, raised
from openrtc_top._workers import FORGET_GONE_S, Worker, Workers, busy_pct

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Block, Snapshot

__all__ = [
    "FORGET_GONE_S", "HISTORY_S", "Blocked", "Dropped", "Event", "Found", "Frame", "Gone", "Inspected", "Key",
    "Noticed", "Shown", "State", "Tick", "Worker", "Workers", "after", "busy_pct", "reduce",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """A worker's socket was found; no snapshot yet."""

    worker: str
    name: str
    pid: int | None = None
    host: str | None = None
    """The machine it runs on, as the user called it. None: this one."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """What this worker stood for is there itself now: a host that offered none."""

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
class Inspected:
    """A worker told what one of its sessions is doing, for that session's page."""

    worker: str
    session_id: str
    told: Inspection


@dataclass(frozen=True, slots=True)
class Gone:
    """The connection to a worker was lost, or could not be made."""

    worker: str
    reason: str
    retry_s: float | None = None
    """In how many seconds it is tried again. None: not known."""


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


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something the user should know, which is shown until a key is pressed."""

    text: str


Event = Found | Dropped | Frame | Blocked | Inspected | Gone | Key | Tick | Shown | Noticed
Identity = tuple[str, str]
"""Worker key and session id."""


@dataclass(frozen=True, slots=True)
class State:
    """Everything a rendering depends on, but for the terminal's size."""

    workers: Workers = ()
    """Those that are shown, by name, then process id."""
    unseen: Workers | None = None
    """While the view is paused: the workers as they are now. None: it is not paused."""
    paused_at: float = 0.0

    sort: Sort = SORTS["cpu_pct"]
    inverted: bool = False
    filter: Filter = field(default_factory=Filter)
    editing: bool = False
    """The filter's text is being typed."""
    only: str | None = None
    """The key of the worker whose sessions alone are shown."""
    pins: frozenset[Identity] = frozenset()
    columns: tuple[str, ...] = DEFAULT
    """The ids of the wanted columns, left to right."""
    always: frozenset[str] = frozenset()
    """Those of them that are shown even where there is nothing to tell."""

    view: Literal["sessions", "blocks", "workers"] = "sessions"
    table: Cursor[Identity] = field(default_factory=Cursor)
    wish: Identity | None = None
    """What was selected by hand. It is selected again when a filter that hid it lets it through."""
    blocks: BlockList = field(default_factory=BlockList)
    fleet: Cursor[str] = field(default_factory=Cursor)
    """Of the keys of workers."""
    page: SessionPage | None = None
    """The session's page that lies over the view."""
    chooser: Chooser | None = None
    """The list of columns that lies over the view."""
    help: Scroll | None = None
    """The help that lies over everything."""

    refreshes: int = 0
    """How often a refresh was asked for."""
    notice: str = ""
    done: bool = False
    now: float = 0.0

    rows: tuple[Row, ...] = ()
    """Derived: the pinned sessions, then those that pass the filter, in order."""
    pinned: int = 0
    """Derived: how many of the rows are pinned."""
    longest: dict[str, int] = field(default_factory=dict)
    """Derived: the longest text seen in a column, so that its width doesn't change with each frame."""
    extras: frozenset[str] = frozenset()
    """Derived: the automatic columns that have something to tell."""

    @property
    def selected(self) -> Identity | None:
        """The selected session."""
        return self.table.chosen

    @property
    def selected_at(self) -> int:
        """Its index among the rows."""
        return self.table.at

    @property
    def paused(self) -> bool:
        return self.unseen is not None

    @property
    def scope(self) -> Workers:
        """The workers whose sessions are shown."""
        chosen = self.worker(self.only) if self.only is not None else None
        return (chosen,) if chosen else self.workers

    def worker(self, key: str) -> Worker | None:
        """The worker of this key, as shown."""
        return _workers.get(self.workers, key)

    def follows(self, key: str) -> bool:
        """Whether the worker of this key is wanted, shown already or not."""
        return _workers.get(self.workers if self.unseen is None else self.unseen, key) is not None

    def inspects(self, key: str) -> str | None:
        """The session of this worker that is to be asked after. None: none of it is looked at."""
        page = self.page
        if page is None or page.worker != key or page.ended or (self.paused and page.told is not None):
            return None
        return page.session.session_id

    def entries(self) -> list[Entry]:
        """The blocks of the workers in scope, newest first, those in progress before all."""
        found = [
            entry
            for worker in self.scope
            for entry in entries(
                worker.key, worker.name, worker.blocks, worker.snapshot if worker.gone is None else None
            )
        ]
        return in_order(found)[::-1]

    def showing(self, workers: Workers) -> State:
        """With these workers, and all that follows from them."""
        only = self.only
        if only is not None and _workers.get(workers, only) is None:
            only = _successor(self.workers, workers, only)
        return replace(self, workers=workers, only=only).derived()

    def derived(self) -> State:
        """With what follows from the workers, the filter and the order."""
        accepts = self.filter.test() if self.filter else None
        pins: dict[str, set[str]] = {}
        for key, session_id in self.pins:
            pins.setdefault(key, set()).add(session_id)
        rows: list[Row] = []
        longest = dict(self.longest)
        alone = self.only is not None and all(key == self.only for key, _ in self.pins)
        extras = {"worker"} if len(self.workers) > 1 and not alone else set()
        for worker in self.workers:
            if worker.snapshot is None:
                continue
            key, sessions = worker.key, worker.snapshot.sessions
            _widen(longest, worker)
            if any(session.heap_mb is not None for session in sessions):
                extras.add("heap_mb")
            if any(session.loop is not None for session in sessions):
                extras.add("loop")
            if any(session.delayed_s is not None for session in sessions):
                extras.add("delayed")
            pinned = pins.get(key, ())
            if self.only not in (None, key):
                rows += [Row(key, session) for session in sessions if session.session_id in pinned]
            elif accepts is None:
                rows += [Row(key, session) for session in sessions]
            else:
                rows += [Row(key, session) for session in sessions if accepts(session) or session.session_id in pinned]
        arranged, count = raised(arrange(rows, self.sort, inverted=self.inverted), self.pins)
        if count:
            extras.add("pin")
        page = self.page
        if page is not None and (worker_of := self.worker(page.worker)):
            page = page.after(worker_of.snapshot)
        state = replace(self, rows=tuple(arranged), pinned=count, longest=longest, extras=frozenset(extras), page=page)
        return state._following()

    def _following(self) -> State:
        """With the selected session at its new place; where it has ended, with what now stands there."""
        chosen, wish = self.table.chosen, self.wish
        if chosen is None:
            return self
        if not self.rows:
            return replace(self, table=replace(self.table, chosen=None))
        at = None
        for index, (worker, session) in enumerate(self.rows):
            session_id = session.session_id
            if wish is not None and session_id == wish[1] and worker == wish[0]:
                return replace(self, table=replace(self.table, chosen=wish, at=index))
            if session_id == chosen[1] and worker == chosen[0]:
                at = index
                if chosen == wish:
                    break
        if at is None:
            at = min(self.table.at, len(self.rows) - 1)
            chosen = self.rows[at].identity
        if wish is not None and not self._lives(wish):
            wish = chosen
        return replace(self, table=replace(self.table, chosen=chosen, at=at), wish=wish)

    def _lives(self, identity: Identity) -> bool:
        worker = self.worker(identity[0])
        sessions = worker.snapshot.sessions if worker and worker.snapshot else ()
        return any(session.session_id == identity[1] for session in sessions)


def reduce(state: State, event: Event) -> State:
    """The state after the event."""
    match event:
        case Key(name):
            return press(state, name)
        case Shown(top, page):
            return _shown(state, top, page)
        case Tick(now):
            state = replace(state, now=now)
        case Noticed(text):
            return replace(state, notice=text)
        case Inspected(worker, session_id, told):
            if state.page is None or state.page.identity != (worker, session_id):
                return state
            return replace(state, page=replace(state.page, told=told))
    before = state.workers if state.unseen is None else state.unseen
    workers = after(before, event, state.now)
    if workers is before:
        return state
    if state.unseen is not None:
        return replace(state, unseen=workers)
    if isinstance(event, Blocked):  # no row follows from them
        return replace(state, workers=workers)
    return state.showing(workers)


def after(workers: Workers, event: Event, now: float) -> Workers:
    """The workers after something was heard of one, whatever the view shows."""
    match event:
        case Frame(key, snapshot):
            return _workers.heard(workers, key, snapshot, now)
        case Blocked(key, blocks):
            return _workers.told(workers, key, blocks)
        case Gone(key, reason, retry_s):
            return _workers.lost(workers, key, reason, retry_s, now)
        case Found(key, name, pid, host):
            return _workers.found(workers, key, name, pid, host)
        case Dropped(key):
            return _workers.dropped(workers, key)
        case Tick():
            return _workers.forget(workers, now)
    return workers


def _successor(before: Workers, after: Workers, key: str) -> str | None:
    """The worker that was started in this one's place."""
    old = _workers.get(before, key)
    known = {worker.key for worker in before}
    new = [worker.key for worker in after if old is not None and worker.name == old.name]
    return next((key for key in new if key not in known), new[0] if new else None)


def _shown(state: State, top: int, page: int) -> State:
    """What is on top of all else is what was drawn."""
    if state.help is not None:
        help = Scroll(top, page)
        return state if help == state.help else replace(state, help=help)
    if state.chooser is not None:
        listed = _drawn(state.chooser.cursor, top, page)
        chooser = replace(state.chooser, cursor=listed)
        return state if chooser == state.chooser else replace(state, chooser=chooser)
    if state.page is not None:
        scroll = Scroll(top, page)
        return state if scroll == state.page.scroll else replace(state, page=replace(state.page, scroll=scroll))
    if state.view == "blocks":
        cursor = _drawn(state.blocks.cursor, top, page)
        unchanged = cursor is state.blocks.cursor
        return state if unchanged else replace(state, blocks=replace(state.blocks, cursor=cursor))
    if state.view == "workers":
        fleet = _drawn(state.fleet, top, page)
        return state if fleet is state.fleet else replace(state, fleet=fleet)
    table = _drawn(state.table, top, page)
    return state if table is state.table else replace(state, table=table)


def _drawn(cursor: Cursor, top: int, page: int) -> Cursor:  # type: ignore[type-arg]
    return cursor if (top, page) == (cursor.top, cursor.page) else replace(cursor, top=top, page=page)


def _widen(longest: dict[str, int], worker: Worker) -> None:
    assert worker.snapshot is not None
    sessions = worker.snapshot.sessions
    for column, texts in (
        ("session", {session.session_id for session in sessions}),
        ("agent", {session.agent_name for session in sessions}),
        ("tenant", {session.tenant or "-" for session in sessions}),
        ("worker", {worker.name}),
    ):
        longest[column] = max(longest.get(column, 0), _widest(texts))


def _widest(texts: set[str]) -> int:
    """Columns the longest text needs; where a text is not ASCII, the most it can need."""
    return max((len(text) if text.isascii() else 2 * len(text) for text in texts), default=0)
