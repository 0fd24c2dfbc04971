"""The rule about threading locks that a suspended task holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ...wire._messages import Block, Holder
from ..evidence import Evidence, held_across_await, since
from ..finding import Finding
from .wording import at, finding, holder_of, ms, times, who

ONE_MS = 500.0
MIN_BLOCKS = 2
"""One block of this length, or so many blocks of any."""


def lock_held_across_await(evidence: Evidence, found: Sequence[Finding]) -> Iterator[Finding]:
    """Report a threading lock that a suspended task holds, while the loop waits for it."""
    places: dict[Any, list[Block]] = {}
    for block in (*evidence.blocks, *evidence.last.blocks_in_progress):
        if held_across_await(block):
            assert block.holder is not None
            places.setdefault(_place(block.holder), []).append(block)
    for blocks in places.values():
        lasted = {block.started_at: _lasted_ms(block, evidence) for block in blocks}
        longest = max(blocks, key=lambda block: lasted[block.started_at])
        longest_ms = lasted[longest.started_at]
        if longest_ms < ONE_MS and len(lasted) < MIN_BLOCKS:
            continue
        holder = longest.holder
        assert holder is not None
        going_on = any(block.in_progress for block in blocks)
        yield finding(
            "lock-held-across-await",
            "critical" if going_on else "warning",
            title=f"{who(holder, f'task {holder.task_name}')} is suspended while it holds "
            f"{longest.waiting_on or 'a threading lock'}, and the loop waits for that",
            seen=f"{holder_of(longest)} wait{'s' if going_on else 'ed'}{at(longest.location)}, {times(len(lasted))}, "
            f"the longest {ms(longest_ms)}; the holder{' most likely' if not holder.certain else ''} is suspended"
            f"{at(holder.location)}{_taken(holder)}",
            threshold=f"1 block of {ms(ONE_MS)}, or {MIN_BLOCKS} blocks, for a lock whose holder is suspended",
            value=longest_ms,
            limit=ONE_MS,
            unit="ms",
            session_id=holder.session_id,
            agent_name=holder.agent_name,
            tenant=holder.tenant,
            location=holder.taken_at or holder.location,
        )


def _lasted_ms(block: Block, evidence: Evidence) -> float:
    return 1000.0 * (evidence.last.taken_at - since(block)) if block.in_progress else block.duration_ms


def _taken(holder: Holder) -> str:
    if holder.taken_at is None:
        return ""
    return f", in the `with` at {holder.taken_at}" if holder.certain else f"; it took the lock at {holder.taken_at}"


def _place(holder: Holder) -> Any:
    place = holder.taken_at or holder.location
    return (place.file, place.function) if place else (holder.session_id, holder.task_name)
