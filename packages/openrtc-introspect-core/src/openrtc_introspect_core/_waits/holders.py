"""The holders of what tasks wait for.

A lock of anyio's or Trio's, and a capacity limiter, knows its owners. An asyncio.Lock and a semaphore do not: the tasks
that are inside of their `async with` are found by looking into all of them (held_locks.py). A task that has called
`acquire` itself is the likely holder (likely_holder.py). One that runs now is not found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from weakref import ref

from .._base.clock import WallTime
from .._loops.asyncio_names import is_task
from .._loops.hook import LoopHook
from .._loops.suspended import SuspendedTask
from .._os.stacks import Call, Places
from ..wire._messages import MAX_WAITERS, Holder
from .described_holder import running_holder, suspended_holder
from .held_locks import held_locks
from .likely_holder import taken_along
from .locks import inner_lock, owner_of
from .task_wait import wait_of

HELD = frozenset(("lock", "semaphore", "condition", "executor"))
"""The kinds of waits for what a task may hold."""
AWAITED = frozenset(("other-task", "shared-task"))
"""The kinds of waits whose holder is the task that is waited for."""


_MAX_LIKELY = 5
"""Locks whose likely holder is looked for."""


class _Found(NamedTuple):
    """A task that holds something."""

    living: Callable[[], Any]
    """A weak reference to it."""
    hook: LoopHook | None
    """Its loop's. None: not known."""
    taken_at: Call | None = None
    certain: bool = True


class Holders:
    """The holders of the objects that are wanted, by the objects' id()."""

    def __init__(self, places: Places, wall: WallTime) -> None:
        self._places = places
        self._wall = wall
        self._wanted: dict[int, Any] = {}
        """Weak references to what tasks wait for."""
        self._locks: dict[int, int] = {}
        """By the id() of a lock inside, as held_locks gives it: the id() of what tasks wait for."""
        self._found: dict[int, list[_Found]] = {}
        self._likely: dict[int, list[_Found]] = {}

    def want(self, target: object) -> None:
        """Find the holders of a lock or a limiter that a task waits for, or of what a task that is waited for does."""
        key = id(target)
        if key in self._wanted:
            return
        try:
            self._wanted[key] = ref(target)
        except TypeError:  # its class does not allow it
            return
        if is_task(target):
            self._found[key] = [_Found(self._wanted[key], None)]
            return
        owners = [owner for owner in owner_of(target) if type(owner).__name__ == "Task"]  # a limiter takes any object
        if owners:
            self._found[key] = [_Found(ref(owner), None) for owner in owners[:MAX_WAITERS]]
        self._locks[id(inner_lock(target))] = key

    @property
    def wants_locks(self) -> bool:
        """Return whether tasks have to be looked into."""
        return bool(self._locks)

    def look_into(self, living: Callable[[], Any], seen: SuspendedTask, hook: LoopHook) -> None:
        """Take note of the wanted locks that a suspended task holds."""
        for held in held_locks(seen.coro):
            key = self._locks.get(id(held.lock))
            target = self._wanted[key]() if key is not None else None
            if key is None or target is None or inner_lock(target) is not held.lock:
                continue
            found = self._found.setdefault(key, [])
            for number, known in enumerate(found):
                if known.living() is seen.task:  # the lock itself has named it
                    found[number] = _Found(living, hook, held.taken_at)
                    break
            else:
                if len(found) < MAX_WAITERS:
                    found.append(_Found(living, hook, held.taken_at))

    def look_for_likely(self) -> bool:
        """Return whether there are locks that nobody is inside of, after all tasks were looked into."""
        missing = [key for key in self._locks.values() if key not in self._found]
        self._likely = {key: [] for key in missing[:_MAX_LIKELY]}
        return bool(self._likely)

    def look_for_acquire(self, living: Callable[[], Any], seen: SuspendedTask, hook: LoopHook) -> None:
        """Take note if a suspended task has called `acquire` of such a lock."""
        for key, likely in self._likely.items():
            target = self._wanted[key]()
            taken_at = taken_along(seen.coro, inner_lock(target), seen.future) if target is not None else None
            if taken_at is not None:
                likely.append(_Found(living, hook, taken_at, certain=False))

    def settle(self) -> None:
        """Name a likely holder if there is one only."""
        self._found.update({key: likely for key, likely in self._likely.items() if len(likely) == 1})

    def known(self) -> Iterable[int]:
        """Return the objects whose holders are known, by id()."""
        return self._found.keys()

    def of(self, targets: Iterable[int], hooks: Iterable[LoopHook]) -> list[Holder]:
        """Return the holders of some objects, which are certain if there is one object."""
        keys = list(targets)
        described: list[Holder] = []
        for key in keys:
            for found in self._found.get(key, ()):
                task = found.living()
                if task is not None and len(described) < MAX_WAITERS:
                    its = (found.hook,) if found.hook is not None else hooks
                    described.append(self._described(task, its, found.taken_at, found.certain and len(keys) == 1))
        return described

    def _described(self, task: Any, hooks: Iterable[LoopHook], taken_at: Call | None, certain: bool) -> Holder:
        seen = next((each for hook in hooks if (each := hook.suspended_task(task)) is not None), None)
        if seen is None:
            return running_holder(task, self._places, taken_at=taken_at, certain=certain)
        found = wait_of(seen)
        return suspended_holder(
            seen, found.chain, self._places, self._wall, taken_at=taken_at, waits=found.kind, certain=certain
        )
