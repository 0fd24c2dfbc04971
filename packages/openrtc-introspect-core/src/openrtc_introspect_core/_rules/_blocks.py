"""Rules about blocks: who or what held the loop for too long, now or again and again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .._evidence import Evidence, since, together_ms
from .._finding import Finding
from ..wire._messages import Block
from ._say import count, finding, ms, others, span

HELD_MS = 500.0
HELD_FRAMES = 2
BLOCKS = 3
"""So few are a hiccup."""
PAIR_MS = 300.0
"""Two that are so long together are none; the cause must be known then."""
ONE_MS = 1000.0
"""Neither is one of this length."""
MUCH_PCT = 10.0
"""What holds the loop for this part of the time is critical."""
BURST_PCT = 2.0
GC_PCT = 5.0
GIL_PCT = 2.0
OTHER_THREADS_PCT = 5.0
"""Of a core. Without it, the GIL was kept by a thread of ours that the host did not let run."""
THROTTLED_PCT = 2.0
DESCHEDULED_BLOCKS = 5
DESCHEDULED_PCT = 50.0
"""On two cores that five others want, a third of the time is usual; this much is no sharing any more."""

_NOT_THE_CODE_S = ("gc", "gil-contention", "descheduled", "burst")
_CGROUP = "cgroup throttled"  # as HostPressure tells it


def host_throttled(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """The worker was ready to run and was not let: by its cgroup's limit, or by a crowded host."""
    blocks = evidence.of_cause("descheduled")
    limited = [block for block in blocks if _CGROUP in (block.detail or "")]
    limited_pct = evidence.share_of_recent(together_ms(limited))
    pct = evidence.share_of_recent(together_ms(blocks))
    if len(limited) >= BLOCKS and limited_pct >= THROTTLED_PCT:
        title, least, limit = "the cgroup's CPU limit throttles the worker", BLOCKS, THROTTLED_PCT
        blocks, pct = limited, limited_pct
    elif len(blocks) >= DESCHEDULED_BLOCKS and pct >= DESCHEDULED_PCT:
        title, least, limit = "the host does not let the worker run", DESCHEDULED_BLOCKS, DESCHEDULED_PCT
    else:
        return
    host = evidence.worker.host
    told = [f"{pct:.0f} % of the last {span(evidence.recent_s)} in {count(len(blocks), 'block')}", _longest(blocks)]
    told += [f"host cpu {host.cpu_pct:.0f} % of {host.cores}"] if host.cpu_pct is not None else []
    told += [f"load {host.load_1m:.1f}"] if host.load_1m is not None else []
    yield finding(
        "host-throttled",
        "critical",
        title=title,
        seen=", ".join(told),
        threshold=f"{least} blocks in which it was ready to run and not let, and {limit:g} % of the time",
        value=pct,
        limit=limit,
        unit="%",
    )


def blocked_now(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Something holds the loop, and did so in the snapshot before, too."""
    for block in evidence.last.blocks_in_progress:
        lasted_ms = 1000.0 * (evidence.last.taken_at - since(block))
        seen = sum(any(since(other) == since(block) for other in frame.blocks_in_progress) for frame in evidence.frames)
        if seen < HELD_FRAMES or lasted_ms < HELD_MS:
            continue
        before = [other for other in _code_s(evidence) if block.location and _place(other) == _place(block)]
        cause = _cause(before) if before else None
        again = f"; {count(len(before), 'block')} there before, {cause or 'cause unknown'}" if before else ""
        waiting = len(evidence.last.sessions) - any(
            row.session_id == block.session_id for row in evidence.last.sessions
        )
        where = f" at {block.location}" if block.location else ""
        yield finding(
            "blocked-now",
            "critical",
            f"slow-session/{cause}" if cause in _ADVISED else None,
            title=f"{_who(block)} has been holding the loop for {ms(lasted_ms)}",
            seen=f"the same block in {count(seen, 'snapshot')}{where}, {count(waiting, 'session')} waiting{again}",
            threshold=f"{HELD_FRAMES} snapshots and {ms(HELD_MS)}",
            value=lasted_ms,
            limit=HELD_MS,
            unit="ms",
            session_id=block.session_id,
            agent_name=block.agent_name,
            tenant=block.tenant,
            location=block.location,
        )


def gil_contention(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Threads of the process beside the loop's keep the GIL."""
    blocks = evidence.of_cause("gil-contention")
    pct = evidence.share_of_recent(together_ms(blocks))
    measured = [frame.worker.host.other_threads_pct or 0.0 for frame in evidence.frames]
    if len(blocks) < BLOCKS or pct < GIL_PCT or max(measured) < OTHER_THREADS_PCT or pct < _hosts(found):
        return
    yield finding(
        "gil-contention",
        "critical" if pct >= MUCH_PCT else "warning",
        title="another thread of the worker keeps the GIL",
        seen=f"{pct:.0f} % of the last {span(evidence.recent_s)} in {count(len(blocks), 'block')}, {_longest(blocks)}; "
        f"other threads use up to {max(measured):.0f} % of a core",
        threshold=f"{BLOCKS} blocks and {GIL_PCT:g} % of the time, and other threads at {OTHER_THREADS_PCT:g} %",
        value=pct,
        limit=GIL_PCT,
        unit="%",
    )


def slow_sessions(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """The same code blocks the loop again and again, whichever sessions it runs in."""
    places: dict[Any, list[Block]] = {}
    for block in _code_s(evidence):
        places.setdefault(_place(block), []).append(block)
    told = [_place_of(other) for other in found if other.code == "blocked-now" and other.location]
    for place, blocks in places.items():
        total, cause = together_ms(blocks), _cause(blocks)
        least_ms = 0.0 if len(blocks) >= BLOCKS else PAIR_MS if len(blocks) == 2 else ONE_MS
        if total < least_ms or (least_ms and cause is None):
            continue
        if place in told or evidence.share_of_recent(total) < _hosts(found):
            continue
        yield _slow(evidence, blocks, total, cause, least_ms)


def _slow(evidence: Evidence, blocks: list[Block], total: float, cause: str | None, least_ms: float) -> Finding:
    longest = max(blocks, key=lambda block: block.duration_ms)
    sessions = {block.session_id for block in blocks if block.session_id is not None}
    waited = max(len(block.delayed or ()) for block in blocks)
    where = longest.location
    if cause == "import":
        modules = dict.fromkeys(block.detail for block in blocks if block.detail)
        what = f"importing {', '.join(list(modules)[:3])}{others(max(0, len(modules) - 3))}"
    else:
        what = where.function if where else _who(longest)
    seen = [f"{cause or 'cause unknown'}{f' at {where}' if where else ''}"]
    seen.append(_who(longest) + (others(len(sessions) - 1) if sessions else ""))
    seen += [_longest(blocks)]
    seen += [f"up to {count(waited, 'session')} waited"] if waited else []
    return finding(
        "slow-session",
        "critical" if evidence.share_of_recent(total) >= MUCH_PCT else "warning",
        f"slow-session/{cause if cause in _ADVISED else 'unknown'}",
        title=f"{what} blocks the loop: {_times(len(blocks))} in {span(evidence.recent_s)}, {ms(total)} in all",
        seen=", ".join(seen),
        threshold=f"{BLOCKS} blocks of the same code, 2 of {ms(PAIR_MS)} together, or 1 of {ms(ONE_MS)}",
        value=total if least_ms else float(len(blocks)),
        limit=least_ms or float(BLOCKS),
        unit="ms" if least_ms else "blocks",
        session_id=longest.session_id,
        agent_name=longest.agent_name,
        tenant=longest.tenant,
        location=where,
    )


def bursts(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Many steps at once, each short, keep the others waiting together."""
    blocks = evidence.of_cause("burst")
    pct = evidence.share_of_recent(together_ms(blocks))
    if len(blocks) < BLOCKS or pct < BURST_PCT or pct < _hosts(found):
        return
    longest = max(blocks, key=lambda block: block.duration_ms)
    yield finding(
        "bursts",
        "critical" if pct >= MUCH_PCT else "warning",
        title="many short steps at once hold the loop",
        seen=f"{pct:.0f} % of the last {span(evidence.recent_s)} in {count(len(blocks), 'block')}, {_longest(blocks)}"
        + (f": {longest.detail}" if longest.detail else ""),
        threshold=f"{BLOCKS} blocks and {BURST_PCT:g} % of the time",
        value=pct,
        limit=BURST_PCT,
        unit="%",
    )


def gc_pauses(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Garbage collections hold the loop, long or often."""
    blocks = evidence.of_cause("gc")
    pct = evidence.median(lambda worker: worker.loop_time.gc_pct) or 0.0
    many = len(blocks) >= BLOCKS
    if not many and pct < GC_PCT:
        return
    seen = [f"{pct:.1f} % of the loop's time"] if evidence.enough else []
    seen += (
        [f"{count(len(blocks), 'block')} in the last {span(evidence.recent_s)}, {_longest(blocks)}"] if blocks else []
    )
    yield finding(
        "gc-pauses",
        "warning",
        title="garbage collections hold the loop",
        seen="; ".join(seen),
        threshold=f"{BLOCKS} blocks, or {GC_PCT:g} % of the loop's time",
        value=float(len(blocks)) if many else pct,
        limit=float(BLOCKS) if many else GC_PCT,
        unit="blocks" if many else "%",
    )


_ADVISED = ("sync-call", "cpu", "native", "import", "callback")


def _code_s(evidence: Evidence) -> list[Block]:
    """The blocks that some code is to blame for. What was not seen at all is nobody's: on a crowded host the
    watchdog is not let run either."""
    blocks = [block for block in evidence.blocks if block.cause is not None or block.location is not None]
    return [block for block in blocks if block.cause not in _NOT_THE_CODE_S]


def _place(block: Block) -> Any:
    """What makes two blocks the same fault: all imports together; else the function, whatever its line."""
    if block.cause == "import":
        return "import"
    if block.location is not None:
        return block.location.file, block.location.function
    return block.session_id


def _place_of(told: Finding) -> Any:
    assert told.location is not None
    return told.location.file, told.location.function


def _cause(blocks: Sequence[Block]) -> str | None:
    """The cause that most of their time has. None where that is not known of any."""
    times: dict[str, float] = {}
    for block in blocks:
        if block.cause is not None:
            times[block.cause] = times.get(block.cause, 0.0) + block.duration_ms
    return max(times, key=lambda cause: times[cause], default=None)


def _who(block: Block) -> str:
    if block.session_id is None:
        return f"task {block.task_name}" if block.task_name else "code of no session"
    return f"{block.session_id} ({block.agent_name})" if block.agent_name else block.session_id


def _longest(blocks: Sequence[Block]) -> str:
    return f"the longest {ms(max(block.duration_ms for block in blocks))}"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _hosts(found: Sequence[Finding]) -> float:
    """Percent of the time that the host did not let the worker run, where that is a finding: what is less than
    that may be its doing, as what is short looks long on such a host."""
    return sum(other.value for other in found if other.code == "host-throttled")
