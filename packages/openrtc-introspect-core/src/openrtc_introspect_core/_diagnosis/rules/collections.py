"""Rules about garbage collections: those that the collector begins, and those that code asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...wire._messages import Block
from ..cause import causes_of
from ..evidence import Evidence, together_ms
from ..finding import Finding
from .wording import at, count, finding, holder_of, ms, span, the_longest, throttled_pct, times

MIN_BLOCKS = 3
GC_PCT = 5.0
MUCH_PCT = 10.0


def explicit_gc(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report code that calls `gc.collect()` again and again."""
    places: dict[tuple[str, str] | None, list[Block]] = {}
    for block in evidence.of_cause(*causes_of("explicit-gc")):
        place = block.location
        places.setdefault((place.file, place.function) if place else None, []).append(block)
    for blocks in places.values():
        total = together_ms(blocks)
        if len(blocks) < MIN_BLOCKS or evidence.share_of_recent(total) < throttled_pct(found):
            continue
        longest = max(blocks, key=lambda block: block.duration_ms)
        sessions = {block.session_id for block in blocks if block.session_id is not None}
        by = f" by {count(len(sessions), 'session')}" if sessions else ""
        yield finding(
            "explicit-gc",
            "critical" if evidence.share_of_recent(total) >= MUCH_PCT else "warning",
            title=f"gc.collect() is called{at(longest.location)}{by}: {times(len(blocks))} in "
            f"{span(evidence.recent_s)}, {ms(total)} in all",
            seen=f"{the_longest(blocks)} in {holder_of(longest)}" + (f"; {longest.detail}" if longest.detail else ""),
            threshold=f"{MIN_BLOCKS} blocks by collections that one function asks for",
            value=float(len(blocks)),
            limit=float(MIN_BLOCKS),
            unit="blocks",
            session_id=longest.session_id,
            agent_name=longest.agent_name,
            tenant=longest.tenant,
            location=longest.location,
        )


def gc_pauses(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report garbage collections that hold the loop for long or often."""
    asked_for = any(other.code == "explicit-gc" for other in found)
    blocks = evidence.of_cause(*causes_of("gc-pauses"))
    pct = evidence.median(lambda worker: worker.loop_time.gc_pct) or 0.0
    many = len(blocks) >= MIN_BLOCKS
    if not many and (pct < GC_PCT or asked_for):
        return
    seen = [f"{pct:.1f} % of the loop's time"] if evidence.enough else []
    if blocks:
        seen += [f"{count(len(blocks), 'block')} in the last {span(evidence.recent_s)}, {the_longest(blocks)}"]
    yield finding(
        "gc-pauses",
        "warning",
        title="garbage collections hold the loop",
        seen="; ".join(seen),
        threshold=f"{MIN_BLOCKS} blocks, or {GC_PCT:g} % of the loop's time",
        value=float(len(blocks)) if many else pct,
        limit=float(MIN_BLOCKS) if many else GC_PCT,
        unit="blocks" if many else "%",
    )
