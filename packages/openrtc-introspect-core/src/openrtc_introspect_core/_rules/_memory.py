"""Rules about what grows or stays: memory, what ended sessions hold, a session's tasks, a session's age."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from .._evidence import Evidence, climbs
from .._finding import Finding
from ..wire._messages import SessionRow
from ._say import count, finding, others, owner, span

LIMIT_PCT = 80.0
NEARLY_PCT = 95.0
TREND_S = 4.0
RISE_MB = 2.0
AHEAD_MIN = 30.0
SOON_MIN = 5.0
LEFT_MB = 5.0
LEFT_S = 30.0
"""Collections and tasks on their way out have had their turn by then."""
TASKS = 10
SETTLED_S = 2.0
OLD_S = 2 * 3600.0
TIMES_OLDER = 10.0
OLDER_THAN = 3
"""Without so many other sessions there is nothing to compare with."""


def memory_limit(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """The process has most of what it may have."""
    limit = evidence.worker.memory_limit_mb
    least = min(frame.worker.rss_mb for frame in evidence.frames)
    if limit <= 0.0 or 100.0 * least < LIMIT_PCT * limit:
        return
    rss = evidence.worker.rss_mb
    share = 100.0 * (rss / limit)
    yield finding(
        "memory-limit",
        "critical" if share >= NEARLY_PCT else "warning",
        title=f"memory is at {share:.0f} % of the limit",
        seen=f"rss {rss:.0f} MB of {limit:.0f} MB, {count(len(evidence.rows), 'session')}"
        + (", draining" if evidence.worker.draining else ""),
        threshold=f"{LIMIT_PCT:g} % of the limit in every snapshot",
        value=share,
        limit=LIMIT_PCT,
        unit="%",
    )


def memory_trend(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Memory grows steadily, with no more sessions, and will be at the limit before long."""
    worker, series = evidence.worker, [frame.worker.rss_mb for frame in evidence.frames]
    if not evidence.enough or evidence.span_s < TREND_S or not climbs(series, RISE_MB):
        return
    if len(evidence.rows) > len(evidence.first.sessions):
        return
    a_minute = 60.0 * (series[-1] - series[0]) / evidence.span_s
    trend = worker.rss_trend_mb_per_min
    if trend is not None and trend < 0.25 * a_minute:  # up and down, over the last minute
        return
    limit = worker.memory_limit_mb
    left = max(0.0, (limit if limit > 0.0 else 2.0 * worker.rss_mb) - worker.rss_mb) / a_minute
    if left > AHEAD_MIN:
        return
    whose = max(evidence.rows, key=lambda row: row.heap_growth_mb_per_min or 0.0, default=None)
    if whose is not None and (whose.heap_growth_mb_per_min or 0.0) < 0.5 * a_minute:
        whose = None
    until = f"the limit of {limit:.0f} MB" if limit > 0.0 else "twice of that"
    yield finding(
        "memory-trend",
        "critical" if limit > 0.0 and left <= SOON_MIN else "warning",
        title=f"memory grows by {a_minute:.0f} MB a minute",
        seen=f"rss {series[0]:.0f} to {series[-1]:.0f} MB in {span(evidence.span_s)}, with no more sessions; "
        f"at {until} in {span(60.0 * left)}"
        + (f"; {whose.session_id}'s own grows by {whose.heap_growth_mb_per_min:.0f} MB a minute" if whose else ""),
        threshold=f"{RISE_MB:g} MB while watched, in both halves of it, and {AHEAD_MIN:g} min to the limit "
        "(without one: to twice as much)",
        value=left,
        limit=AHEAD_MIN,
        unit="min",
        **(owner(whose) if whose else {}),
    )


def left_behind(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """A session has ended, and what it took is still held: for certain, or by something that it made."""
    now = evidence.frames[-1].taken_at
    left = [
        each
        for each in evidence.worker.left_behind
        if now - each.ended_at >= LEFT_S
        if each.at_least_mb >= LEFT_MB or (each.referenced and each.heap_mb >= LEFT_MB)
    ]
    if not left:
        return
    worst = max(left, key=lambda each: (each.at_least_mb >= LEFT_MB, max(each.at_least_mb, each.heap_mb)))
    ago = span(now - worst.ended_at)
    certain = worst.at_least_mb >= LEFT_MB
    holds = f"still holds {worst.at_least_mb:.0f}" if certain else f"may still hold {worst.heap_mb:.0f}"
    by = {True: ", a task, callback or timer of its is referenced", False: ", in plain data", None: ""}
    tasks = f", {count(worst.tasks, 'task')} of its not ended" if worst.tasks else ""
    yield finding(
        "left-behind",
        "warning" if certain else "note",
        title=f"{worst.session_id}{others(len(left) - 1)} {holds} MB, {ago} after its end",
        seen=f"{worst.heap_mb:.0f} MB at its end, {worst.at_least_mb:.0f} MB of it given back by nobody since"
        + (tasks or by[worst.referenced]),
        threshold=f"{LEFT_MB:g} MB held for certain, or by something that it made, {LEFT_S:g} s after its end",
        value=worst.at_least_mb if certain else worst.heap_mb,
        limit=LEFT_MB,
        unit="MB",
        **owner(worst),
    )


def tasks_grow(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """A session begins tasks and ends none."""
    if not evidence.enough:
        return
    grown = [
        (row.tasks - old.tasks, row.tasks, row)
        for old, row in evidence.stayed
        # Null: a session in a process of its own, whose tasks are not seen.
        if old.tasks is not None and row.tasks is not None
        if row.tasks - old.tasks >= TASKS and old.duration_s >= SETTLED_S and _only_grows(evidence, row)
    ]
    if not grown:
        return
    rise, tasks, worst = max(grown, key=lambda each: each[0])
    yield finding(
        "tasks-grow",
        "warning",
        title=f"the tasks of {worst.session_id}{others(len(grown) - 1)} only grow",
        seen=f"{tasks - rise} to {tasks} tasks in {span(evidence.span_s)}, and never fewer",
        threshold=f"{TASKS} more tasks while watched, in both halves of it, and never fewer",
        value=float(rise),
        limit=float(TASKS),
        unit="tasks",
        **owner(worst),
    )


def old_session(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """A session that has outlived the others by far."""
    rows = evidence.rows
    if len(rows) <= OLDER_THAN:
        return
    ages = [row.duration_s for row in rows]
    usual = median(ages)
    old = [row for row in rows if row.duration_s >= OLD_S and row.duration_s >= TIMES_OLDER * usual]
    if not old:
        return
    worst = max(old, key=lambda row: row.duration_s)
    yield finding(
        "old-session",
        "note",
        title=f"{worst.session_id}{others(len(old) - 1)} is much older than the others",
        seen=f"{span(worst.duration_s)} old; half of the {count(len(rows), 'session')} are younger than {span(usual)}",
        threshold=f"{OLD_S / 3600:g} h, and {TIMES_OLDER:g} times the median of {OLDER_THAN + 1} sessions or more",
        value=worst.duration_s / 3600.0,
        limit=OLD_S / 3600.0,
        unit="h",
        **owner(worst),
    )


def _only_grows(evidence: Evidence, last: SessionRow) -> bool:
    rows = (row for frame in evidence.frames for row in frame.sessions if row.session_id == last.session_id)
    tasks = [row.tasks for row in rows if row.tasks is not None]
    return tasks == sorted(tasks) and climbs(tasks, TASKS)
