"""The blocks of several workers as one list, and the choice of some of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from openrtc_introspect_core._diagnosis import cause
from openrtc_introspect_core.wire import MAX_DELAYED

if TYPE_CHECKING:
    from openrtc_introspect_core.wire import Block, Delayed, Snapshot

CAUSES = tuple(cause.CAUSES)
MAX_KEPT = 256
"""The number of a worker's blocks that are kept: as many as it keeps itself."""


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
        """The key by which a selection stays with its block, which has no number before it is over."""
        return self.worker, self.block.started_at


def lasted_ms(snapshot: Snapshot, block: Block) -> float:
    """Return how long the block has lasted, by the worker's clock alone.

    A block in progress has lasted until the snapshot, or longer if a black box says so.
    """
    if block.running_since is None:
        return block.duration_ms
    return max(block.duration_ms, (snapshot.taken_at - block.running_since) * 1000)


def entries(worker: str, name: str, blocks: Iterable[Block], snapshot: Snapshot | None) -> list[Entry]:
    """Return a worker's blocks: those that are over, then those in progress."""
    found = [Entry(worker, name, block, block.duration_ms) for block in blocks]
    if snapshot is not None:
        over = {entry.identity for entry in found}  # it may have ended since the snapshot
        going_on = [Entry(worker, name, block, lasted_ms(snapshot, block)) for block in snapshot.blocks_in_progress]
        found += [entry for entry in going_on if entry.identity not in over]
    return found


def in_order(found: Iterable[Entry]) -> list[Entry]:
    """Return the entries, the oldest first and those in progress last."""
    return sorted(found, key=lambda entry: (entry.block.in_progress, entry.block.started_at, entry.worker))


def merged(kept: Sequence[Block], new: Iterable[Block]) -> tuple[Block, ...]:
    """Return the last blocks of a worker: those that are kept, then the new ones."""
    last = kept[-1].seq if kept else 0
    return (*kept, *(block for block in new if block.seq > last))[-MAX_KEPT:]


def at_least(delayed: list[Delayed]) -> str:
    """Return how many sessions a block delayed.

    It has a plus if the block names as many as it can.
    """
    return f"{len(delayed)}{'+' if len(delayed) >= MAX_DELAYED else ''}"


def longest_wait(block: Block) -> Delayed | None:
    """Return the session that a block kept waiting the longest.

    None: none, or it is not known.
    """
    return max(block.delayed or (), key=lambda delayed: delayed.delayed_ms, default=None)


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice of blocks to be shown. Empty, None: no condition."""

    sessions: frozenset[str] = frozenset()
    cause: str | None = None
    include_delayed: bool = False
    """Blocks that delayed one of the sessions are wanted as well."""

    def __bool__(self) -> bool:
        return bool(self.sessions or self.cause)

    def accepts(self, block: Block) -> bool:
        """Return whether the block is wanted."""
        if self.cause is not None and block.cause != self.cause:
            return False
        if not self.sessions or block.session_id in self.sessions:
            return True
        return self.include_delayed and any(delayed.session_id in self.sessions for delayed in block.delayed or ())
