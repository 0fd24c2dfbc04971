"""The survey: what the tasks of all sessions wait for.

It is made on demand, on the thread that asks. The loops go on meanwhile: it works in slices, keeps no task alive, and
looks first at the tasks that have not stepped for long. Tasks for which there is no time are counted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .._base.clock import Clock, WallTime
from .._loops.asyncio_names import callbacks_of
from .._loops.await_chain import is_future
from .._loops.hook import LoopHook
from .._loops.suspended import SuspendedTask
from .._os.stacks import Call, Places
from .._sessions.session import Session
from ..wire._messages import MAX_GROUPS, Location, Waiter, WaitGroup, Waits
from .found import Line, TaskWait, line_in
from .groups import UNKNOWN, Group, Groups, Rows, Sort
from .holders import AWAITED, HELD, Holders
from .slices import Slices
from .task_wait import library_in, wait_of
from .tasks_waited import name_of_task

Living = Callable[[], Any]
"""A weak reference to a task."""

OnFault = Callable[[Exception], None]
"""Called with a fault of ours in looking at one task, which is then left out."""

Order = list[tuple[LoopHook, list[Living]]]
"""Tasks in the order in which they are looked at, and their loops."""

_AGES_S = (1.0, 10.0, 60.0)
"""Tasks that have not stepped for so long are looked at before the others."""

_OTHERS_TOO = HELD | AWAITED | {"event", "queue", "barrier"}
"""The kinds of waits whose object several tasks may wait for."""

_BY_LIBRARIES = frozenset(("event", "unknown"))
"""The kinds of waits of which it says more to name the library's function."""

_HOLDERS_S = 0.1
"""Seconds for which holders are looked for beyond the deadline, at most."""
_MAX_HELD = 100
"""Locks that are a group of their own because their holder is known; of more, those at one line are one group."""


class Survey:
    """One look at all tasks of some loops."""

    def __init__(
        self,
        hooks: Sequence[LoopHook],
        places: Places,
        clock: Clock,
        wall: WallTime,
        on_fault: OnFault,
        beside: Callable[[], object],
    ) -> None:
        self._on_fault = on_fault
        self._hooks = hooks
        self._places = places
        self._wall = wall
        self._now = clock()
        self._slices = Slices(beside=beside)
        self._rows = Rows()
        self._holders = Holders(places, wall)
        self._sorts: dict[Sort, Sort] = {}
        self._lines: dict[Line, Line] = {}
        """One object for each, however many rows have it."""
        self._locations: dict[Line, Location] = {}
        self._sessions: set[Session] = set()
        self._wrapping: set[int] = set()
        """The tasks that only wrap what another one waits for, by id()."""
        self._first: dict[int, int] = {}
        """The first row that waits for an object, by the object's id()."""
        self._common: set[int] = set()
        """The objects that tasks of several sessions wait for, by id()."""
        self._looked_at = self._not_looked_at = 0

    def run(self) -> Waits:
        """Look, and return the answer."""
        order = self._stale_first()
        for hook, living in _each(order):
            if self._slices.go_on():
                try:
                    self._look_at(hook, living)
                except Exception as error:
                    self._not_looked_at += 1
                    self._on_fault(error)
            else:
                self._not_looked_at += 1
        if self._holders.wants_locks:
            self._find_holders(order)
        groups = Groups(self._rows)
        for _ in self._slices.through(groups.fill(self._own_groups(), self._wrapping)):
            pass
        return Waits(
            id=0,
            taken_at=self._wall.at(self._now),
            sessions=len(self._sessions),
            tasks=self._looked_at,
            not_looked_at=self._not_looked_at,
            groups=[self._described(group) for group in groups.all()[:MAX_GROUPS]],
            took_ms=1000.0 * self._slices.took_s(),
        )

    def _find_holders(self, order: Order) -> None:
        self._slices.extend(_HOLDERS_S)
        self._look_with(self._holders.look_into, order)
        if self._holders.look_for_likely():
            self._look_with(self._holders.look_for_acquire, order)
            self._holders.settle()

    def _look_with(self, look: Callable[[Living, SuspendedTask, LoopHook], None], order: Order) -> None:
        for hook, living in _each(order):
            if not self._slices.go_on():
                break
            try:
                task = living()
                seen = hook.suspended_task(task) if task is not None else None
                if seen is not None and seen.state == "waiting":
                    look(living, seen, hook)
            except Exception as error:
                self._on_fault(error)

    def _own_groups(self) -> set[int]:
        """Return the objects that are a group of their own: those of several sessions, those whose holder is known."""
        held = set(self._holders.known())
        return self._common | held if len(held) <= _MAX_HELD else self._common

    def _stale_first(self) -> Order:
        """Return the living tasks; those that have not stepped for long, or of which it is not known, first."""
        by_age: list[Order] = [[(hook, []) for hook in self._hooks] for _ in range(len(_AGES_S) + 1)]
        for number, hook in enumerate(self._hooks):
            for living in self._slices.through(hook.live_tasks()):
                task = living()
                if task is not None:
                    since = hook.stepped_at(task)
                    age = self._now - since if since is not None else UNKNOWN
                    by_age[len(_AGES_S) - bisect_right(_AGES_S, age)][number][1].append(living)
        return [of_one_loop for of_one_age in by_age for of_one_loop in of_one_age]

    def _look_at(self, hook: LoopHook, living: Living) -> None:
        task = living()
        seen = hook.suspended_task(task) if task is not None else None
        if seen is None:
            return
        session = seen.session if seen.session is not None and not seen.session.ended else None
        since = seen.since
        if session is not None:
            self._sessions.add(session)
        found = wait_of(seen)
        for each in found.through:
            self._wrapping.add(id(each))
            inner = hook.suspended_task(each)
            since = inner.since if inner is not None else since
        target = id(found.target) if _is_shareable(found) else 0
        if target:
            self._see_target(hook, target, found.target, session)
            if found.kind in HELD or found.kind in AWAITED:
                self._holders.want(found.target)
        sort = found.kind, self._what(found)
        line = line_in(found.chain, self._places)
        line = self._lines.setdefault(line, line) if line is not None else None
        self._rows.add(living, id(task), session, since, line, self._sorts.setdefault(sort, sort), target)
        self._looked_at += 1

    def _what(self, found: TaskWait) -> str:
        """Return what is waited for. If a library's function resolves it, that one is named."""
        library = library_in(found.chain, self._places) if found.kind in _BY_LIBRARIES else ""
        return f"{found.what} of {library}" if library else found.what

    def _see_target(self, hook: LoopHook, key: int, target: object, session: Session | None) -> None:
        """Take note that one more task waits for an object, which may be the first one of another session."""
        row = self._first.setdefault(key, len(self._rows))
        if row == len(self._rows) or key in self._common:
            return
        if session is not None and session is self._rows.sessions[row]:
            return
        # The object that the first one waited for may have gone, and this one have its place.
        task = self._rows.tasks[row]()
        seen = hook.suspended_task(task) if task is not None else None
        if seen is not None and wait_of(seen).target is target:
            self._common.add(key)
        else:
            self._rows.targets[row] = 0
            self._first[key] = len(self._rows)

    def _described(self, group: Group) -> WaitGroup:
        line = self._line_of(group)
        return WaitGroup(
            kind=group.kind,
            what=group.what,
            shared=group.shared,
            location=self._location(line) if line is not None else None,
            sessions=len(group.latest),
            tasks=group.tasks,
            stuck=sum(self._slices.through(group.stuck(self._now))),
            since=self._wall.at(group.oldest) if group.oldest != UNKNOWN else None,
            waiters=[self._waiter(row) for row in group.waiters()],
            holders=self._holders.of(group.targets, self._hooks),
        )

    def _line_of(self, group: Group) -> Line | None:
        """Return the line that most tasks of a group have, of the user's code if one has. None: none is known."""
        lines = [line for line, _ in group.lines.most_common()]
        return next((line for line in lines if self._places.is_users(line[0])), lines[0] if lines else None)

    def _waiter(self, row: int) -> Waiter:
        session, task, since, line = (
            self._rows.sessions[row],
            self._rows.tasks[row](),
            self._rows.since[row],
            self._rows.lines[row],
        )
        return Waiter(
            session_id=session.session_id if session is not None else None,
            agent_name=session.agent_name if session is not None else None,
            tenant=session.tenant if session is not None else None,
            task_name=name_of_task(task) if task is not None else "",
            since=self._wall.at(since) if since != UNKNOWN else None,
            location=self._location(line) if line is not None else None,
        )

    def _location(self, line: Line) -> Location:
        found = self._locations.get(line)
        if found is None:
            found = self._locations[line] = self._places.location(Call(*line))
        return found


def _each(order: Order) -> Iterator[tuple[LoopHook, Living]]:
    for hook, of_one_loop in order:
        for living in of_one_loop:
            yield hook, living


def _is_shareable(found: TaskWait) -> bool:
    """Return whether several tasks may wait for the object."""
    if found.target is None:
        return False
    return found.kind in _OTHERS_TOO or (is_future(found.target) and len(callbacks_of(found.target)) > 1)


def survey(
    hooks: Sequence[LoopHook],
    places: Places,
    clock: Clock,
    wall: WallTime,
    on_fault: OnFault,
    beside: Callable[[], object] = lambda: None,
) -> Waits:
    """Return what the tasks on these loops wait for. From any thread.

    beside: other work, called about once a millisecond.
    """
    return Survey(hooks, places, clock, wall, on_fault, beside).run()
