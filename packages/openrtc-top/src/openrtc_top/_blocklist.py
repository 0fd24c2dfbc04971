"""The list of blocks that the key b opens: what is selected in it, and what its keys do.

Newest first. A selection stays with its block, also when that ends and gets its number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from openrtc_top._blocks import Entry


@dataclass(frozen=True, slots=True)
class BlockList:
    """The list, but for the blocks themselves."""

    open: bool = False
    selected: tuple[str, float] | None = None
    """The identity of an Entry."""
    selected_at: int = 0
    """The index it was last seen at, for when the worker forgets it."""
    stack: bool = False
    """What is known of the selected block is shown below the list."""
    top: int = 0
    page: int = 10

    def index(self, rows: Sequence[Entry]) -> int | None:
        """Where the selected block stands now; where it is gone, what stands there instead."""
        if self.selected is None or not rows:
            return None
        found = (index for index, row in enumerate(rows) if row.identity == self.selected)
        return next(found, min(self.selected_at, len(rows) - 1))

    def press(self, key: str, rows: Sequence[Entry]) -> BlockList | None:
        """The list after a key. None: the key is not the list's."""
        action = _KEYS.get(key)
        return action(self, rows) if action else None


def _select(shown: BlockList, rows: Sequence[Entry], index: int) -> BlockList:
    if not rows:
        return replace(shown, selected=None, stack=False)
    index = min(max(index, 0), len(rows) - 1)
    return replace(shown, selected=rows[index].identity, selected_at=index)


def _move(by: Callable[[BlockList], int]) -> Callable[[BlockList, Sequence[Entry]], BlockList]:
    def move(shown: BlockList, rows: Sequence[Entry]) -> BlockList:
        step, index = by(shown), shown.index(rows)
        if index is None:  # the first step only shows where you are
            return _select(shown, rows, shown.top if step in (1, -1) else shown.top + step)
        return _select(shown, rows, index + step)

    return move


def _toggle_stack(shown: BlockList, rows: Sequence[Entry]) -> BlockList:
    index = shown.index(rows)
    selected = _select(shown, rows, shown.top if index is None else index)
    return replace(selected, stack=not shown.stack and selected.selected is not None)


def _back(shown: BlockList, rows: Sequence[Entry]) -> BlockList:
    return replace(shown, stack=False) if shown.stack else replace(shown, open=False)


_KEYS: dict[str, Callable[[BlockList, Sequence[Entry]], BlockList]] = {
    "b": lambda shown, rows: replace(shown, open=False, stack=False),
    "escape": _back,
    "enter": _toggle_stack,
    "t": _toggle_stack,
    "up": _move(lambda shown: -1),
    "down": _move(lambda shown: 1),
    "pageup": _move(lambda shown: -max(1, shown.page)),
    "pagedown": _move(lambda shown: max(1, shown.page)),
    "home": lambda shown, rows: _select(shown, rows, 0),
    "end": lambda shown, rows: _select(shown, rows, len(rows) - 1),
    # The table's keys would change what is not on the screen.
    "s": lambda shown, rows: shown,
    "f": lambda shown, rows: shown,
    "i": lambda shown, rows: shown,
}
