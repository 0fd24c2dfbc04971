"""The view's state, and what follows from it: no I/O, no clock but its `now`.

Durations that a worker reports are never mixed with `now`, which is the view's own clock. `reducer` has what
events change, `keymap` what keys do.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from openrtc_top._model.block_list import BlockList
from openrtc_top._model.blocks import Entry, entries, in_order
from openrtc_top._model.chooser import Chooser
from openrtc_top._model.columns import COLUMNS, DEFAULT, GROWING, SORTS
from openrtc_top._model.cursor import Cursor, Scroll
from openrtc_top._model.groups import Group, Grouping, groups, host_of
from openrtc_top._model.page import SessionPage
from openrtc_top._model.rows import Filter, Row, Sort, arrange, pinned_first, rows_of
from openrtc_top._model.wait_list import WaitList
from openrtc_top._model.waits import Entry as WaitEntry
from openrtc_top._model.waits import entries as wait_entries
from openrtc_top._model.waits import most_first
from openrtc_top._model.workers import Worker, Workers, get_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from openrtc_introspect_core.wire import SessionRow
    from openrtc_top._model.box_reading import DeadHere

Identity = tuple[str, str]
"""Worker key and session id."""

_AGED_PERIODS = 2.0
_MIN_AGED_S = 1.0

_AUTOMATIC = [(column.id, column.value) for column in COLUMNS if column.automatic and column.value is not None]


@dataclass(frozen=True, slots=True)
class State:
    """Everything a rendering depends on, but for the terminal's size."""

    workers: Workers = ()
    """The workers that are shown, by name, then process id."""
    live_workers: Workers | None = None
    """While the view is paused: the workers as they are now. None: it is not paused."""
    paused_at: float = 0.0
    dead: tuple[DeadHere, ...] = ()
    """The workers that died and left a black box, the latest first."""
    period_s: float = 1.0
    """Seconds from one frame of a worker to the next, as they are asked for."""

    sort: Sort = SORTS["cpu_pct"]
    inverted: bool = False
    filter: Filter = field(default_factory=Filter)
    editing: bool = False
    """The filter's text is being typed."""
    only: str | None = None
    """The key of the worker whose sessions alone are shown."""
    grouping: Grouping | None = None
    """The table lists groups of sessions."""
    group: str | None = None
    """The name of the group whose sessions alone are shown, instead of the list of groups."""
    pins: frozenset[Identity] = frozenset()
    columns: tuple[str, ...] = DEFAULT
    """The ids of the wanted columns, left to right."""
    always: frozenset[str] = frozenset()
    """The automatic columns that are shown even if no row has a value for them."""

    view: Literal["sessions", "blocks", "workers", "waits"] = "sessions"
    table: Cursor[Identity] = field(default_factory=Cursor)
    sticky_selection: Identity | None = None
    """The session selected by hand. It is selected again once no filter hides it."""
    blocks: BlockList = field(default_factory=BlockList)
    wait_list: WaitList = field(default_factory=WaitList)
    group_list: Cursor[str] = field(default_factory=Cursor)
    """The selection in the list of groups, by their names."""
    fleet: Cursor[str] = field(default_factory=Cursor)
    """The selection in the list of workers, by their keys."""
    page: SessionPage | None = None
    """The session's page that lies over the view."""
    chooser: Chooser | None = None
    """The list of columns that lies over the view."""
    help: Scroll | None = None
    """The help that lies over everything."""

    listing: str | None = None
    """The reason why the hosts of `--via-each` are not, or not all, those of now. None: they are."""
    refreshes: int = 0
    """The number of refreshes that were asked for."""
    notice: str = ""
    done: bool = False
    now: float = 0.0

    stale: bool = False
    """What is derived is of earlier workers."""
    rows: tuple[Row, ...] = ()
    """Derived: the pinned sessions, then those that pass the filter, in order."""
    groups: tuple[Group, ...] = ()
    """Derived: the groups of these sessions, the worst first, if they are listed."""
    pinned: int = 0
    """Derived: how many of the rows are pinned."""
    longest: dict[str, int] = field(default_factory=dict)
    """Derived: the longest text seen in a column, so that its width doesn't change with each frame."""
    extras: frozenset[str] = frozenset()
    """Derived: the automatic columns for which a row has a value."""

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
        return self.live_workers is not None

    @property
    def scope(self) -> Workers:
        """The workers whose sessions are shown."""
        chosen = self.worker(self.only) if self.only is not None else None
        if chosen is not None:
            return (chosen,)
        if self.grouping == "host" and self.group is not None:
            return tuple([worker for worker in self.workers if host_of(worker) == self.group])
        return self.workers

    @property
    def lists_groups(self) -> bool:
        """Whether the table lists groups of sessions."""
        return self.grouping is not None and self.group is None

    def worker(self, key: str) -> Worker | None:
        """Return the worker of this key, as shown."""
        return get_worker(self.workers, key)

    def age_s(self, worker: Worker) -> float | None:
        """Return how old a worker's last frame is, seconds. None: no older than two periods, or it has none."""
        if worker.snapshot is None or worker.heard_at is None:
            return None
        age_s = (self.paused_at if self.paused else self.now) - worker.heard_at
        return age_s if age_s > max(_AGED_PERIODS * self.period_s, _MIN_AGED_S) else None

    def follows(self, key: str) -> bool:
        """Return whether the worker of this key is wanted, whether or not it is shown."""
        return get_worker(self.workers if self.live_workers is None else self.live_workers, key) is not None

    def inspects(self, key: str) -> str | None:
        """Return the session of this worker whose page is open and waits for news.

        None: there is none.
        """
        page = self.page
        if page is None or page.worker != key or page.ended or (self.paused and page.inspection is not None):
            return None
        return page.session.session_id

    def entries(self) -> list[Entry]:
        """Return the blocks in scope, those in progress first, then the newest."""
        found = [
            entry
            for worker in self.scope
            for entry in entries(
                worker.key, worker.name, worker.blocks, worker.snapshot if worker.gone is None else None
            )
        ]
        return in_order(found)[::-1]

    def surveys(self, key: str) -> bool:
        """Return whether the page of waits is open and waits for news of the worker of this key."""
        if self.view != "waits" or self.page is not None or self.chooser is not None:
            return False
        worker = get_worker(self.scope, key)
        return worker is not None and not (self.paused and worker.survey is not None)

    def waits(self) -> list[WaitEntry]:
        """Return what the tasks of the workers in scope wait for, the groups with the most sessions first."""
        answered = [(worker, worker.survey.waits) for worker in self.scope if worker.survey is not None]
        return most_first(
            entry for worker, waits in answered if waits for entry in wait_entries(worker.key, worker.name, waits)
        )

    def showing(self, workers: Workers) -> State:
        """Return the state with these workers, and all that follows from them."""
        return self.with_workers(workers).derived()

    def with_workers(self, workers: Workers) -> State:
        """Return the state with these workers. What follows from them is stale."""
        only = self.only
        if only is not None and get_worker(workers, only) is None:
            only = _successor(self.workers, workers, only)
        return replace(self, workers=workers, only=only, stale=True)

    def derived_anew(self) -> State:
        """Return the state with what follows from the workers, if that is stale."""
        return self.derived() if self.stale else self

    def derived(self) -> State:
        """Return the state with what follows from workers, filter and order."""
        if self.grouping == "host" and self.group is not None and not self.scope:  # its host is not listed any more
            return replace(self, group=None).derived()
        accepts = self.filter.test() if self.filter else None
        if self.grouping == "agent" and self.group is not None:
            accepts = _of_agent(self.group, accepts)
        pins: dict[str, set[str]] = {}
        for key, session_id in self.pins:
            pins.setdefault(key, set()).add(session_id)
        rows: list[Row] = []
        longest = dict(self.longest)
        shown = {worker.key for worker in self.scope}
        alone = len(shown) == 1 and all(key in shown for key, _ in self.pins)
        extras = {"worker"} if len(self.workers) > 1 and not alone else set()
        for worker in self.workers:
            if worker.snapshot is None:
                continue
            key, sessions = worker.key, worker.snapshot.sessions
            _widen(longest, worker)
            for column, value in _AUTOMATIC:
                if column not in extras and list(map(value, sessions)).count(None) < len(sessions):
                    extras.add(column)
            pinned = pins.get(key, ())
            if key not in shown:
                sessions = [session for session in sessions if session.session_id in pinned]
            elif accepts is not None:
                sessions = [session for session in sessions if accepts(session) or session.session_id in pinned]
            rows += rows_of(key, sessions)
        page = self.page
        if page is not None and (worker_of := self.worker(page.worker)):
            page = page.after(worker_of.snapshot)
        state = replace(self, longest=longest, extras=frozenset(extras), page=page, stale=False, groups=())
        if self.grouping is not None and self.group is None:
            found = groups(self.scope, rows, self.grouping, chosen=bool(self.filter))
            return replace(state, rows=tuple(rows), pinned=0, groups=found)
        arranged, count = pinned_first(arrange(rows, self.sort, inverted=self.inverted), self.pins)
        if count:
            state = replace(state, extras=state.extras | {"pin"})
        return replace(state, rows=tuple(arranged), pinned=count)._with_selection_followed()

    def _with_selection_followed(self) -> State:
        """Return the state with the selection at its session's new place.

        If the session has ended, its neighbour is selected.
        """
        chosen, sticky = self.table.chosen, self.sticky_selection
        if chosen is None:
            return self
        if not self.rows:
            return replace(self, table=replace(self.table, chosen=None))
        at = None
        for index, (worker, session) in enumerate(self.rows):
            session_id = session.session_id
            if sticky is not None and session_id == sticky[1] and worker == sticky[0]:
                return replace(self, table=replace(self.table, chosen=sticky, at=index))
            if session_id == chosen[1] and worker == chosen[0]:
                at = index
                if chosen == sticky:
                    break
        if at is None:
            at = min(self.table.at, len(self.rows) - 1)
            chosen = self.rows[at].identity
        if sticky is not None and not self._lives(sticky):
            sticky = chosen
        return replace(self, table=replace(self.table, chosen=chosen, at=at), sticky_selection=sticky)

    def _lives(self, identity: Identity) -> bool:
        worker = self.worker(identity[0])
        sessions = worker.snapshot.sessions if worker and worker.snapshot else ()
        return any(session.session_id == identity[1] for session in sessions)


def _successor(before: Workers, after: Workers, key: str) -> str | None:
    """Return the key of the worker that was started in the place of this one."""
    old = get_worker(before, key)
    known = {worker.key for worker in before}
    new = [worker.key for worker in after if old is not None and worker.name == old.name]
    return next((key for key in new if key not in known), new[0] if new else None)


def _of_agent(agent: str, accepts: Callable[[SessionRow], bool] | None) -> Callable[[SessionRow], bool]:
    """Return the test with one agent's sessions alone."""
    return lambda session: session.agent_name == agent and (accepts is None or accepts(session))


def _widen(longest: dict[str, int], worker: Worker) -> None:
    assert worker.snapshot is not None
    sessions = worker.snapshot.sessions
    for column in GROWING:
        texts = {worker.name} if column.value is None else set(map(column.value, sessions))
        texts.discard(None)
        longest[column.id] = max(longest.get(column.id, 0), _widest(texts))


def _widest(texts: set[str]) -> int:
    """Return the cells that the longest text needs.

    For a text that is not ASCII, it is the most that it can need.
    """
    if "".join(texts).isascii():
        return max(map(len, texts), default=0)
    return max(len(text) if text.isascii() else 2 * len(text) for text in texts)
