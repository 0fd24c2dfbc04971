"""Rules about memory, what ended sessions hold of it, and sessions that do not end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from ...wire._messages import WorkerInfo
from ..evidence import Evidence, climbs
from ..finding import Finding
from ..memory_limits import CGROUP, HOST, POOL, MemoryLimit, memory_limits
from .wording import count, finding, others, owner, span

LIMIT_PCT = 80.0
NEARLY_PCT = 95.0
HOST_PCT = 95.0
"""Of the machine's memory, which others use too."""
TREND_S = 4.0
RISE_MB = 2.0
AHEAD_MIN = 30.0
SOON_MIN = 5.0
LEFT_MB = 5.0
LEFT_S = 30.0
"""After so many seconds collections have run and tasks that were ending have ended."""
OLD_S = 2 * 3600.0
TIMES_OLDER = 10.0
OLDER_THAN = 3
"""The number of other sessions that a comparison needs."""

_EXPLAINS_MEMORY = {"tasks-grow", "threads-grow"}
"""Each task and each thread takes memory."""


def memory_limit(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report memory that is nearly used up: the pool's, the cgroup's or the machine's; or kills for want of it."""
    limits = memory_limits(evidence.worker)
    killed = _killed(evidence)
    if killed:
        group = next((limit for limit in limits if limit.name == CGROUP), None)
        yield finding(
            "memory-limit",
            "critical",
            title=f"the kernel killed {count(killed, 'process', 'es')} of the cgroup for want of memory",
            seen=_used(evidence, group) if group is not None else _of_worker(evidence),
            threshold="one process while watched",
            value=float(killed),
            limit=1.0,
            unit="processes",
        )
        return
    for limit in limits:
        least = HOST_PCT if limit.name == HOST else LIMIT_PCT
        if limit.used_pct >= least and all(_pct(frame.worker, limit.name) >= least for frame in evidence.frames):
            yield finding(
                "memory-limit",
                "critical" if limit.used_pct >= NEARLY_PCT else "warning",
                title=f"memory is at {limit.used_pct:.0f} % of "
                + ("the machine's" if limit.name == HOST else f"the {limit.name}"),
                seen=_used(evidence, limit),
                threshold=f"{least:g} % of the {'machine' if limit.name == HOST else 'limit'} in every snapshot",
                value=limit.used_pct,
                limit=least,
                unit="%",
            )
            return


def _killed(evidence: Evidence) -> int:
    """Return how many processes of the cgroup were killed while it was watched."""
    kills = [
        frame.worker.cgroup.oom_kills
        for frame in evidence.frames
        if frame.worker.cgroup is not None and frame.worker.cgroup.oom_kills is not None
    ]
    return max(0, kills[-1] - kills[0]) if kills else 0


def _pct(worker: WorkerInfo, name: str) -> float:
    """Return how much of a limit is used, in percent; 0 if it is not known."""
    return next((limit.used_pct for limit in memory_limits(worker) if limit.name == name), 0.0)


def _used(evidence: Evidence, limit: MemoryLimit) -> str:
    """Describe what counts towards a limit."""
    amount = f"{limit.used_mb:.0f} MB of {limit.limit_mb:.0f} MB"
    group = evidence.worker.cgroup
    if limit.name == POOL:
        return f"rss {amount}, {_of_sessions(evidence)}"
    if limit.name == HOST or group is None:
        return f"{amount} not available, {_of_worker(evidence)}"
    seen = [f"{amount} that cannot be reclaimed"]
    seen += [f"set by {group.memory_limit_file}"] if group.memory_limit_file else []
    parts = (("anon", group.anon_mb), ("file", group.file_mb), ("kernel", group.kernel_mb))
    seen += [", ".join(f"{part} {mb:.0f}" for part, mb in parts if mb is not None) + " MB"]
    if group.memory_working_set_mb is not None:
        seen[-1] += f", working set {group.memory_working_set_mb:.0f} MB"
    if group.memory_pressure_pct:
        seen += [f"memory pressure {group.memory_pressure_pct:.0f} %"]
    if group.oom_kills:
        seen += [f"{group.oom_kills} killed since the group was made"]
    return "; ".join([*seen, _of_worker(evidence)])


def _of_worker(evidence: Evidence) -> str:
    return f"the worker's rss {evidence.worker.rss_mb:.0f} MB, {_of_sessions(evidence)}"


def _of_sessions(evidence: Evidence) -> str:
    return count(len(evidence.rows), "session") + (", draining" if evidence.worker.draining else "")


def memory_trend(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report memory that grows steadily and will soon reach the limit."""
    worker, series = evidence.worker, [frame.worker.rss_mb for frame in evidence.frames]
    if not evidence.enough or evidence.span_s < TREND_S or not climbs(series, RISE_MB):
        return
    if len(evidence.rows) > len(evidence.first.sessions) or any(other.code in _EXPLAINS_MEMORY for other in found):
        return
    a_minute = 60.0 * (series[-1] - series[0]) / evidence.span_s
    trend = worker.rss_trend_mb_per_min
    if trend is not None and trend < 0.25 * a_minute:  # over the last minute it goes up and down
        return
    limits = memory_limits(worker)
    limited = any(limit.name != HOST for limit in limits)
    if not limited:
        limits = sorted([*limits, MemoryLimit("", worker.rss_mb, 2.0 * worker.rss_mb)], key=lambda each: each.left_mb)
    nearest = limits[0]
    left = nearest.left_mb / a_minute
    if left > AHEAD_MIN:
        return
    whose = max(evidence.rows, key=lambda row: row.heap_growth_mb_per_min or 0.0, default=None)
    if whose is not None and (whose.heap_growth_mb_per_min or 0.0) < 0.5 * a_minute:
        whose = None
    until = {"": "twice of that", HOST: "the end of the machine's memory"}.get(
        nearest.name, f"the {nearest.name} of {nearest.limit_mb:.0f} MB"
    )
    yield finding(
        "memory-trend",
        "critical" if nearest.name and left <= SOON_MIN else "warning",
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
    """Report memory that an ended session may still hold."""
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
    by = {True: ", a task, callback or timer that it made is still referenced", False: ", in plain data", None: ""}
    tasks = f", {count(worst.tasks, 'unfinished task')}" if worst.tasks else ""
    yield finding(
        "left-behind",
        "warning" if certain else "note",
        title=f"{worst.session_id}{others(len(left) - 1)} {holds} MB, {ago} after its end",
        seen=f"{worst.heap_mb:.0f} MB at its end, {worst.at_least_mb:.0f} MB of it not freed since"
        + (tasks or by[worst.referenced]),
        threshold=f"{LEFT_MB:g} MB held for certain, or by something that it made, {LEFT_S:g} s after its end",
        value=worst.at_least_mb if certain else worst.heap_mb,
        limit=LEFT_MB,
        unit="MB",
        **owner(worst),
    )


def old_session(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report a session that is much older than the others."""
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
