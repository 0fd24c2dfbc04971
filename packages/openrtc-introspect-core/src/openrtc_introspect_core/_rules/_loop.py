"""Rules about where the loop's time goes, and about whether that is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .._evidence import Evidence, Watched
from .._finding import Finding
from ..wire._messages import LoopTime, WorkerInfo
from ._say import count, finding, ms, others, owner

HOT_PCT = 50.0
HOT_TIMES = 5.0
HOT_CPU_PCT = 20.0
"""On a full host: so many times the next session's share, and so much processor time of the process."""
STEPS_PER_S = 2000.0
SMALL_STEP_MS = 0.2
SMALL_STEPS_PCT = 10.0
BUSY_PCT = 85.0
UNTAGGED_PCT = 25.0
UNSEEN_PCT = 20.0

_REPLACED_NOTE = "create_task was replaced"  # as Introspector notes it
_NOT_THEIRS = ("descheduled", "gil-contention", "gc")


def tagging_lost(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """It cannot be told whose the work is: sessions run no steps, while the loop is busy with something.

    Of all sessions together that says it by itself. Where the loop's `create_task` was replaced, which does no harm
    if the new one calls the old, one session or the loop's time is enough.
    """
    if not evidence.enough:
        return
    noted = any(_REPLACED_NOTE in note for note in evidence.worker.notes)
    still = [row.steps == old.steps for old, row in evidence.stayed if row.steps is not None]
    beside = _beside_sessions(evidence)
    blocked = evidence.going_on_s() > 0.0  # then nobody takes a step
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


def many_small_steps(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """A session that asks again and again instead of waiting: what it costs is mostly the loop's own work."""
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
    """One session has half of the loop or more, in steps that are no blocks."""
    if not evidence.enough or _codes(found) & {"host-throttled"}:
        return
    unlucky_s = evidence.held_s(evidence.of_cause(*_NOT_THEIRS))
    held = evidence.held_by()
    told = {other.session_id for other in found if other.code == "many-small-steps"}
    shares: list[tuple[float, Watched]] = []
    for session in evidence.sessions:
        not_hot_s = held.get(session.row.session_id, 0.0) + unlucky_s
        shares.append((100.0 * (session.busy_s - not_hot_s) / evidence.span_s, session))
    shares.sort(key=lambda each: -each[0])
    share, worst = shares[0] if shares else (0.0, None)
    if worst is None or share < HOT_PCT or worst.row.session_id in told:
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
    """Tasks of no session have more of the loop than the sessions."""
    untagged = evidence.median(lambda worker: worker.loop_time.untagged_pct)
    sessions = evidence.median(lambda worker: worker.loop_time.sessions_pct)
    if untagged is None or sessions is None or _codes(found) & {"host-throttled", "tagging-lost"}:
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
    """A loop has hardly any time left, and nobody in particular has it."""
    if _codes(found) & _EXPLAINS_BUSY:
        return
    for name, times in _loops(evidence.worker):
        busy = evidence.median(lambda worker, name=name: _busy_pct(dict(_loops(worker)).get(name)))  # type: ignore[misc]
        if busy is None or evidence.of_its_own(busy) < BUSY_PCT:
            continue
        here = [block for block in evidence.blocks if block.loop == name]
        going_on = [block for block in evidence.last.blocks_in_progress if block.loop == name]
        blocked_s = evidence.held_s(here) + evidence.going_on_s(going_on)
        if 100.0 * blocked_s / evidence.span_s >= 0.5 * busy:
            continue
        rows = [row for row in evidence.rows if row.loop == name]
        parts = (("sessions", times.sessions_pct), ("untagged", times.untagged_pct), ("other", times.other_pct))
        told = ", ".join(f"{part} {value:.0f} %" for part, value in parts if value is not None)
        lag = evidence.worker.lag_p99_ms
        yield finding(
            "saturated-loop",
            "critical",
            title=f"{f'loop {name}' if name else 'the loop'} is full: {count(len(rows), 'session')}, "
            f"busy {busy:.0f} % of the time",
            seen=(told or "shares are not measured") + (f"; lag p99 {ms(lag)}" if lag is not None else ""),
            threshold=f"busy {BUSY_PCT:g} % of the time",
            value=busy,
            limit=BUSY_PCT,
            unit="%",
        )


_EXPLAINS_BUSY = {"host-throttled", "blocked-now", "many-small-steps", "hot-session", "untagged-work", "tagging-lost"}


def _loops(worker: WorkerInfo) -> list[tuple[str | None, LoopTime]]:
    """Each loop's name and times; a single one has no name."""
    several: list[tuple[str | None, LoopTime]] = [(each.name, each.loop_time) for each in worker.loops]
    return several or [(None, worker.loop_time)]


def _busy_pct(time: LoopTime | None) -> float | None:
    """Percent of wall time; where idle time is not to be had, at least that. None: not known, or no such loop."""
    if time is None:
        return None
    if time.idle_pct is not None:
        return 100.0 - time.idle_pct
    known = [part for part in (time.sessions_pct, time.untagged_pct, time.gc_pct) if part is not None]
    return sum(known) if known else None


def _beside_sessions(evidence: Evidence) -> float:
    """Percent of the loop that is no session's and no block's."""
    beside = evidence.median(lambda worker: _sum(worker.loop_time.untagged_pct, worker.loop_time.other_pct))
    if beside is None or evidence.span_s <= 0.0:
        return 0.0
    blocked_s = evidence.held_s(evidence.blocks) + evidence.going_on_s()
    return max(0.0, evidence.of_its_own(beside - 100.0 * blocked_s / evidence.span_s))


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None and second is None else (first or 0.0) + (second or 0.0)


def _codes(found: Sequence[Finding]) -> set[str]:
    return {other.code for other in found}
