"""Memory by session: the bytes in use, read at the switches of one ledger.

If the meter in C is installed, its type of the same name does the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._native import native
from .account import Account

if TYPE_CHECKING:  # loaded when needed: most workers do not measure memory by session
    from .heap_reader import HeapReader


class StepHeapInPython:
    """The memory part of one ledger. Without a reader, it does nothing."""

    __slots__ = ("at", "charged", "charged_elsewhere", "exited_scope", "reader")

    def __init__(self) -> None:
        self.reader: HeapReader | None = None
        """Reads the bytes in use; None: memory is not measured."""
        self.at = 0
        """The reading of the last switch."""
        self.charged = 0
        """Bytes charged to steps so far."""
        self.charged_elsewhere = 0
        """Bytes charged to calls in threads, and so to no step. Written under the lock of those calls."""
        self.exited_scope: Account | None = None
        """The account of the scope that was left in the step under way: what the rest of the step frees is its."""

    def open(self) -> None:
        """Begin a step. What was allocated between steps is charged to no session."""
        reader = self.reader  # read once: another thread may switch it off
        if reader is not None and reader.draw():
            self.at = reader() - self.charged_elsewhere

    def charge(self, holder: Account) -> None:
        """Charge `holder` with the bytes since the last switch, if this step is read."""
        reader = self.reader
        if reader is None or not reader.sampled:
            return
        now = reader() - self.charged_elsewhere
        change = now - self.at
        self.at = now
        self.charged += change
        scope = self.exited_scope
        (scope if scope is not None and change < 0 else holder).heap += reader.weight * change

    def close(self, holder: Account) -> None:
        """End a step that `holder` had last."""
        self.charge(holder)
        self.exited_scope = None


StepHeap = StepHeapInPython
if not TYPE_CHECKING and native is not None:
    StepHeap = native.StepHeap
