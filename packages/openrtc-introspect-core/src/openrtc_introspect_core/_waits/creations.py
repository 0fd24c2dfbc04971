"""Where the live threads and tasks of a worker were started, grouped by the line that started them."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._base.gil import yield_gil
from .._loops.hook import LoopHook
from .._loops.starts import Names, Start, names_of
from .._loops.task_starts import function_of
from .._os.stacks import Call, Places
from ..wire._messages import Creation
from .thread_starts import ANY_POOL, ThreadStarts, is_own, is_pools, is_unnamed_pools, runs

MAX_CREATIONS = 20
"""The most groups of threads, and of tasks."""
MAX_TASKS = 5_000
"""The most tasks that are looked at on one loop; of more, so many at random."""
MANY_POOLS = 3
_PER_YIELD = 250

Key = tuple[Call | None, str]
"""The line, and what runs."""


@dataclass(slots=True)
class _Group:
    """Threads or tasks that were started at one line, and run the same."""

    alive: float = 0
    lines: Counter[Call | None] = field(default_factory=Counter)
    sessions: Counter[Names] = field(default_factory=Counter)
    noted: bool = False
    """Whether their starts are counted."""

    def add(self, start: Start, *, noted: bool, stands_for: float = 1) -> None:
        self.alive += stands_for
        self.lines[start.call] += 1
        self.noted |= noted
        if start.session is not None:
            self.sessions[start.session] += 1


def creations(hooks: Sequence[LoopHook], thread_starts: ThreadStarts, places: Places, now: float) -> list[Creation]:
    """Return where live threads and tasks were started, most first. On the service thread.

    The places of tasks are noted for a while from now on, so that a second answer has those created since.

    now: clock reading.
    """
    threads: dict[Key, _Group] = {}
    living = list(_threads(thread_starts, places))
    made_again = _lines_of_many_pools(start for start, _ in living)
    for start, noted in living:
        key = _key_of_thread(start.call, start.function, made_again)
        threads.setdefault(key, _Group()).add(start, noted=noted)
    tasks: dict[Key, _Group] = {}
    for hook in hooks:
        hook.task_starts.ask(now, places)
        for start, noted, stands_for in _tasks(hook):
            group = tasks.setdefault((start.call, start.function), _Group())
            group.add(start, noted=noted, stands_for=stands_for)
    begun: Counter[Key] = Counter()
    for (call, function), number in dict(thread_starts.started).items():
        begun[call, _key_of_thread(call, function, made_again)[1]] += number
    started: Counter[Key] = Counter()
    for hook in hooks:
        started.update(dict(hook.task_starts.started))
    return [
        *_described("thread", threads, begun, places),
        *_described("task", tasks, started, places),
    ]


def _lines_of_many_pools(starts: Iterable[Start]) -> set[Call | None]:
    """Return the lines at which threads of several pools without a name of their own were started.

    There a pool is made again and again; each has threads of its own.
    """
    pools: dict[Call | None, set[str]] = {}
    for start in starts:
        if is_unnamed_pools(start.function):
            pools.setdefault(start.call, set()).add(start.function)
    return {line for line, functions in pools.items() if len(functions) >= MANY_POOLS}


def _key_of_thread(call: Call | None, function: str, made_again: set[Call | None]) -> Key:
    """Return the group of a thread that was started at a line and runs a function, or is of a pool."""
    if is_unnamed_pools(function) and call in made_again:
        return call, ANY_POOL
    return (None if is_pools(function) else call), function


def _threads(thread_starts: ThreadStarts, places: Places) -> Iterator[tuple[Start, bool]]:
    """Yield the start of each live thread of the host's, and whether it was seen."""
    for thread in _in_slices(threading.enumerate()):
        if thread is threading.main_thread() or isinstance(thread, threading._DummyThread) or is_own(thread, places):
            continue
        start = thread_starts.of(thread)
        yield start or Start(None, runs(thread), None), start is not None


def _tasks(hook: LoopHook) -> Iterator[tuple[Start, bool, float]]:
    """Yield the start of each live task but the one that runs, whether it was seen, and how many it stands for."""
    living = hook.live_tasks()
    stands_for = max(1.0, len(living) / MAX_TASKS)
    for each in _in_slices(living if stands_for == 1.0 else random.sample(living, MAX_TASKS)):
        task = each()
        suspended = hook.suspended_task(task) if task is not None else None
        if suspended is None:
            continue
        start = hook.task_starts.of(task)
        found = start or Start(None, function_of(task), names_of(suspended.session))
        yield found, start is not None, stands_for


def _in_slices(things: Iterable[Any]) -> Iterator[Any]:
    """Yield the things, and the GIL in between."""
    for count, thing in enumerate(things, start=1):
        yield thing
        if count % _PER_YIELD == 0:
            yield_gil()


def _described(kind: str, groups: dict[Key, _Group], started: Counter[Key], places: Places) -> Iterator[Creation]:
    most = sorted(groups.items(), key=lambda entry: (-entry[1].alive, entry[0][1]))[:MAX_CREATIONS]
    for (line, function), group in most:
        line = line or group.lines.most_common(1)[0][0]
        session, agent, tenant = group.sessions.most_common(1)[0][0] if group.sessions else (None, None, None)
        total = sum(n for (call, runs_), n in started.items() if runs_ == function and call in group.lines)
        yield Creation(
            kind=kind,
            location=places.location(line) if line is not None else None,
            function=function,
            session_id=session,
            agent_name=agent,
            tenant=tenant,
            alive=round(group.alive),
            started=total if group.noted else None,
        )
