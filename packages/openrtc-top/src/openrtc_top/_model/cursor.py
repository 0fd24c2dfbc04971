"""Moving about: a selection in a list that changes, and a text that scrolls."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_STEPS = {"up": -1, "k": -1, "down": 1, "j": 1}
_PAGES = {"pageup": -1, "ctrl-b": -1, "pagedown": 1, "ctrl-f": 1}
_ENDS = {"home": 0, "g": 0, "end": -1, "G": -1}
MOVES = frozenset({*_STEPS, *_PAGES, *_ENDS})
"""The keys that move, by the names that `_tui.keys` gives them."""


@dataclass(frozen=True, slots=True)
class Cursor(Generic[K]):
    """The selection in a list whose entries have keys.

    It stays with its entry while the list changes.
    """

    chosen: K | None = None
    at: int = 0
    """The index at which the entry was last seen, for when it is not there any more."""
    top: int = 0
    """The first entry on the screen, as last drawn."""
    page_rows: int = 10
    """The number of entries that there was room for, as last drawn."""

    def index(self, keys: Sequence[K]) -> int | None:
        """Return the selected entry's index.

        If the entry is gone, it is the index of what stands there instead.
        """
        if self.chosen is None or not keys:
            return None
        found = (index for index, key in enumerate(keys) if key == self.chosen)
        return next(found, min(self.at, len(keys) - 1))

    def select(self, keys: Sequence[K], index: int) -> Cursor[K]:
        """Return the cursor with this entry selected, or the nearest there is."""
        if not keys:
            return replace(self, chosen=None)
        index = min(max(index, 0), len(keys) - 1)
        return replace(self, chosen=keys[index], at=index)

    def handle_key(self, key: str, keys: Sequence[K]) -> Cursor[K] | None:
        """Return the cursor after a key. None: the key does not move."""
        if key not in MOVES:
            return None
        if key in _ENDS:
            return self.select(keys, len(keys) - 1 if _ENDS[key] else 0)
        step = _STEPS.get(key) or _PAGES[key] * max(1, self.page_rows)
        index = self.index(keys)
        if index is None:  # the first step only shows the selection
            return self.select(keys, self.top if key in _STEPS else self.top + step)
        return self.select(keys, index + step)

    def window(self, index: int | None, count: int, room: int) -> int:
        """Return the first entry to draw.

        It moves only as far as the selection needs.
        """
        top = self.top
        if index is not None:
            top = min(max(top, index - room + 1), index)
        return max(0, min(top, count - room))


@dataclass(frozen=True, slots=True)
class Scroll:
    """The part of a text that is in sight. Drawing stops at the end of the text."""

    top: int = 0
    """The first line on the screen."""
    page_rows: int = 10
    """The number of lines that there was room for, as last drawn."""

    def handle_key(self, key: str) -> Scroll | None:
        """Return the scrolling after a key. None: the key does not move."""
        if key not in MOVES:
            return None
        if key in _ENDS:
            return replace(self, top=_FAR if _ENDS[key] else 0)
        step = _STEPS.get(key) or _PAGES[key] * max(1, self.page_rows)
        return replace(self, top=max(0, self.top + step))


_FAR = 10**6
