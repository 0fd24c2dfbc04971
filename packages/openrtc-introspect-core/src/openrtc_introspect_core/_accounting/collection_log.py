"""The garbage collections that have ended, in bounded memory, however many there are in one block.

When the log is full, neighbours of one thread are added up: the sum of their seconds stays. So the latest collections
are known one by one, and of n collections the earliest ones by groups of about n / 100.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import NamedTuple

from .._os.stacks import Calls
from .account import Owner
from .spans import seconds_within

MAX_COLLECTIONS = 512
"""The collections, or groups of them, that are kept."""


class Asked(NamedTuple):
    """A call of `gc.collect()`."""

    owner: Owner | None
    """The session that was bound. None: none was."""
    calls: Calls
    """The stack of the call, innermost first."""

    @property
    def place(self) -> Hashable:
        """Return what calls of one session at one line have in common."""
        return self.owner, self.calls[:1]


class Collection(NamedTuple):
    """A garbage collection that has ended, or several of one thread. Clock readings."""

    start: float
    end: float
    seconds: float
    """How long it took; of several: all of them, without the time between them."""
    generation: int
    """The oldest one of several."""
    thread_id: int
    asked: Asked | None = None
    """Who has called `gc.collect()`. None: the collector has begun by itself, or that is not known."""
    objects: int | None = None
    """The objects that it went through; of several: the most of one. None: not known, as before Python 3.15."""

    @property
    def kind(self) -> Hashable:
        """Return what collections that can be added up have in common."""
        return self.thread_id, self.asked.place if self.asked is not None else None

    def with_later(self, later: Collection) -> Collection:
        """Return both, added up."""
        return self._replace(
            end=later.end,
            seconds=self.seconds + later.seconds,
            generation=max(self.generation, later.generation),
            objects=most_objects((self, later)),
        )

    def seconds_within(self, start: float, end: float) -> float:
        """Return the seconds between two moments. Those of several are taken for evenly distributed."""
        return seconds_within(self.seconds, self.start, self.end, start, end)


def most_objects(collections: Iterable[Collection]) -> int | None:
    """Return the most objects that one of these collections went through. None: not known of any."""
    return max((each.objects for each in collections if each.objects is not None), default=None)


class CollectionLog:
    """The collections of all threads. The collecting thread adds; others read, from any thread."""

    def __init__(self) -> None:
        self._kept: list[Collection] = []

    def add(self, collection: Collection) -> None:
        """Add a collection that has just ended."""
        kept = self._kept
        if len(kept) >= MAX_COLLECTIONS:
            self._kept = kept = _in_pairs(kept)[-MAX_COLLECTIONS * 3 // 4 :]  # without the oldest, of very many threads
        kept.append(collection)

    def within(self, start: float, end: float) -> Iterator[Collection]:
        """Return those that ran between two moments, in part or wholly."""
        return (each for each in self._kept.copy() if each.start < end and each.end > start)


def _in_pairs(collections: list[Collection]) -> list[Collection]:
    """Return the collections, two and two of a kind added up."""
    found: list[Collection] = []
    single: dict[Hashable, int] = {}
    for each in collections:
        at = single.pop(each.kind, None)
        if at is None:
            single[each.kind] = len(found)
            found.append(each)
        else:
            found[at] = found[at].with_later(each)
    return found
