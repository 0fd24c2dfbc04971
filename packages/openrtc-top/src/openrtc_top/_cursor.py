"""Moving about: a selection in a list that changes under it, and a text that scrolls."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_STEPS = {"up": -1, "k": -1, "down": 1, "j": 1}
_PAGES = {"pageup": -1, "ctrl-b": -1, "pagedown": 1, "ctrl-f": 1}
_ENDS = {"home": 0, "g": 0, "end": -1, "G": -1}
MOVES = frozenset({*_STEPS, *_PAGES, *_ENDS})
"""The keys that move, as they are named in `_keys`."""


@dataclass(frozen=True, slots=True)
class Cursor(Generic[K]):
    """What is selected in a list whose entries are told apart by keys. A selection stays with its entry."""

    chosen: K | None = None
    at: int = 0
    """The index it was last seen at, for when it is not there any more."""
    top: int = 0
    """The first entry on the screen, and below, how many there is room for: as last drawn."""
    page: int = 10

    def index(self, keys: Sequence[K]) -> int | None:
        """Where the selected entry stands now; where it is gone, what stands there instead."""
        if self.chosen is None or not keys:
            return None
        found = (index for index, key in enumerate(keys) if key == self.chosen)
        return next(found, min(self.at, len(keys) - 1))

    def select(self, keys: Sequence[K], index: int) -> Cursor[K]:
        """With this entry selected, or the nearest there is."""
        if not keys:
            return replace(self, chosen=None)
        index = min(max(index, 0), len(keys) - 1)
        return replace(self, chosen=keys[index], at=index)

    def press(self, key: str, keys: Sequence[K]) -> Cursor[K] | None:
        """The selection after a key. None: the key does not move."""
        if key not in MOVES:
            return None
        if key in _ENDS:
            return self.select(keys, len(keys) - 1 if _ENDS[key] else 0)
        step = _STEPS.get(key) or _PAGES[key] * max(1, self.page)
        index = self.index(keys)
        if index is None:  # the first step only shows where you are
            return self.select(keys, self.top if key in _STEPS else self.top + step)
        return self.select(keys, index + step)

    def window(self, index: int | None, count: int, room: int) -> int:
        """The first entry to be drawn: as before, moved only as far as the selection asks for."""
        top = self.top
        if index is not None:
            top = min(max(top, index - room + 1), index)
        return max(0, min(top, count - room))


@dataclass(frozen=True, slots=True)
class Scroll:
    """How far a text is scrolled. The drawing stops it at the end."""

    top: int = 0
    page: int = 10

    def press(self, key: str) -> Scroll | None:
        """The text after a key. None: the key does not move."""
        if key not in MOVES:
            return None
        if key in _ENDS:
            return replace(self, top=_FAR if _ENDS[key] else 0)
        step = _STEPS.get(key) or _PAGES[key] * max(1, self.page)
        return replace(self, top=max(0, self.top + step))


_FAR = 10**6
