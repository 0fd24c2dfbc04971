"""Delays between sessions: blocks added up by the culprit and the delayed session."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openrtc_top._model.blocks import Entry

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Delayed


@dataclass(slots=True)
class PairDelay:
    """The time that one session waited for blocks of another."""

    worker: str
    """The worker's name."""
    culprit: str | None
    """The session that held the loop. None: no session did, or it is not known."""
    cause: str | None
    """If no session held the loop: what did."""
    session: str
    """The session that waited."""
    blocks: int = 0
    total_ms: float = 0.0
    total_exact: bool = True
    """False: the total is an upper bound."""
    worst_ms: float = 0.0
    worst_exact: bool = True

    def add(self, delayed: Delayed) -> None:
        """Add one block."""
        self.blocks += 1
        self.total_ms += delayed.delayed_ms
        self.total_exact &= delayed.exact
        if delayed.delayed_ms > self.worst_ms:
            self.worst_ms, self.worst_exact = delayed.delayed_ms, delayed.exact


def pair_delays(found: Iterable[Entry], sessions: frozenset[str] = frozenset()) -> list[PairDelay]:
    """Return the pairs, by what the culprits cost others, then by the waits.

    With sessions: only pairs of which one is among them.
    """
    pairs: dict[tuple[str, str | None, str | None, str], PairDelay] = {}
    for worker, name, block, _ in found:
        culprit, cause = block.session_id, None if block.session_id is not None else block.cause
        for delayed in block.delayed or ():
            session = delayed.session_id
            if sessions and session not in sessions and culprit not in sessions:
                continue
            key = (worker, culprit, cause, session)
            if key not in pairs:
                pairs[key] = PairDelay(name, culprit, cause, session)
            pairs[key].add(delayed)
    cost: dict[tuple[str, str | None, str | None], float] = {}
    for key, pair in pairs.items():
        cost[key[:3]] = cost.get(key[:3], 0.0) + pair.total_ms
    ordered = sorted(pairs, key=lambda key: (-cost[key[:3]], str(key[:3]), -pairs[key].total_ms, key[3]))
    return [pairs[key] for key in ordered]
