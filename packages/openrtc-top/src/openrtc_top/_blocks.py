"""The blocks of several workers as one list, and which of them are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from openrtc_introspect_core.wire import MAX_DELAYED

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Block, Delayed, Snapshot

CAUSES = ("sync-call", "cpu", "native", "import", "burst", "callback", "gc", "gil-contention", "descheduled")
KEPT = 256
"""So many blocks of a worker are kept: as many as it keeps itself."""


class Entry(NamedTuple):
    """One block, and the worker it happened in."""

    worker: str
    """The worker's key."""
    name: str
    """The worker's name."""
    block: Block
    lasted_ms: float

    @property
    def identity(self) -> tuple[str, float]:
        """What a selection holds on to: a block has its number only when it is over."""
        return self.worker, self.block.started_at


def lasted_ms(snapshot: Snapshot, block: Block) -> float:
    """By the worker's clock alone: the moment of the snapshot against the start of the step."""
    if block.running_since is None:
        return block.duration_ms
    return max(0.0, (snapshot.taken_at - block.running_since) * 1000)


def entries(worker: str, name: str, blocks: Iterable[Block], snapshot: Snapshot | None) -> list[Entry]:
    """A worker's blocks that are over, and after them those that the snapshot saw going on."""
    found = [Entry(worker, name, block, block.duration_ms) for block in blocks]
    if snapshot is not None:
        over = {entry.identity for entry in found}  # it may have ended since the snapshot
        going_on = [Entry(worker, name, block, lasted_ms(snapshot, block)) for block in snapshot.blocks_in_progress]
        found += [entry for entry in going_on if entry.identity not in over]
    return found


def in_order(found: Iterable[Entry]) -> list[Entry]:
    """Oldest first; those in progress are last."""
    return sorted(found, key=lambda entry: (entry.block.in_progress, entry.block.started_at, entry.worker))


def later(kept: Sequence[Block], new: Iterable[Block]) -> tuple[Block, ...]:
    """The last blocks of a worker, once those that were just read are among them."""
    last = kept[-1].seq if kept else 0
    return (*kept, *(block for block in new if block.seq > last))[-KEPT:]


def at_least(delayed: list[Delayed]) -> str:
    """How many sessions a block delayed: it names so many at the most, and more may have waited."""
    return f"{len(delayed)}{'+' if len(delayed) >= MAX_DELAYED else ''}"


def longest_wait(block: Block) -> Delayed | None:
    """The session that a block kept waiting the longest. None: none, or it is not known."""
    return max(block.delayed or (), key=lambda delayed: delayed.delayed_ms, default=None)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a block must be to be shown. Empty, None: anything."""

    sessions: frozenset[str] = frozenset()
    cause: str | None = None
    victims: bool = False
    """Blocks that kept one of the sessions waiting are wanted as well."""

    def __bool__(self) -> bool:
        return bool(self.sessions or self.cause)

    def accepts(self, block: Block) -> bool:
        if self.cause is not None and block.cause != self.cause:
            return False
        if not self.sessions or block.session_id in self.sessions:
            return True
        return self.victims and any(delayed.session_id in self.sessions for delayed in block.delayed or ())
