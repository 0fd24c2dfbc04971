"""The list of blocks that the key b opens: what is selected in it, and what its keys do.

Newest first. A selection stays with its block, also when that ends and gets its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from openrtc_top._blocks import Entry
from openrtc_top._cursor import Cursor


@dataclass(frozen=True, slots=True)
class BlockList:
    """The list, but for the blocks themselves."""

    cursor: Cursor[tuple[str, float]] = field(default_factory=Cursor)
    """Of the identities of entries."""
    stack: bool = False
    """What is known of the selected block is shown below the list."""

    def index(self, rows: Sequence[Entry]) -> int | None:
        """Where the selected block stands now; where it is gone, what stands there instead."""
        return self.cursor.index([row.identity for row in rows])

    def press(self, key: str, rows: Sequence[Entry]) -> BlockList | None:
        """The list after a key. None: the key is not the list's."""
        keys = [row.identity for row in rows]
        if key in ("enter", "t"):
            index = self.cursor.index(keys)
            cursor = self.cursor.select(keys, self.cursor.top if index is None else index)
            return BlockList(cursor, stack=not self.stack and cursor.chosen is not None)
        if key in ("escape", "backspace") and self.stack:
            return replace(self, stack=False)
        moved = self.cursor.press(key, keys)
        if moved is None:
            return None
        return BlockList(moved, stack=self.stack and moved.chosen is not None)
