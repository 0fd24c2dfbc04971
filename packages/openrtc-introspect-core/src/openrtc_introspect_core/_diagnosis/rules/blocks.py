"""Rules about blocks: what held the loop for too long, now or again and again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ...wire._messages import MAX_DELAYED, Block
from ..cause import CAUSES, causes_of
from ..evidence import Evidence, held_across_await, since, together_ms
from ..finding import Finding
from .wording import at, count, finding, holder_of, ms, others, span, the_longest, throttled_pct, times

MIN_HELD_MS = 500.0
MIN_HELD_FRAMES = 2
MIN_BLOCKS = 3
"""Fewer blocks of a kind are a hiccup."""
PAIR_MS = 300.0
"""Two blocks with this total are a finding too, if the cause is known."""
ONE_MS = 1000.0
"""So is a single block of this length."""
MAX_OTHER_CALLS = 2
"""Of one function, besides the one that is named first."""
MUCH_PCT = 10.0
"""A finding whose blocks take this share of the time is critical."""
BURST_PCT = 2.0
GIL_PCT = 2.0
OTHER_THREADS_PCT = 5.0
"""Percent of a core. Below it, the GIL was held by a thread of introspection that had a run delay."""
THROTTLED_PCT = 2.0
DESCHEDULED_BLOCKS = 5
DESCHEDULED_PCT = 50.0
"""If five other processes want two cores, a third of the time is usual; half of it is no sharing any more."""

_CGROUP = "cgroup throttled"  # from HostPressure.describe


def host_throttled(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report run delay, by the cgroup's limit or on a crowded host."""
    blocks = evidence.of_cause(*causes_of("host-throttled"))
    limited = [block for block in blocks if _CGROUP in (block.detail or "")]
    limited_pct = evidence.share_of_recent(together_ms(limited))
    pct = evidence.share_of_recent(together_ms(blocks))
    if len(limited) >= MIN_BLOCKS and limited_pct >= THROTTLED_PCT:
        title, least, limit = "the cgroup's CPU limit throttles the worker", MIN_BLOCKS, THROTTLED_PCT
        blocks, pct = limited, limited_pct
    elif len(blocks) >= DESCHEDULED_BLOCKS and pct >= DESCHEDULED_PCT:
        title, least, limit = "the host keeps the worker from running", DESCHEDULED_BLOCKS, DESCHEDULED_PCT
    else:
        return
    host = evidence.worker.host
    seen = [f"{pct:.0f} % of the last {span(evidence.recent_s)} in {count(len(blocks), 'block')}", the_longest(blocks)]
    seen += [f"host cpu {host.cpu_pct:.0f} % of {host.cores}"] if host.cpu_pct is not None else []
    seen += [f"load {host.load_1m:.1f}"] if host.load_1m is not None else []
    seen += _cpu_limit(evidence)
    yield finding(
        "host-throttled",
        "critical",
        title=title,
        seen=", ".join(seen),
        threshold=f"{least} blocks in which it was ready to run and did not run, and {limit:g} % of the time",
        value=pct,
        limit=limit,
        unit="%",
    )


def _cpu_limit(evidence: Evidence) -> list[str]:
    """Describe the cgroup's CPU limit, and how often it was used up. Empty: there is none."""
    group = evidence.worker.cgroup
    if group is None or group.cpu_limit is None:
        return []
    used_up = evidence.median(lambda worker: worker.cgroup.cpu_throttled_pct if worker.cgroup is not None else None)
    often = f", used up in {used_up:.0f} % of its periods" if used_up is not None else ""
    return [f"CPU limit {group.cpu_limit:.4g} by {group.cpu_limit_file}{often}"]


def blocked_now(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report a block in progress that an earlier snapshot had as well."""
    codes = {other.code for other in found}
    for block in evidence.last.blocks_in_progress:
        if held_across_await(block) and "lock-held-across-await" in codes:
            continue
        by_host = block.cause in causes_of("host-throttled")
        if by_host and "host-throttled" in codes:
            continue
        lasted_ms = 1000.0 * (evidence.last.taken_at - since(block))
        seen = sum(any(since(other) == since(block) for other in frame.blocks_in_progress) for frame in evidence.frames)
        if seen < MIN_HELD_FRAMES or lasted_ms < MIN_HELD_MS:
            continue
        before = [other for other in _of_code(evidence) if block.location and _place(other) == _place(block)]
        earlier = _cause(before) if before else None
        cause = block.cause or earlier
        again = f"; {count(len(before), 'block')} there before, {earlier or 'cause unknown'}" if before else ""
        waiting = len(evidence.rows) - any(row.session_id == block.session_id for row in evidence.rows)
        where = (f" at {block.location}" if block.location else "") + (f" ({block.cause})" if block.cause else "")
        yield finding(
            "blocked-now",
            "critical",
            CAUSES[cause].advice_key if cause in CAUSES else None,
            title=f"the host has not run the loop for {ms(lasted_ms)}"
            if by_host
            else f"{holder_of(block)} has been holding the loop for {ms(lasted_ms)}",
            seen=f"the same block in {count(seen, 'snapshot')}{where}, {count(waiting, 'session')} waiting{again}"
            + _waits_for(block),
            threshold=f"{MIN_HELD_FRAMES} snapshots and {ms(MIN_HELD_MS)}",
            value=lasted_ms,
            limit=MIN_HELD_MS,
            unit="ms",
            session_id=block.session_id,
            agent_name=block.agent_name,
            tenant=block.tenant,
            location=block.location,
        )


def gil_contention(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report other threads of the process that keep the GIL."""
    blocks = evidence.of_cause(*causes_of("gil-contention"))
    pct = evidence.share_of_recent(together_ms(blocks))
    measured = [frame.worker.host.other_threads_pct or 0.0 for frame in evidence.frames]
    if len(blocks) < MIN_BLOCKS or pct < GIL_PCT or max(measured) < OTHER_THREADS_PCT or pct < throttled_pct(found):
        return
    whose = [block for block in blocks if block.session_id is not None]
    longest = max(whose, key=lambda block: block.duration_ms, default=None)
    seen = [f"{pct:.0f} % of the last {span(evidence.recent_s)} in {count(len(blocks), 'block')}", the_longest(blocks)]
    seen += [f"other threads use up to {max(measured):.0f} % of a core"]
    seen += (
        [f"{count(len(whose), 'block')} by calls in threads, the longest of {holder_of(longest)}{at(longest.location)}"]
        if longest
        else []
    )
    yield finding(
        "gil-contention",
        "critical" if pct >= MUCH_PCT else "warning",
        title="another thread of the worker keeps the GIL",
        seen=", ".join(seen),
        threshold=f"{MIN_BLOCKS} blocks and {GIL_PCT:g} % of the time, and other threads at {OTHER_THREADS_PCT:g} %",
        value=pct,
        limit=GIL_PCT,
        unit="%",
        session_id=longest.session_id if longest else None,
        agent_name=longest.agent_name if longest else None,
        tenant=longest.tenant if longest else None,
    )


def slow_sessions(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report code that blocks the loop again and again, in any session."""
    places: dict[Any, list[Block]] = {}
    reported_locks = "lock-held-across-await" in {other.code for other in found}
    for block in _of_code(evidence):
        if reported_locks and held_across_await(block):
            continue
        places.setdefault(_place(block), []).append(block)
    reported = [_place_of(other) for other in found if other.code == "blocked-now" and other.location]
    for place, blocks in places.items():
        total, cause = together_ms(blocks), _cause(blocks)
        least_ms = 0.0 if len(blocks) >= MIN_BLOCKS else PAIR_MS if len(blocks) == 2 else ONE_MS
        if total < least_ms or (least_ms and cause is None):
            continue
        if place in reported or evidence.share_of_recent(total) < throttled_pct(found):
            continue
        yield _slow(evidence, blocks, total, cause, least_ms)


def _slow(evidence: Evidence, blocks: list[Block], total: float, cause: str | None, least_ms: float) -> Finding:
    of_cause = [block for block in blocks if block.cause == cause]
    longest = max(of_cause, key=lambda block: block.duration_ms)
    sessions = {block.session_id for block in blocks if block.session_id is not None}
    waited = max(len(block.delayed or ()) for block in blocks)
    where = longest.location
    if cause == "import":
        modules = dict.fromkeys(block.detail for block in blocks if block.detail)
        what = f"importing {', '.join(list(modules)[:3])}{others(max(0, len(modules) - 3))}"
    else:
        what = where.function if where else holder_of(longest)
    seen = [f"{cause or 'cause unknown'}{f' at {where}' if where else ''}"]
    seen.append(holder_of(longest) + (others(len(sessions) - 1) if sessions else ""))
    seen += [the_longest(blocks)]
    seen += [f"also {other}" for other in _other_calls(blocks, longest)]
    if waited >= MAX_DELAYED:  # a block names no more
        seen += [f"{waited} sessions or more waited"]
    elif waited:
        seen += [f"up to {count(waited, 'session')} waited"]
    return finding(
        "slow-session",
        "critical" if evidence.share_of_recent(total) >= MUCH_PCT else "warning",
        CAUSES[cause].advice_key if cause in CAUSES else "slow-session/unknown",
        title=f"{what} blocks the loop: {times(len(blocks))} in {span(evidence.recent_s)}, {ms(total)} in all",
        seen=", ".join(seen),
        threshold=f"{MIN_BLOCKS} blocks of the same code, 2 of {ms(PAIR_MS)} together, or 1 of {ms(ONE_MS)}",
        value=total if least_ms else float(len(blocks)),
        limit=least_ms or float(MIN_BLOCKS),
        unit="ms" if least_ms else "blocks",
        session_id=longest.session_id,
        agent_name=longest.agent_name,
        tenant=longest.tenant,
        location=where,
    )


def _other_calls(blocks: Sequence[Block], named: Block) -> list[str]:
    """Return where the same function makes other calls that block, those with the most time first.

    Lines that compute are not named: code that computes is sampled at any of its lines.
    """
    calls: dict[tuple[str, str, int], float] = {}
    for block in blocks:
        if block.location is not None and block.cause not in (None, "cpu", "import"):
            key = block.cause, block.location.file, block.location.line
            calls[key] = calls.get(key, 0.0) + block.duration_ms
    if named.location is not None:
        calls.pop((named.cause or "", named.location.file, named.location.line), None)
    worst = sorted(calls, key=lambda key: calls[key], reverse=True)[:MAX_OTHER_CALLS]
    return [f"{cause} at {file}:{line}" for cause, file, line in worst]


def bursts(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report many short steps that hold the loop together."""
    blocks = evidence.of_cause(*causes_of("bursts"))
    pct = evidence.share_of_recent(together_ms(blocks))
    if len(blocks) < MIN_BLOCKS or pct < BURST_PCT or pct < throttled_pct(found):
        return
    if "loop-full" in {other.code for other in found}:
        return
    longest = max(blocks, key=lambda block: block.duration_ms)
    yield finding(
        "bursts",
        "critical" if pct >= MUCH_PCT else "warning",
        title="many short steps at once hold the loop",
        seen=f"{pct:.0f} % of the last {span(evidence.recent_s)} in {count(len(blocks), 'block')}, "
        + the_longest(blocks)
        + (f": {longest.detail}" if longest.detail else ""),
        threshold=f"{MIN_BLOCKS} blocks and {BURST_PCT:g} % of the time",
        value=pct,
        limit=BURST_PCT,
        unit="%",
    )


def signal_handler(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report signal handlers that hold the loop, whatever they interrupt."""
    blocks = evidence.of_cause(*causes_of("signal-handler"))
    total = together_ms(blocks)
    if len(blocks) < MIN_BLOCKS or evidence.share_of_recent(total) < throttled_pct(found):
        return
    longest = max(blocks, key=lambda block: block.duration_ms)
    where = longest.location
    yield finding(
        "signal-handler",
        "critical" if evidence.share_of_recent(total) >= MUCH_PCT else "warning",
        title=f"{where.function if where else 'a signal handler'} holds the loop: "
        f"{times(len(blocks))} in {span(evidence.recent_s)}, {ms(total)} in all",
        seen=f"signal{f' at {where}' if where else ''}, {the_longest(blocks)}",
        threshold=f"{MIN_BLOCKS} blocks",
        value=float(len(blocks)),
        limit=float(MIN_BLOCKS),
        unit="blocks",
        location=where,
    )


def long_blocks(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report each block of a second or more that no session is to blame for, or whose cause is unknown.

    `slow_sessions` reports the others.
    """
    codes = {other.code for other in found}
    reported = [_place_of(other) for other in found if other.location]
    groups: dict[Any, list[Block]] = {}
    for block in evidence.blocks:
        if block.duration_ms < ONE_MS:
            continue
        by_code = _finding_of(block) in {"slow-session", *codes}
        if not (by_code if block.cause is not None else _place(block) in reported):
            groups.setdefault((block.cause, _place(block)), []).append(block)
    for blocks in groups.values():
        longest = max(blocks, key=lambda block: block.duration_ms)
        if evidence.share_of_recent(together_ms(blocks)) < throttled_pct(found):
            continue
        cause, where = longest.cause, longest.location
        seen = f"{cause or 'cause unknown'}{f' at {where}' if where else ''}, {holder_of(longest)}"
        yield finding(
            "long-block",
            "warning",
            CAUSES[cause].advice_key if cause in CAUSES else None,
            title=f"the loop was held for {ms(longest.duration_ms)}"
            + (f", {times(len(blocks))}" if blocks[1:] else ""),
            seen=seen + (f": {longest.detail}" if longest.detail else ""),
            threshold=f"1 block of {ms(ONE_MS)} that no other finding reports",
            value=longest.duration_ms,
            limit=ONE_MS,
            unit="ms",
            session_id=longest.session_id,
            agent_name=longest.agent_name,
            tenant=longest.tenant,
            location=where,
        )


def _waits_for(block: Block) -> str:
    """Return what the loop's thread waits for, and who has it, as far as is known."""
    text = f"; it waits for {block.waiting_on}" if block.waiting_on else ""
    if (holder := block.holder) is None:
        return text
    whose = f"thread {holder.thread}" if holder.thread else holder.session_id or f"task {holder.task_name}"
    likely = "" if holder.certain else "most likely "
    return f"{text}, {likely}held by {whose}{at(holder.location)}" if text else f"; {likely}held by {whose}"


def _of_code(evidence: Evidence) -> list[Block]:
    """Return the blocks that code on the loop is to blame for.

    Blocks without cause and location are not: on a crowded host the watchdog has a run delay too, and sees nothing.
    """
    blocks = [block for block in evidence.blocks if block.cause is not None or block.location is not None]
    return [block for block in blocks if _finding_of(block) == "slow-session"]


def _finding_of(block: Block) -> str:
    """Return the code of the finding that reports blocks of this cause."""
    return CAUSES[block.cause].finding if block.cause in CAUSES else "slow-session"


def _place(block: Block) -> Any:
    """Return a key that blocks of the same fault share.

    All imports have one key; other blocks have that of their function, or of their session if there is no location.
    """
    if block.cause == "import":
        return "import"
    if block.location is not None:
        return block.location.file, block.location.function
    return block.session_id


def _place_of(found: Finding) -> Any:
    assert found.location is not None
    return found.location.file, found.location.function


def _cause(blocks: Sequence[Block]) -> str | None:
    """Return the cause with the most time. None: none of the blocks has a cause."""
    times: dict[str, float] = {}
    for block in blocks:
        if block.cause is not None:
            times[block.cause] = times.get(block.cause, 0.0) + block.duration_ms
    return max(times, key=lambda cause: times[cause], default=None)
