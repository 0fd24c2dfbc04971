"""The memory that a call in a thread has allocated: the rise of the bytes in use that was charged to nobody else."""

from __future__ import annotations

from typing import NamedTuple

from .ledger import Ledger


class HeapMark(NamedTuple):
    """The bytes in use, and the charged part of them, when a call begins or ends."""

    in_use: int
    """Less the bytes charged to calls in threads."""
    charged: int
    """Bytes charged to steps."""
    pending: int
    """Bytes allocated in the step under way, so far."""
    exact_since: float
    """The time since which every step is charged."""


def heap_mark(ledger: Ledger) -> HeapMark | None:
    """Return what is in use and charged now.

    None: memory is not measured, or not in every step. Then the bytes that are not charged may be anyone's.
    """
    reader = ledger.heap.reader
    if reader is None or not reader.exact:
        return None
    now = reader.raw() - ledger.heap.charged_elsewhere  # the account is the loop's thread's
    pending = 0 if ledger.holder in (None, ledger.parked) else now - ledger.heap.at
    return HeapMark(now, ledger.heap.charged, pending, reader.exact_since)


def allocated(before: HeapMark | None, after: HeapMark | None) -> int:
    """Return the rise of the bytes in use, less what was charged elsewhere meanwhile."""
    if before is None or after is None or before.exact_since != after.exact_since:
        return 0
    change = after.in_use - before.in_use
    if after.charged != before.charged:  # the step in which the call began is over: a part of it was before the call
        change -= after.charged - before.charged - before.pending
    return change
