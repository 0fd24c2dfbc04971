"""Rules about where the loop's time goes, and whether that is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...wire._messages import LoopTime, WorkerInfo
from ..cause import NOT_LOOP_CODE, causes_of
from ..evidence import Evidence, Watched, together_ms
from ..finding import Finding
from .wording import count, finding, ms, others, owner, span, throttled_pct

HOT_PCT = 50.0
HOT_TIMES = 5.0
HOT_CPU_PCT = 20.0
"""On a full host: the multiple of the next session's share, and the processor time of the process."""
STEPS_PER_S = 2000.0
SMALL_STEP_MS = 0.2
SMALL_STEPS_PCT = 10.0
BUSY_PCT = 85.0
UNTAGGED_PCT = 25.0
UNSEEN_PCT = 20.0
FULL_BLOCKS = 3
FULL_BURST_PCT = 2.0
OUTLIVED_S = 5.0
OUTLIVED_PCT = 5.0

_REPLACED_NOTE = "create_task was replaced"  # from the worker's note


def tagging_lost(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report that sessions run no steps although the loop is busy.

    Both are needed, of all sessions. If the worker notes that the loop's `create_task` was replaced, which does no harm
    if the new one calls the old, one session without a step or the loop's time is enough.
    """
    if not evidence.enough or _codes(found) & _SPINS:
        return
    noted = any(_REPLACED_NOTE in note for note in evidence.worker.notes)
    still = [row.steps == old.steps for old, row in evidence.stayed if row.steps is not None]
    beside = _beside_sessions(evidence)
    blocked = evidence.going_on_s() > 0.0  # during a block no session takes a step
    if noted:
        lost = beside >= UNSEEN_PCT or (any(still) and not blocked)
    else:
        lost = beside >= UNSEEN_PCT and bool(still) and all(still)
    if not lost:
        return
    yield finding(
        "tagging-lost",
        "warning",
        title="what sessions do is not seen as theirs",
        seen=("the loop's create_task was replaced; " if noted else "")
        + f"{sum(still)} of {count(len(still), 'session')} without a step, {beside:.0f} % of the loop is no session's",
        threshold=f"no session takes a step, while {UNSEEN_PCT:g} % of the loop is no session's; "
        "with a replaced create_task, either of one",
        value=beside,
        limit=UNSEEN_PCT,
        unit="%",
    )


def loop_full(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report a full loop whose bursts come of too many sessions that compute as much as each other."""
    blocks = evidence.of_cause(*causes_of("bursts"))
    pct = evidence.share_of_recent(together_ms(blocks))
    busy = evidence.median(lambda worker: busy_pct(worker.loop_time))
    if len(blocks) < FULL_BLOCKS or pct < max(FULL_BURST_PCT, throttled_pct(found)) or evidence.worker.loops:
        return
    if busy is None or evidence.of_its_own(busy) < BUSY_PCT:
        return
    shares = [(100.0 * each.busy_s / evidence.span_s, each) for each in evidence.sessions]
    most = max((share for share, _ in shares), default=0.0)
    alike = [(share, each) for share, each in shares if share >= 0.5 * most]
    each_pct = sum(share for share, _ in alike) / len(alike) if alike else 0.0
    if len(alike) < 2 or each_pct * len(alike) < 0.5 * busy:
        return
    rest = sum(share for share, _ in shares) - each_pct * len(alike)
    carries = max(0, int((BUSY_PCT - rest) / each_pct))
    yield finding(
        "loop-full",
        "critical",
        title=f"the loop is full: busy {busy:.0f} % of the time, {count(len(alike), 'session')} need {each_pct:.0f} % "
        "of it each",
        seen=f"one loop carries {carries} of them; {count(len(blocks), 'burst')} in the last {span(evidence.recent_s)}"
        f"; {count(len(evidence.rows) - len(alike), 'other session')} need {rest:.0f} % together",
        threshold=f"busy {BUSY_PCT:g} % of the time, {FULL_BLOCKS} bursts, and no session that stands out",
        value=busy,
        limit=BUSY_PCT,
        unit="%",
    )


def first_caller_pays(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report a session that has ended, and whose tasks go on to use the loop."""
    now = evidence.last.taken_at
    for outlived in evidence.worker.outlived:
        share = evidence.median(
            lambda worker, known=outlived: next(  # type: ignore[misc]
                (
                    each.cpu_pct
                    for each in worker.outlived
                    if (each.session_id, each.ended_at) == (known.session_id, known.ended_at)
                ),
                None,
            )
        )
        if share is None or share < OUTLIVED_PCT or now - outlived.ended_at < OUTLIVED_S:
            continue
        task = outlived.coroutine or outlived.task_name or "a task"
        yield finding(
            "first-caller-pays",
            "warning",
            title=f"{outlived.session_id} ended {span(now - outlived.ended_at)} ago, and {task} of it has "
            f"{share:.0f} % of the loop",
            seen=f"{count(outlived.tasks, 'task')} of it left"
            + (f", {outlived.task_name} stepped last" if outlived.task_name else "")
            + "; it was created in the session's context, and works on as untagged time",
            threshold=f"{OUTLIVED_PCT:g} % of the loop, {OUTLIVED_S:g} s after the session's end",
            value=share,
            limit=OUTLIVED_PCT,
            unit="%",
            **owner(outlived),
        )


def many_small_steps(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report a session that polls instead of waiting."""
    if not evidence.enough:
        return
    watched = evidence.sessions
    steps = sum(session.steps for session in watched)
    loops_own = evidence.median(lambda worker: worker.loop_time.other_pct) or 0.0
    costs: list[tuple[float, Watched]] = []
    for session in watched:
        if session.steps < STEPS_PER_S * evidence.span_s:
            continue
        if 1000.0 * session.busy_s > SMALL_STEP_MS * session.steps:
            continue
        cost = 100.0 * session.busy_s / evidence.span_s + loops_own * session.steps / steps
        if cost >= SMALL_STEPS_PCT:
            costs.append((cost, session))
    if not costs:
        return
    cost, worst = max(costs, key=lambda each: each[0])
    each_us = 1e6 * worst.busy_s / worst.steps
    yield finding(
        "many-small-steps",
        "warning",
        title=f"{worst.row.session_id}{others(len(costs) - 1)} takes many small steps",
        seen=f"{worst.steps / evidence.span_s:,.0f} steps a second of {each_us:.0f} µs each: with the loop's own "
        f"work for them {cost:.0f} % of the loop",
        threshold=f"{STEPS_PER_S:,.0f} steps a second, of {SMALL_STEP_MS:g} ms or less, costing {SMALL_STEPS_PCT:g} %",
        value=cost,
        limit=SMALL_STEPS_PCT,
        unit="%",
        **owner(worst.row),
    )


def hot_session(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report a session with half of the loop or more, in steps that are no blocks."""
    if not evidence.enough or _codes(found) & {"host-throttled", "loop-full"}:
        return
    others_s = evidence.held_s(evidence.of_cause(*NOT_LOOP_CODE))
    held = evidence.held_by()
    reported = {other.session_id for other in found if other.code == "many-small-steps"}
    shares: list[tuple[float, Watched]] = []
    for session in evidence.sessions:
        not_hot_s = held.get(session.row.session_id, 0.0) + others_s
        shares.append((100.0 * (session.busy_s - not_hot_s) / evidence.span_s, session))
    shares.sort(key=lambda each: -each[0])
    share, worst = shares[0] if shares else (0.0, None)
    if worst is None or share < HOT_PCT or worst.row.session_id in reported:
        return
    stands_out = len(shares) > 1 and share >= HOT_TIMES * shares[1][0]
    if evidence.of_its_own(share) < (HOT_CPU_PCT if stands_out else HOT_PCT):
        return
    agent = f" ({worst.row.agent_name})" if worst.row.agent_name else ""
    yield finding(
        "hot-session",
        "warning",
        title=f"{worst.row.session_id}{agent} has most of the loop",
        seen=f"{share:.0f} % of {evidence.span_s:.0f} s, in {worst.steps:,} steps that are no blocks; "
        f"{count(len(evidence.rows) - 1, 'session')} beside it",
        threshold=f"{HOT_PCT:g} % of the loop for one session",
        value=share,
        limit=HOT_PCT,
        unit="%",
        **owner(worst.row),
    )


def untagged_work(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report untagged tasks that have more of the loop than the sessions."""
    untagged = evidence.median(lambda worker: worker.loop_time.untagged_pct)
    sessions = evidence.median(lambda worker: worker.loop_time.sessions_pct)
    if untagged is None or sessions is None or _codes(found) & {"host-throttled", "tagging-lost", "first-caller-pays"}:
        return
    blocked_s = evidence.held_s(block for block in evidence.blocks if block.session_id is None)
    share = evidence.of_its_own(untagged - 100.0 * (blocked_s + evidence.going_on_s()) / evidence.span_s)
    if share < UNTAGGED_PCT or share <= sessions:
        return
    yield finding(
        "untagged-work",
        "warning",
        title="tasks of no session have most of what the loop does",
        seen=f"untagged tasks {share:.0f} % of the loop, sessions {sessions:.0f} %",
        threshold=f"{UNTAGGED_PCT:g} % of the loop, and more than the sessions have",
        value=share,
        limit=UNTAGGED_PCT,
        unit="%",
    )


def saturated_loop(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report a loop that is full without a session that has most of it."""
    if _codes(found) & _EXPLAINS_BUSY:
        return
    for name, times in _loops(evidence.worker):
        busy = evidence.median(lambda worker, name=name: busy_pct(dict(_loops(worker)).get(name)))  # type: ignore[misc]
        if busy is None or evidence.of_its_own(busy) < BUSY_PCT:
            continue
        here = [block for block in evidence.blocks if block.loop == name]
        going_on = [block for block in evidence.last.blocks_in_progress if block.loop == name]
        blocked_s = evidence.held_s(here) + evidence.going_on_s(going_on)
        if 100.0 * blocked_s / evidence.span_s >= 0.5 * busy:
            continue
        rows = [row for row in evidence.rows if row.loop == name]
        parts = (("sessions", times.sessions_pct), ("untagged", times.untagged_pct), ("other", times.other_pct))
        shares = ", ".join(f"{part} {value:.0f} %" for part, value in parts if value is not None)
        lag = evidence.worker.lag_p99_ms
        yield finding(
            "saturated-loop",
            "critical",
            title=f"{f'loop {name}' if name else 'the loop'} is full: {count(len(rows), 'session')}, "
            f"busy {busy:.0f} % of the time",
            seen=(shares or "shares are not measured") + (f"; lag p99 {ms(lag)}" if lag is not None else ""),
            threshold=f"busy {BUSY_PCT:g} % of the time",
            value=busy,
            limit=BUSY_PCT,
            unit="%",
        )


_SPINS = {"spinning-loop", "callback-flood"}
_EXPLAINS_BUSY = {
    "host-throttled",
    "lock-held-across-await",
    "blocked-now",
    "loop-full",
    "many-small-steps",
    "hot-session",
    "first-caller-pays",
    "untagged-work",
    "tagging-lost",
    *_SPINS,
}


def _loops(worker: WorkerInfo) -> list[tuple[str | None, LoopTime]]:
    """Return (name, times) of each loop; the name of a single loop is None."""
    several: list[tuple[str | None, LoopTime]] = [(each.name, each.loop_time) for each in worker.loops]
    return several or [(None, worker.loop_time)]


def busy_pct(time: LoopTime | None) -> float | None:
    """Return how busy the loop is, in percent.

    It is a lower bound if idle time is not known. None: unknown.
    """
    if time is None:
        return None
    if time.idle_pct is not None:
        return 100.0 - time.idle_pct
    known = [part for part in (time.sessions_pct, time.untagged_pct, time.gc_pct) if part is not None]
    return sum(known) if known else None


def _beside_sessions(evidence: Evidence) -> float:
    """Return the percent of the loop that neither sessions nor blocks have."""
    beside = evidence.median(lambda worker: _sum(worker.loop_time.untagged_pct, worker.loop_time.other_pct))
    if beside is None or evidence.span_s <= 0.0:
        return 0.0
    blocked_s = evidence.held_s(evidence.blocks) + evidence.going_on_s()
    return max(0.0, evidence.of_its_own(beside - 100.0 * blocked_s / evidence.span_s))


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None and second is None else (first or 0.0) + (second or 0.0)


def _codes(found: Sequence[Finding]) -> set[str]:
    return {other.code for other in found}
