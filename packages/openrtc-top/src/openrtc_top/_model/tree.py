"""A session's tasks as a forest: a task stands above the tasks that it waits for.

The wire has edges (`awaited_by`), and those can form any graph: several tasks may wait for one, and
tasks may wait for each other in a ring. Each task gets exactly one place:

- a task that no other one waits for is a root;
- a task that several wait for stands below the first of them, and the others name it (`elsewhere`);
- if tasks wait for each other in a ring, those that close it name the one they wait for (`ring`);
- of a ring that nothing leads to, the task listed first is the root.

So there are never more branches than tasks. No function recurses: a chain may be thousands long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Location

MAX_TASKS = 500
"""The number of tasks that are placed, if no other is given."""


class Task(Protocol):
    """The part of a task that a tree needs; the wire's TaskInfo has it."""

    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def coroutine(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def awaits(self) -> Sequence[Location]: ...
    @property
    def waiting_on(self) -> str | None: ...
    @property
    def awaited_by(self) -> Sequence[int]: ...


T = TypeVar("T", bound=Task)
T_co = TypeVar("T_co", bound=Task, covariant=True)


@dataclass(frozen=True, slots=True)
class Branch(Generic[T_co]):
    """One task in its place."""

    task: T_co
    last: tuple[bool, ...] = ()
    """From the root's children down to this task: whether it is the last one below its parent. Empty: a root."""
    ring: tuple[T_co, ...] = ()
    """Tasks it waits for that wait for it in turn, and have their place already: no task of a ring can end."""
    elsewhere: tuple[T_co, ...] = ()
    """Other tasks it waits for that have their place below another task."""


@dataclass(frozen=True, slots=True)
class Tree(Generic[T_co]):
    """The branches from the top down."""

    branches: tuple[Branch[T_co], ...] = ()
    unplaced: int = 0
    """The number of tasks without a branch, because there are too many."""


def grow(tasks: Sequence[T], limit: int = MAX_TASKS) -> Tree[T]:
    """Return the forest of these tasks, in their order, of `limit` at most."""
    known = {task.id: task for task in tasks}
    below: dict[int, list[T]] = {task_id: [] for task_id in known}
    waited_for = set()
    for task in known.values():
        for waiter in dict.fromkeys(task.awaited_by):
            if waiter in known:  # the others are of another session, or the worker did not send them
                below[waiter].append(task)
                waited_for.add(task.id)
    rings = _rings(known, below)
    placed: set[int] = set()
    branches: list[Branch[T]] = []
    roots = [task for task in known.values() if task.id not in waited_for]
    for root in (*roots, *known.values()):  # after the roots, what only rings lead to
        if root.id in placed:
            continue
        placed.add(root.id)
        waiting: list[tuple[T, tuple[bool, ...]]] = [(root, ())]
        while waiting and len(branches) < limit:
            task, last = waiting.pop()
            children = [child for child in below[task.id] if child.id not in placed]
            others = [child for child in below[task.id] if child.id in placed]
            placed.update(child.id for child in children)
            ring = tuple(child for child in others if rings[child.id] == rings[task.id])
            elsewhere = tuple(child for child in others if rings[child.id] != rings[task.id])
            branches.append(Branch(task, last, ring, elsewhere))
            waiting += [(child, (*last, child is children[-1])) for child in reversed(children)]
    return Tree(tuple(branches), len(known) - len(branches))


def _rings(known: Mapping[int, T], below: Mapping[int, Sequence[T]]) -> dict[int, int]:
    """Return for each task a number, which all tasks of a ring share.

    Rings are the strongly connected components of the graph, found by Kosaraju's two walks.
    """
    finished: list[int] = []
    seen: set[int] = set()
    for start in known:
        walk = [(start, iter(below[start]))] if start not in seen else []
        seen.add(start)
        while walk:
            task_id, children = walk[-1]
            child = next((child for child in children if child.id not in seen), None)
            if child is None:
                finished.append(task_id)
                walk.pop()
            else:
                seen.add(child.id)
                walk.append((child.id, iter(below[child.id])))
    rings: dict[int, int] = {}
    for ring in reversed(finished):
        reached = [ring]
        while reached:
            task_id = reached.pop()
            if task_id not in rings:
                rings[task_id] = ring
                reached += [waiter for waiter in known[task_id].awaited_by if waiter in known and waiter not in rings]
    return rings
