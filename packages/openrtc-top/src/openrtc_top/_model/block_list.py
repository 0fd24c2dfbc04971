"""The list of blocks that the key b opens: its selection, and its keys.

The newest block is first. A selection stays with its block, also when the block ends and gets its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from openrtc_top._model.blocks import Entry
from openrtc_top._model.cursor import Cursor


@dataclass(frozen=True, slots=True)
class BlockList:
    """The state of the list, without the blocks themselves."""

    cursor: Cursor[tuple[str, float]] = field(default_factory=Cursor)
    """The selection, by the identities of entries."""
    stack: bool = False
    """The selected block's stack is shown below the list."""

    def index(self, rows: Sequence[Entry]) -> int | None:
        """Return the selected block's index.

        If the block is gone, it is the index of what stands there instead.
        """
        return self.cursor.index([row.identity for row in rows])

    def handle_key(self, key: str, rows: Sequence[Entry]) -> BlockList | None:
        """Return the list after a key. None: the key is not the list's."""
        keys = [row.identity for row in rows]
        if key in ("enter", "t"):
            index = self.cursor.index(keys)
            cursor = self.cursor.select(keys, self.cursor.top if index is None else index)
            return BlockList(cursor, stack=not self.stack and cursor.chosen is not None)
        if key in ("escape", "backspace") and self.stack:
            return replace(self, stack=False)
        moved = self.cursor.handle_key(key, keys)
        if moved is None:
            return None
        return BlockList(moved, stack=self.stack and moved.chosen is not None)
