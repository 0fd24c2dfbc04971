"""The waits that hold in several answers to waits requests.

One answer is a moment, and a full queue at one moment is no fault. So a group of waiters counts only if it was there in
nearly all of the last answers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import NamedTuple, TypeVar

from ..wire._messages import (
    CallbackGroup,
    Creation,
    ExecutorInfo,
    Holder,
    Location,
    LoopActivity,
    Waiter,
    WaitGroup,
    Waits,
)

LAST_ANSWERS = 5
MIN_ANSWERS = 3
"""The most of the last answers that count, and the fewest with which anything is said."""

SAME_S = 0.05
"""Moments that are closer to each other are the same, read twice."""

_Item = TypeVar("_Item")


class Seen(NamedTuple):
    """A group of waiters in one answer."""

    at: float
    """The moment of the answer, Unix time in seconds."""
    group: WaitGroup

    @property
    def longest_s(self) -> float:
        """Seconds for which the first of the group has waited; 0 if that is not known."""
        return self.waited_s(self.group.since)

    @property
    def held_s(self) -> float:
        """Seconds for which none of the holders has stepped; 0 if there are none, or that is not known."""
        return min((self.waited_s(holder.since) for holder in self.group.holders), default=0.0)

    def waited_s(self, since: float | None) -> float:
        """Return the seconds from a moment until the answer; 0 if the moment is not known."""
        return 0.0 if since is None else max(0.0, self.at - since)


@dataclass(frozen=True)
class Standing:
    """A group of waiters that was there in nearly all of the last answers."""

    kind: str
    seen: tuple[Seen, ...]
    """The answers that have it, at least MIN_ANSWERS of them, in order."""
    answers: int
    """The number of answers that were looked at."""

    @property
    def last(self) -> WaitGroup:
        """The group as the last answer has it."""
        return self.seen[-1].group

    @property
    def stuck(self) -> int:
        """The fewest sessions that were stuck in it, in any of the answers."""
        return min(each.group.stuck for each in self.seen)

    @property
    def sessions(self) -> int:
        """The fewest sessions that waited in it, in any of the answers."""
        return min(each.group.sessions for each in self.seen)

    @property
    def usual_s(self) -> float:
        """The median of the longest waits, in seconds."""
        return median(each.longest_s for each in self.seen)

    @property
    def longest_s(self) -> float:
        """The longest wait in any of the answers, in seconds."""
        return max(each.longest_s for each in self.seen)

    @property
    def holder(self) -> Holder | None:
        """The holder in the last answer. None: nobody holds it, or it is not known."""
        return self.last.holders[0] if self.last.holders else None

    @property
    def held_s(self) -> float:
        """The median of the seconds for which no holder stepped; 0 while it is not known."""
        return median(each.held_s for each in self.seen)

    @property
    def longest_held_s(self) -> float:
        """The longest time for which no holder stepped in any of the answers, in seconds."""
        return max(each.held_s for each in self.seen)


class Waiting:
    """The last answers to waits requests, and what holds in nearly all of them.

    answers: of one worker, since its last start, in order.
    """

    def __init__(self, answers: Sequence[Waits]) -> None:
        self._every = answers
        self.answers = list(answers[-LAST_ANSWERS:])
        self.enough = len(self.answers) >= MIN_ANSWERS
        """Whether there are as many answers as a finding needs."""
        self.span_s = answers[-1].taken_at - answers[0].taken_at if answers else 0.0
        """Seconds from the first answer to the last."""

    @cached_property
    def groups(self) -> list[Standing]:
        """The groups that stood in nearly all of the last answers; none if there are too few answers.

        Those with the most stuck sessions come first. One answer of four may lack a group: a lock that is let go for a
        moment is held again in the next.
        """
        standing = [
            Standing(found[0][1].kind, tuple(Seen(answer.taken_at, each) for answer, each in found), len(self.answers))
            for _, found in self._by_key(lambda answer: answer.groups, _key_of_group, len(self.answers) // 4)
        ]
        return sorted(standing, key=lambda each: -each.last.stuck)

    @cached_property
    def executors(self) -> list[list[ExecutorInfo]]:
        """The executors that all of the last answers have, each as it was in each of them."""
        found = self._by_key(lambda answer: answer.executors, lambda each: (each.name, each.kind, each.loop))
        return [[each for _, each in series] for _, series in found]

    @cached_property
    def loops(self) -> list[list[tuple[Waits, LoopActivity]]]:
        """What the loops of all of the last answers did, in each of them."""
        return [series for _, series in self._by_key(lambda answer: answer.loops, lambda each: (each.name,))]

    @cached_property
    def creations(self) -> list[list[Creation]]:
        """The places of creation of the last answer, each as it was in all answers since it was first there."""
        every: dict[Hashable, list[Creation]] = {}
        for answer in self._every:
            now = {_key_of_creation(each): each for each in answer.creations}
            every = {key: [*every.get(key, ()), each] for key, each in now.items()}
        return [series for series in every.values() if len(series) >= MIN_ANSWERS]

    def _by_key(
        self, items: Callable[[Waits], Iterable[_Item]], key: Callable[[_Item], tuple[Hashable, ...]], may_lack: int = 0
    ) -> Iterator[tuple[tuple[Hashable, ...], list[tuple[Waits, _Item]]]]:
        """Yield (key, what each answer has under it) of what is in all answers, or may be lacking in some."""
        if not self.enough:
            return
        found: dict[tuple[Hashable, ...], list[tuple[Waits, _Item]]] = {}
        for answer in self.answers:
            for each, item in {key(item): item for item in reversed(list(items(answer)))}.items():  # the first counts
                found.setdefault(each, []).append((answer, item))
        for each, series in found.items():
            if len(series) >= max(MIN_ANSWERS, len(self.answers) - may_lack):
                yield each, series


def rings(answer: Waits) -> list[list[tuple[Waiter, Holder]]]:
    """Return the rings of tasks of which each waits for what the next one holds.

    A ring is (waiter, holder of what it waits for) of each of its tasks. Only certain holders count.
    """
    waits: dict[tuple[str | None, str], tuple[Waiter, list[Holder]]] = {}
    for group in answer.groups:
        holders = [each for each in group.holders if each.certain and each.task_name is not None]
        if len(holders) == 1 == len(group.holders):  # with several slots, another holder may let go of one
            for waiter in group.waiters:
                waits.setdefault((waiter.session_id, waiter.task_name), (waiter, holders))
    found, done = [], set()
    for start in waits:
        path: list[tuple[str | None, str]] = []
        at = start
        while at in waits and at not in done:
            done.add(at)
            path.append(at)
            holder = waits[at][1][0]
            at = (holder.session_id, holder.task_name or "")
        if at in path:
            found.append([(waits[each][0], waits[each][1][0]) for each in path[path.index(at) :]])
    return found


def same_callback(first: CallbackGroup, second: CallbackGroup) -> bool:
    """Return whether two groups are of the same function, session and file."""
    return _key_of_callback(first) == _key_of_callback(second)


def _place(location: Location | None) -> tuple[str, str] | None:
    """Return what the lines of one function have in common."""
    return None if location is None else (location.file, location.function)


def _key_of_group(group: WaitGroup) -> tuple[Hashable, ...]:
    return group.kind, group.shared, _place(group.location)


def _key_of_creation(creation: Creation) -> tuple[Hashable, ...]:
    return creation.kind, creation.function, _place(creation.location)


def _key_of_callback(group: CallbackGroup) -> tuple[Hashable, ...]:
    return group.source, group.function, group.session_id, group.fd
