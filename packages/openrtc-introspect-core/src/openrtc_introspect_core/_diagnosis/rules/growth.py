"""Rules about what only grows: sessions that take no step, tasks, threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from ...wire._messages import Creation, SessionRow, Waits
from ..echoes import is_echo
from ..evidence import Evidence, climbs
from ..finding import Finding
from ..wait_kind import WAIT_KINDS, awaited
from ..waiting import SAME_S, Standing
from .waiting import loop_is_busy, short_if_well
from .wording import at, count, finding, others, owner, span, who

STALE = 5
GROWTH = 3
STALE_S = 3.0
IDLE_STALE_S = 60.0
"""So long at least if they wait for what comes from outside: half of those that are named."""
TASKS = 10
LOOSE_TASKS = 20
SETTLED_S = 2.0
THREADS = 8
POOL = 64
"""The most threads of a pool whose size is not known."""

_POOLS = ("ThreadPoolExecutor ", "anyio's ", "Trio's ")
"""The beginnings of the functions that threads of a pool run, as a worker reports them."""


def stale_sessions(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report sessions that wait at one line, take no step and become more and more."""
    numbers = [len(frame.sessions) for frame in evidence.frames]
    if not evidence.enough or loop_is_busy(evidence, found) or not climbs(numbers, GROWTH):
        return
    gathered = [
        each
        for each in evidence.waiting.groups
        if not short_if_well(each) and each.stuck >= STALE and _only_gathers(each)
    ]
    for standing in gathered:
        if is_echo(standing.last, [each.last for each in gathered]):
            continue
        last = standing.seen[-1]
        named = [last.waited_s(waiter.since) for waiter in last.group.waiters if waiter.session_id is not None]
        usual_s = median(named) if named else 0.0
        kind = WAIT_KINDS.get(standing.kind)
        least_s = IDLE_STALE_S if kind is not None and kind.idle else STALE_S
        if usual_s < least_s:
            continue
        worst = next(waiter for waiter in last.group.waiters if waiter.session_id is not None)
        place = last.group.location
        yield finding(
            "stale-sessions",
            "warning",
            title=f"{count(last.group.stuck, 'session')} took no step for up to {span(last.longest_s)}, all{at(place)}",
            seen=f"they wait for {awaited(standing.kind, last.group.what)}, {worst.session_id} the longest; "
            f"{numbers[0]} to {count(numbers[-1], 'session')} in {span(evidence.span_s)}, and none of those that wait "
            "there went on",
            threshold=f"{STALE} sessions without a step, half of them for {least_s:g} s, {GROWTH} more while watched, "
            "and none that goes on",
            value=float(last.group.stuck),
            limit=float(STALE),
            unit="sessions",
            location=place,
            **owner(worst),
        )


def _only_gathers(standing: Standing) -> bool:
    """Return whether no session left the group, and others came."""
    stuck = [each.group.stuck for each in standing.seen]
    first, last = (
        {
            (waiter.session_id, waiter.task_name): waiter.since
            for waiter in each.group.waiters
            if waiter.since is not None
        }
        for each in (standing.seen[0], standing.seen[-1])
    )
    stayed = all(abs(last.get(task, 0.0) - since) < SAME_S for task, since in first.items() if task[0] is not None)
    return stayed and stuck == sorted(stuck) and stuck[-1] > stuck[0]


def tasks_grow(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report a session that begins tasks and ends none, or code of no session that does."""
    if not evidence.enough:
        return
    grown = [
        (row.tasks - old.tasks, row.tasks, row)
        for old, row in evidence.stayed
        # None: the session has a process of its own, whose tasks are not visible.
        if old.tasks is not None and row.tasks is not None
        if row.tasks - old.tasks >= TASKS and old.duration_s >= SETTLED_S and _only_grows(evidence, row)
    ]
    if not grown:
        yield from _loose_tasks(evidence)
        return
    rise, tasks, worst = max(grown, key=lambda each: each[0])
    places = [series[-1] for series in evidence.waiting.creations if series[-1].kind == "task" and _rise(series) > 0]
    own = [place for place in places if place.session_id == worst.session_id]
    place = max(own, key=lambda each: each.alive, default=None)
    yield finding(
        "tasks-grow",
        "warning",
        title=f"the tasks of {worst.session_id}{others(len(grown) - 1)} only grow",
        seen=f"{tasks - rise} to {tasks} tasks in {span(evidence.span_s)}, and never fewer"
        + (f"; {place.alive:,} were created{at(place.location)} and run {place.function}" if place else ""),
        threshold=f"{TASKS} more tasks while watched, in both halves of it, and never fewer",
        value=float(rise),
        limit=float(TASKS),
        unit="tasks",
        location=place.location if place else None,
        **owner(worst),
    )


def _loose_tasks(evidence: Evidence) -> Iterator[Finding]:
    """Report tasks that are created at one line, and become more while sessions do not."""
    if len(evidence.rows) > len(evidence.first.sessions):
        return
    places = [series for series in evidence.waiting.creations if series[-1].kind == "task"]
    worst = _worst(places, LOOSE_TASKS)
    if worst is None:
        return
    last = worst[-1]
    yield finding(
        "tasks-grow",
        "warning",
        title=f"the tasks that run {last.function or 'one function'} only grow",
        seen=f"{worst[0].alive:,} to {last.alive:,} tasks, created{at(last.location)} by {who(last, 'no session')}",
        threshold=f"{LOOSE_TASKS} more of one place while watched, in both halves of it, with no more sessions",
        value=_rise(worst),
        limit=float(LOOSE_TASKS),
        unit="tasks",
        location=last.location,
        **owner(last),
    )


def threads_grow(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report threads that are started at one line and do not end."""
    most = max([POOL, *(series[-1].max_threads or 0 for series in evidence.waiting.executors)])
    places = [
        series
        for series in evidence.waiting.creations
        # A pool starts its threads one by one, up to what it may have.
        if series[-1].kind == "thread"
        if not series[-1].function.startswith(_POOLS) or series[-1].alive > most
    ]
    worst = _worst(places, THREADS)
    if worst is None:
        yield from _unseen_threads(evidence)
        return
    last, span_s = worst[-1], evidence.waiting.span_s
    yield finding(
        "threads-grow",
        "warning",
        title=f"threads only grow: {last.alive:,} "
        + (f"run {last.function or 'one function'}" if last.function != "ThreadPoolExecutor" else "of pools that stay"),
        seen=f"{worst[0].alive:,} to {last.alive:,} in {span(span_s)}, started{at(last.location)} by "
        f"{who(last, 'no session')}; {count(evidence.worker.host.threads, 'thread')} in all",
        threshold=f"{THREADS} more of one place while watched, in both halves of it, and never fewer",
        value=_rise(worst),
        limit=float(THREADS),
        unit="threads",
        location=last.location,
        **owner(last),
    )


def _unseen_threads(evidence: Evidence) -> Iterator[Finding]:
    """Report threads that become more while sessions do not, and that no known line has started."""
    if not evidence.enough or not evidence.waiting.enough or len(evidence.rows) > len(evidence.first.sessions):
        return
    alive = [frame.worker.host.threads for frame in evidence.frames]
    if alive != sorted(alive):
        return
    first, last = (_known_threads(evidence.waiting.answers[each]) for each in (0, -1))
    unseen = alive[-1] - alive[0] - max(0, last - first)
    if unseen < THREADS or not climbs(alive, THREADS):
        return
    yield finding(
        "threads-grow",
        "warning",
        title=f"threads only grow: {alive[0]:,} to {alive[-1]:,} in all",
        seen=f"{unseen:,} more in {span(evidence.span_s)} that `threading` has not started, but "
        "`_thread.start_new_thread` or a library in C; their line is not known",
        threshold=f"{THREADS} more of the process while watched, in both halves of it, and never fewer, with no more "
        "sessions",
        value=float(unseen),
        limit=float(THREADS),
        unit="threads",
    )


def _known_threads(answer: Waits) -> int:
    return sum(each.alive for each in answer.creations if each.kind == "thread")


def _worst(places: Sequence[Sequence[Creation]], least: int) -> Sequence[Creation] | None:
    """Return the place whose number rose most and steadily, by `least` or more. None: there is none."""
    return max((each for each in places if _climbs(each, least)), key=_rise, default=None)


def _climbs(series: Sequence[Creation], least: int) -> bool:
    alive = [each.alive for each in series]
    return alive == sorted(alive) and climbs(alive, least)


def _rise(series: Sequence[Creation]) -> float:
    return float(series[-1].alive - series[0].alive)


def _only_grows(evidence: Evidence, last: SessionRow) -> bool:
    rows = (row for frame in evidence.frames for row in frame.sessions if row.session_id == last.session_id)
    tasks = [row.tasks for row in rows if row.tasks is not None]
    return tasks == sorted(tasks) and climbs(tasks, TASKS)
