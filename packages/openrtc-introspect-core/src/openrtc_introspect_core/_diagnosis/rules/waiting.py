"""Rules about waiting: the loop is free, and sessions do not get on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from ...wire._messages import ExecutorInfo, Holder, ThreadCallGroup, Waiter
from ..evidence import Evidence
from ..finding import Finding
from ..wait_kind import WAIT_KINDS, awaited, noun
from ..waiting import Standing, rings
from .loop import busy_pct
from .wording import at, count, finding, others, owner, span, who

QUEUED_S = 1.0
STUCK = 3
"""Fewer sessions that wait in one place are no crowd."""
CONVOY_S = {"lock": 1.0, "semaphore": 2.0}
"""By what is held: a semaphore may well let few in at a time."""
CONVOY_HELD_S = 0.5
TOGETHER_S = 2.0
RING_S = 2.0
BUSY_PCT = 85.0
"""On a loop that is as busy, waits are long because it is."""
HELD_PCT = 50.0
"""Likewise in blocks."""


def executor_full(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report a pool of threads that is full while calls wait for one."""
    for series in evidence.waiting.executors:
        last = series[-1]
        queued_s = _queued_s(series, evidence)
        if not all(_full(each) for each in series) or queued_s < QUEUED_S:
            continue
        worst = max(last.calls, key=lambda calls: (calls.running, calls.queued), default=None)
        alike = [calls for calls in last.calls if worst and calls.function == worst.function]
        of_one = worst is None or 2 * worst.running >= last.busy or len(alike) < STUCK
        behind = {calls.session_id for calls in last.calls if calls.queued} - {worst.session_id if worst else None}
        longest_s = max(queued_s, *(each.longest_queued_s or 0.0 for each in series))
        seen = [_calls(worst) if of_one else _same_calls(alike, _or_more(last))] if worst else []
        seen += [f"the longest in the queue for {span(longest_s)}"]
        if behind and of_one:
            seen += [f"calls of {count(len(behind), 'other session')}{_or_more(last)} behind them"]
        yield finding(
            "executor-full",
            "critical",
            title=f"{_name(last)} is full: {last.busy} of {count(last.max_threads or 0, 'thread')} busy, "
            f"{count(last.queued, 'call')} queued",
            seen=", ".join(seen),
            threshold=f"all threads busy and calls queued in all of the last {len(series)} answers, the longest for "
            f"{QUEUED_S:g} s in half of them",
            value=queued_s,
            limit=QUEUED_S,
            unit="s",
            location=worst.location if worst else None,
            **(owner(worst) if worst and of_one else {}),
        )


def _queued_s(series: Sequence[ExecutorInfo], evidence: Evidence) -> float:
    """Return the usual longest time in the queue; if the pool does not know it, as on Trio, the waiters' own."""
    if any(each.longest_queued_s is not None for each in series):
        return median(each.longest_queued_s or 0.0 for each in series)
    return max((each.usual_s for each in evidence.waiting.groups if each.kind == "executor"), default=0.0)


def _full(executor: ExecutorInfo) -> bool:
    return executor.max_threads is not None and executor.busy >= executor.max_threads > 0 and executor.queued > 0


def _name(executor: ExecutorInfo) -> str:
    name = {"default": "the default executor"}.get(executor.name, f"the executor {executor.name}")
    return (
        name
        if executor.kind in ("", "executor")
        else f"{'Trio' if executor.kind == 'trio' else executor.kind}'s thread limiter"
    )


def _calls(calls: ThreadCallGroup) -> str:
    where = at(calls.location) or (f" of {calls.function}" if calls.function else "")
    longest = f", the oldest for {span(calls.longest_running_s)}" if calls.longest_running_s is not None else ""
    return f"{who(calls, 'no session')} has {calls.running} running and {calls.queued} queued{where}{longest}"


def _same_calls(alike: Sequence[ThreadCallGroup], or_more: str) -> str:
    """Describe calls of one function that many sessions have, so that none of them has most of the threads."""
    first = max(alike, key=lambda calls: calls.running)
    where = at(first.location) or (f" of {first.function}" if first.function else "")
    running, queued = sum(calls.running for calls in alike), sum(calls.queued for calls in alike)
    return (
        f"{count(len(alike), 'session')}{or_more} have {running} running and {queued} queued{where} ({first.function})"
    )


def _or_more(executor: ExecutorInfo) -> str:
    """Return " or more" if an answer does not name all that have calls in the queue."""
    return " or more" if sum(calls.queued for calls in executor.calls) < executor.queued else ""


def deadlock(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report tasks each of which waits for what the next one holds."""
    answers = evidence.waiting.answers
    if not evidence.waiting.enough or loop_is_busy(evidence, found):
        return
    by_answer = [
        {frozenset(_task(waiter) for waiter, _ in ring): ring for ring in rings(each)} for each in answers[-3:]
    ]
    for tasks, ring in by_answer[-1].items():
        if not all(tasks in other for other in by_answer):
            continue
        waited = [answers[-1].taken_at - waiter.since for waiter, _ in ring if waiter.since is not None]
        shortest_s = min(waited, default=0.0)
        if len(waited) < len(ring) or shortest_s < RING_S:
            continue
        first, _ = ring[0]
        behind = _behind(tasks, evidence)
        title = (
            f"{who(first, first.task_name)} waits for a lock that it holds itself"
            if len(ring) == 1
            else f"{count(len(ring), 'task')} wait for each other: {' → '.join(_who(waiter) for waiter, _ in ring)} → …"
        )
        yield finding(
            "deadlock",
            "critical",
            title=title,
            seen="; ".join(f"{_who(waiter)} waits{at(waiter.location)}" + _taken(holds) for waiter, holds in ring)
            + f"; for {span(shortest_s)}"
            + (f"; {count(behind, 'session')} in all wait for these locks" if behind > len(ring) else ""),
            threshold=f"a ring of certain holders in all of the last 3 answers, for {RING_S:g} s",
            value=shortest_s,
            limit=RING_S,
            unit="s",
            location=first.location,
            **owner(first),
        )


def _behind(ring: frozenset[tuple[str | None, str]], evidence: Evidence) -> int:
    """Return the number of sessions that wait for what the tasks of a ring hold."""
    groups = evidence.waiting.answers[-1].groups
    return sum(each.sessions for each in groups if any((h.session_id, h.task_name) in ring for h in each.holders))


def _task(waiter: Waiter) -> tuple[str | None, str]:
    return waiter.session_id, waiter.task_name


def _taken(holder: Holder) -> str:
    return f" for what was taken{at(holder.taken_at)}" if holder.taken_at else ""


def lock_convoy(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report sessions that wait for a lock whose holder is suspended."""
    if loop_is_busy(evidence, found):
        return
    for standing in evidence.waiting.groups:
        if not _is_convoy(standing) or _in_ring(standing, evidence, found):
            continue
        holder = standing.holder
        assert holder is not None
        if holder.waits in ("executor", "thread") and _codes(found) & {"executor-full"}:
            continue
        what, limit_s = awaited(standing.kind, standing.last.what), CONVOY_S[standing.kind]
        held = f"{_holder(holder)}{'' if holder.certain else ' most likely'}"
        more = others(len(_holding(standing)) - 1)
        waits = f"waits for {noun(holder.waits)}" if holder.waits else "is suspended"
        yield finding(
            "lock-convoy",
            "critical" if 2 * standing.stuck >= len(evidence.rows) else "warning",
            title=f"{count(standing.last.sessions, 'session')} wait for {what} that {held}{more} "
            f"{'hold' if more else 'holds'}",
            seen=f"{held} {waits}{at(holder.location)}"
            + (f", and took what they wait for{at(holder.taken_at)}" if holder.taken_at else "")
            + f"; no step of {'the holders' if more else 'the holder'} for up to {span(standing.longest_held_s)}"
            + f"; they wait{at(standing.last.location)}, the longest for {span(standing.longest_s)}",
            threshold=f"{STUCK} sessions in {_answers(standing)}, the longest for {limit_s:g} s in half of "
            f"them, while the holder took no step for {CONVOY_HELD_S:g} s",
            value=standing.usual_s,
            limit=limit_s,
            unit="s",
            session_id=holder.session_id,
            agent_name=holder.agent_name,
            tenant=holder.tenant,
            location=holder.location,
        )


def _is_convoy(standing: Standing) -> bool:
    if standing.kind not in CONVOY_S or standing.holder is None or standing.sessions < STUCK:
        return False
    return standing.usual_s >= CONVOY_S[standing.kind] and standing.held_s >= CONVOY_HELD_S


def _holding(standing: Standing) -> set[str]:
    return {_holder(each) for each in standing.last.holders}


def waiting_together(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report sessions that are all stuck at one thing that others in the worker must end."""
    if loop_is_busy(evidence, found):
        return
    for standing in evidence.waiting.groups:
        if not short_if_well(standing) or standing.stuck < STUCK or standing.usual_s < TOGETHER_S:
            continue
        if _is_convoy(standing) or _in_ring(standing, evidence, found):
            continue
        if standing.kind in ("executor", "thread") and _codes(found) & {"executor-full"}:
            continue
        waited = [seen for seen in standing.seen if sum(_long(seen.at, each) for each in seen.group.waiters) >= STUCK]
        if 2 * len(waited) < len(standing.seen):
            continue
        holders = [_holder(each) + at(each.location) for each in standing.last.holders[:3]]
        first = standing.last.waiters[0] if standing.last.waiters else None
        leaks = standing.kind == "semaphore" and not holders
        yield finding(
            "waiting-together",
            "critical" if 2 * standing.stuck >= len(evidence.rows) else "warning",
            "waiting-together/leak" if leaks else None,
            title=f"{count(standing.last.stuck, 'session')} are stuck{at(standing.last.location)}: "
            f"they wait for {_one_and_the_same(standing)}",
            seen=f"none of them took a step since, the longest for {span(standing.longest_s)}"
            + (f", {_who(first)} first" if first else "")
            + (f"; held by {', '.join(holders)}" if holders else "")
            + ("; no task that waits too is seen to have it: it may have been taken and never given back" * leaks),
            threshold=f"{STUCK} sessions in {_answers(standing)}, for {TOGETHER_S:g} s in half of them, and they wait "
            "for what others in the worker must end",
            value=float(standing.stuck),
            limit=float(STUCK),
            unit="sessions",
            location=standing.last.location,
        )


def _one_and_the_same(standing: Standing) -> str:
    """Return what sessions wait for, and whether it is one object: `a connection of one and the same Pool`."""
    what = awaited(standing.kind, standing.last.what)
    if not standing.last.shared:
        return what
    head, of, target = what.rpartition(" of ")
    return f"{head}{of}one and the same {target.removeprefix('a ').removeprefix('an ')}"


def short_if_well(standing: Standing) -> bool:
    """Return whether waits of this kind are short in a healthy worker, as others in the worker must end them.

    Short are also those for room in a queue, and for an entry of a LifoQueue that all share: it is a pool of
    connections. All others may take any time: an idle chat waits for its connection, a queue or an event.
    """
    if standing.kind == "queue":
        what = standing.last.what
        return "full" in what or (standing.last.shared and "LifoQueue" in what)
    return standing.kind in WAIT_KINDS and WAIT_KINDS[standing.kind].short


def _long(at: float, waiter: Waiter) -> bool:
    return waiter.session_id is not None and waiter.since is not None and at - waiter.since >= TOGETHER_S


def loop_is_busy(evidence: Evidence, found: Sequence[Finding]) -> bool:
    """Return whether the loop itself keeps sessions waiting, so that waits say nothing."""
    if _codes(found) & {"blocked-now", "host-throttled", "lock-held-across-await", "loop-full", "saturated-loop"}:
        return True
    if evidence.held_s(evidence.blocks) + evidence.going_on_s() >= 0.01 * HELD_PCT * evidence.span_s > 0.0:
        return True
    busy = evidence.median(lambda worker: busy_pct(worker.loop_time))
    return busy is not None and busy >= BUSY_PCT and not _codes(found) & {"spinning-loop", "callback-flood"}


def _in_ring(standing: Standing, evidence: Evidence, found: Sequence[Finding]) -> bool:
    """Return whether the holder is part of a deadlock that is reported."""
    if "deadlock" not in _codes(found):
        return False
    tasks = {_task(waiter) for ring in rings(evidence.waiting.answers[-1]) for waiter, _ in ring}
    return any((holder.session_id, holder.task_name) in tasks for holder in standing.last.holders)


def _answers(standing: Standing) -> str:
    return f"{len(standing.seen)} of the last {standing.answers} answers"


def _who(each: Waiter | Holder) -> str:
    return each.session_id or (f"task {each.task_name}" if each.task_name else "a task of no session")


def _holder(holder: Holder) -> str:
    return f"thread {holder.thread}" if holder.thread and not holder.session_id else _who(holder)


def _codes(found: Sequence[Finding]) -> set[str]:
    return {other.code for other in found}
